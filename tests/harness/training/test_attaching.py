"""Published dictionaries on a tiny GPT-2: their codes here are those of SAELens on TransformerLens' own run.

TransformerLens changes weights as it loads a model, and a dictionary has learnt from what came out. Its run of the
changed model is held against ours of the model as it is.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.systems.system import Site, System
from harness.training.attaching import norm_before
from harness.training.dictionaries import import_dictionaries, load_dictionaries
from harness.training.dictionary_record import DictionaryRecord
from models.pretrained import PretrainedSubject
from saes import cross_layer
from saes.pretrained import Pretrained

from ...models.test_pretrained import LAYERS, VOCAB, WIDTH, tiny, tokens

sae_lens = pytest.importorskip("sae_lens")
lens = pytest.importorskip("transformer_lens")
from sae_lens.registry import SAE_CLASS_REGISTRY  # noqa: E402
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig  # noqa: E402
from sae_lens.saes.sae import SAE, SAEMetadata  # noqa: E402
from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights  # noqa: E402

pytestmark = pytest.mark.slow

N = 80
RESID, MLP = Site(1, "resid_post"), Site(1, "mlp")
HOOKS = {RESID: "blocks.1.hook_resid_post", MLP: "blocks.1.ln2.hook_normalized"}
UNCHANGED: dict[str, bool] = {"center_writing_weights": False}


class Split:
    """Random sequences in the place of a corpus."""

    length = 9

    def __len__(self) -> int:
        return 2

    def batch(self, indices: Tensor) -> Any:
        found = SimpleNamespace(input_ids=tokens()[indices])
        found.to = lambda _device: found
        return found


SPLIT = cast(Any, Split())


def their_run(changes: dict[str, bool], hook: str) -> Tensor:
    """What TransformerLens gives at a hook of the same weights, changed as it changes them. `[tokens, width]`"""
    config = lens.HookedTransformerConfig(
        n_layers=LAYERS, d_model=WIDTH, n_ctx=64, n_heads=4, d_head=WIDTH // 4, d_mlp=4 * WIDTH, d_vocab=VOCAB,
        act_fn="gelu_new", eps=1e-5, normalization_type="LNPre" if changes.get("fold_ln") else "LN", device="cpu",
    )  # fmt: skip
    model = lens.HookedTransformer(config)
    every = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
    model.load_and_process_state_dict(convert_gpt2_weights(tiny("gpt2"), config), **{**every, **changes})
    return model.run_with_cache(tokens(), names_filter=hook)[1][hook].flatten(0, 1)


def saved(folder: Path, architecture: str, site: Site, changes: dict[str, bool], **more: Any) -> SAE[Any]:
    """A random dictionary as SAELens saves it, and as it reads it back."""
    said = SAEMetadata(
        model_name="gpt2-small", hook_name=HOOKS[site], context_size=64, prepend_bos=True,
        model_from_pretrained_kwargs=changes,
    )  # fmt: skip
    options: dict[str, Any] = {"d_in": WIDTH, "d_sae": N, "metadata": said, **more}
    if architecture == "batchtopk":
        sae: Any = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**options, k=4))
        sae.topk_threshold.fill_(0.3)
    else:
        if "transcoder" in architecture:
            options |= {"d_out": WIDTH, "apply_b_dec_to_input": False}
        if architecture == "topk":
            options["k"] = 4
        cls, config = SAE_CLASS_REGISTRY[architecture]
        sae = cls(config(**options))
    with torch.no_grad():
        for i, (name, p) in enumerate(sorted(sae.named_parameters())):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) / WIDTH**0.5)
            if name == "threshold":
                p.abs_()
    (sae.save_inference_model if architecture == "batchtopk" else sae.save_model)(folder)
    return SAE.load_from_disk(folder)


def read_here(source: Pretrained, site: Site, row: Path) -> tuple[Tensor, Tensor, Any]:
    """Codes `[tokens, latents]` of a row of the table, what its dictionary read, and the dictionary."""
    model = PretrainedSubject(tiny("gpt2"))
    import_dictionaries(source, (site,), row, model, SPLIT)
    dictionary = load_dictionaries(row, (site,), "cpu")[site]
    system = System("row", model, {site: dictionary})
    seen: list[Tensor] = []
    with system.watching(lambda _site, x, _y: seen.append(x.flatten(0, 1))), torch.no_grad():
        model(tokens())
    return system.encode(tokens())[site].codes.dense(), seen[0], dictionary


@pytest.mark.parametrize("changes", [UNCHANGED, {"center_writing_weights": True}], ids=["as it is", "centred"])
@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("standard", {}),
        ("standard", {"normalize_activations": "layer_norm"}),
        ("topk", {}),
        ("jumprelu", {}),
        ("gated", {}),
        ("batchtopk", {}),
    ],
)
def test_codes_are_those_of_saelens_own_run(
    tmp_path: Path, architecture: str, more: dict[str, Any], changes: dict[str, bool]
) -> None:
    theirs = saved(tmp_path / "theirs", architecture, RESID, changes, **more)
    x = their_run(changes, HOOKS[RESID])
    codes, here, dictionary = read_here(Pretrained(path=str(tmp_path / "theirs")), RESID, tmp_path / "row")
    assert 0 < float((codes != 0).float().mean()) < 0.9
    torch.testing.assert_close(codes, theirs.encode(x), atol=1e-5, rtol=1e-5)
    # What it leaves out is the same, too: a mean that it never saw is no error of its.
    torch.testing.assert_close(here - dictionary(here), x - theirs(x), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["transcoder", "skip_transcoder", "jumprelu_skip_transcoder"])
def test_a_transcoder_before_the_norms_gain_reads_behind_it(tmp_path: Path, architecture: str) -> None:
    changes = {"fold_ln": True}
    theirs = saved(tmp_path / "theirs", architecture, MLP, changes)
    x = their_run(changes, HOOKS[MLP])
    codes, here, dictionary = read_here(Pretrained(path=str(tmp_path / "theirs")), MLP, tmp_path / "row")
    assert not torch.allclose(here, x, atol=1e-2)
    torch.testing.assert_close(codes, theirs.encode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary(here), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi", "llama", "gemma2"])
def test_the_norm_before_a_feed_forward_layer_is_found_in_every_family(family: str) -> None:
    model = PretrainedSubject(tiny(family))
    norm = norm_before(model, 1, tokens())
    read: list[Tensor] = []
    handle = model.feed_forwards()[1].register_forward_pre_hook(lambda _m, args: read.append(args[0]))
    with torch.no_grad():
        model(tokens())
    handle.remove()
    n = (read[0] - norm.bias) / norm.gain
    torch.testing.assert_close(n.square().mean(-1), torch.ones(n.shape[:-1]), atol=1e-2, rtol=0)


def across(folder: Path, thresholds: bool) -> dict[str, Tensor]:
    """A cross-layer transcoder as circuit-tracer keeps it."""
    g = torch.Generator().manual_seed(5)
    held = {}
    for i in range(LAYERS):
        encoder = {
            f"W_enc_{i}": torch.randn(N, WIDTH, generator=g) / WIDTH**0.5,
            f"b_enc_{i}": torch.randn(N, generator=g) / 4,
            f"b_dec_{i}": torch.randn(WIDTH, generator=g),
        }
        if thresholds:
            encoder[f"threshold_{i}"] = torch.rand(N, generator=g)
        decoder = {f"W_dec_{i}": torch.randn(N, LAYERS - i, WIDTH, generator=g)}
        folder.mkdir(exist_ok=True)
        save_file(encoder, folder / f"W_enc_{i}.safetensors")
        save_file(decoder, folder / f"W_dec_{i}.safetensors")
        held |= encoder | decoder
    (folder / cross_layer.CONFIG).write_text(
        "model_name: gpt2\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    return held


@pytest.mark.parametrize("thresholds", [False, True])
def test_a_cross_layer_transcoder_is_a_dictionary_a_layer_that_writes_where_it_reads(
    tmp_path: Path, thresholds: bool
) -> None:
    held = across(tmp_path / "clt", thresholds)
    codes, x, dictionary = read_here(Pretrained(path=str(tmp_path / "clt")), MLP, tmp_path / "row")
    pre = x @ held["W_enc_1"].T + held["b_enc_1"]
    wanted = pre.relu() * (pre > held["threshold_1"]) if thresholds else pre.relu()
    torch.testing.assert_close(codes, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary(x), wanted @ held["W_dec_1"][:, 0] + held["b_dec_1"], atol=1e-5, rtol=1e-5)
    assert cross_layer.NOTE in DictionaryRecord.load(tmp_path / "row").notes()


def test_a_layer_that_a_cross_layer_transcoder_does_not_have_is_named(tmp_path: Path) -> None:
    across(tmp_path, thresholds=False)
    (tmp_path / "W_dec_1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"W_dec_1.safetensors is not there: .* has 3 layers, from 0"):
        Pretrained(path=str(tmp_path)).load(1, WIDTH)
