"""Rows whose dictionary was published for a model: they attach to that model, at the place where it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from harness.base.errors import BadInput
from harness.experiment.dictionary_rows import DictionarySpec
from harness.experiment.rows import system_specs
from harness.experiment.schema import Experiment
from harness.systems.system import Site
from saes import catalogue
from saes.dictionary import Weights
from saes.relu import ReLU
from saes.topk import TopK

WIDTH, LAYERS, N = 32, 3, 48


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `gpt2`: as shaped as it is, and as small as can be."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=256)).save_pretrained(
        folder / "gpt2"
    )
    (folder / "gpt2" / "tokenizer.json").write_text("{}")  # looked for, not read
    return folder


def weights(d: int = WIDTH) -> Weights:
    g = torch.Generator().manual_seed(0)
    return Weights(torch.randn(d, N, generator=g), torch.zeros(N), torch.randn(N, d, generator=g), torch.zeros(d))


def published(folder: Path, d: int = WIDTH, transcoder: bool = False, **said: Any) -> Path:
    dictionary = ReLU(weights(d), transcoder=True) if transcoder else TopK(weights(d), 4)
    dictionary.metadata = {"model_name": "gpt2-small", "hook_name": "blocks.1.hook_resid_post", **said}
    dictionary.save(folder)
    return folder


def row(root: Path, subject: str = "gpt2", **options: Any) -> DictionarySpec:
    raw = {
        "name": "x",
        "corpus": {"kind": "chess", "sequence_length": 64},
        "systems": {f"hf:{root / subject}+pretrained": options},
        "metrics": {"loss": {}},
    }
    (spec,) = system_specs(Experiment.model_validate(raw))
    assert spec.dictionary is not None
    return spec.dictionary


def test_a_row_puts_a_dictionary_where_it_says_that_it_was_trained(root: Path, tmp_path: Path) -> None:
    assert row(root, path=str(published(tmp_path / "a"))).sites == (Site(1, "resid_post"),)
    before = published(tmp_path / "b", hook_name="blocks.1.hook_resid_pre")
    assert row(root, path=str(before)).sites == (Site(0, "resid_post"),)
    behind = published(tmp_path / "c", transcoder=True, hook_name="blocks.2.mlp.hook_in")
    assert row(root, path=str(behind)).sites == (Site(2, "mlp"),)


def test_dictionaries_before_the_next_layer_are_named_by_it(root: Path, tmp_path: Path) -> None:
    for layer in (1, 2):
        published(tmp_path / f"blocks.{layer}", hook_name=f"blocks.{layer}.hook_resid_pre")
    spec = row(root, path=str(tmp_path / "blocks.{layer+1}"), layers=[0, 1])
    assert spec.sites == (Site(0, "resid_post"), Site(1, "resid_post"))
    with pytest.raises(
        BadInput, match=r"blocks.1.hook_resid_pre, which is resid_post of layer 0, and the row puts it at"
    ):
        row(root, path=str(tmp_path / "blocks.{layer}"), layers=[1], point="resid_post")


def test_a_model_by_another_name_is_attached_where_a_person_says_so(root: Path, tmp_path: Path) -> None:
    path = str(published(tmp_path, model_name="my-gpt2"))
    assert row(root, path=path, trust=True).sites == (Site(1, "resid_post"),)


@pytest.mark.parametrize(
    ("said", "options", "message"),
    [
        ({"model_name": "pythia-70m"}, {}, "it was trained on pythia-70m, and the row's subject is gpt2"),
        ({"model_name": None}, {}, "does not say which model it was trained on"),
        ({}, {"point": "mlp_out"}, "resid_post of layer 1, and the row puts it at mlp_out of layer 1"),
        ({}, {"layers": [0]}, "resid_post of layer 1, and the row puts it at resid_post of layer 0"),
        ({"hook_name": "blocks.8.hook_resid_post"}, {}, "at blocks.8.hook_resid_post, and gpt2 has layers 0 to 2"),
        ({"hook_name": "blocks.1.attn.hook_z"}, {}, "a dictionary can be at resid_post or mlp_out"),
        ({"context_size": 32}, {}, "contexts of 32 tokens, and corpus.sequence_length = 64"),
        ({"d": 16}, {}, "reads width 16 and writes 16, the subject has width 32"),
        ({"model_from_pretrained_kwargs": {"dtype": "bfloat16"}}, {}, "ran in bfloat16, and the row's runs in float32"),
        ({}, {"layers": [5]}, "the subject has layers 0 to 2"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(
    root: Path, tmp_path: Path, said: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = published(tmp_path / "theirs", **said)
    with pytest.raises(BadInput) as caught:
        row(root, path=str(path), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


JB = "gpt2-small-res-jb"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache without the Hub: what is not there cannot be had."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def cached(hub: Path, sae_id: str) -> dict[str, torch.Tensor]:
    """A tiny dictionary in the cache, as the release's were written before SAELens 6."""
    listed = catalogue.releases()[JB]
    repository = hub / f"models--{listed.repo.replace('/', '--')}"
    folder = repository / "snapshots" / ("0" * 40) / listed.ids[sae_id]
    folder.mkdir(parents=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text("0" * 40)
    g = torch.Generator().manual_seed(3)
    shapes = {"W_enc": (WIDTH, N), "b_enc": (N,), "W_dec": (N, WIDTH), "b_dec": (WIDTH,)}
    tensors = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    config = {"model_name": "gpt2-small", "hook_point": sae_id, "d_in": WIDTH, "d_sae": N, "dtype": "torch.float32"}
    (folder / "cfg.json").write_text(json.dumps({**config, "context_size": 128, "device": "cpu"}))
    save_file(tensors, folder / "sae_weights.safetensors")
    save_file({"sparsity": torch.zeros(N)}, folder / "sparsity.safetensors")
    return tensors


@pytest.mark.slow
def test_a_release_says_where_it_goes_and_that_its_model_was_changed(root: Path, hub: Path) -> None:
    pytest.importorskip("sae_lens")
    tensors = cached(hub, "blocks.1.hook_resid_pre")
    spec = row(root, release=JB, id="blocks.1.hook_resid_pre")
    assert spec.sites == (Site(0, "resid_post"),)
    source: Any = spec.config
    assert source.claims(0).centred(centres=True)  # SAELens' list knows, the file does not
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    wanted = ((x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]).relu() @ tensors["W_dec"] + tensors["b_dec"]
    torch.testing.assert_close(source.load(0, WIDTH)(x), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_without_network_a_release_is_not_to_be_had(root: Path, hub: Path) -> None:
    pytest.importorskip("sae_lens")
    with pytest.raises(
        BadInput, match=r"gpt2-small-res-jb/blocks\.2\.hook_resid_pre is not to be had from the Hub"
    ) as caught:
        row(root, release=JB, id="blocks.2.hook_resid_pre")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"release": "gpt2-smal-res-jb", "id": "blocks.1.hook_resid_pre"}, "did you mean gpt2-small-res-jb"),
        ({"release": JB, "id": "blocks.1.hook_resid_prae"}, "did you mean blocks."),
        (
            {"release": "pythia-70m-deduped-res-sm", "id": "blocks.1.hook_resid_post"},
            "trained on pythia-70m-deduped, and",
        ),
    ],
)
def test_what_the_list_tells_needs_no_network(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        row(root, **options)
