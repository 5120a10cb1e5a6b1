"""Folders that others wrote: what is usable is used, what is not is named in one line before anything trains."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saes.claims import Host
from saes.dictionary import CONFIG_FILE, WEIGHTS_FILE, Weights
from saes.pretrained import Pretrained
from saes.relu import ReLU
from saes.stored import load
from saes.thresholds import JumpReLU
from saes.topk import TopK

D, N = 6, 9
HOST = Host("dense", D, 2, 8)


def weights(threshold: bool = False) -> Weights:
    g = torch.Generator().manual_seed(0)
    return Weights(
        torch.randn(D, N, generator=g), torch.zeros(N), torch.randn(N, D, generator=g), torch.zeros(D),
        threshold=torch.full((N,), 0.5) if threshold else None,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TopK(weights(), 2).save(tmp_path)
    return tmp_path


def change(folder: Path, tensors: dict | None = None, **config: object) -> None:
    if tensors is not None:
        kept = {**load_file(folder / WEIGHTS_FILE), **tensors}
        save_file({name: tensor for name, tensor in kept.items() if tensor is not None}, folder / WEIGHTS_FILE)
    written = {**json.loads((folder / CONFIG_FILE).read_text()), **config}
    (folder / CONFIG_FILE).write_text(json.dumps({k: v for k, v in written.items() if v is not None}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("made", [lambda: TopK(weights(), 2), lambda: ReLU(weights()), lambda: JumpReLU(weights(True))])
def test_weights_of_any_precision_are_read_in_float32(tmp_path: Path, made, dtype: torch.dtype) -> None:
    made().save(tmp_path)
    before = load(tmp_path)
    change(tmp_path, {name: tensor.to(dtype) for name, tensor in load_file(tmp_path / WEIGHTS_FILE).items()})
    after = load(tmp_path)
    assert {parameter.dtype for parameter in after.parameters()} == {torch.float32}
    torch.testing.assert_close(after.W_dec, before.W_dec, rtol=1e-2, atol=1e-2)
    x = torch.randn(5, D, generator=torch.Generator().manual_seed(1))
    assert after(x).isfinite().all()


@pytest.mark.parametrize(
    ("tensors", "config", "says"),
    [
        ({"W_enc": None}, {}, "lacks W_enc, which architecture 'topk' needs"),
        ({"extra": torch.zeros(2)}, {}, "holds extra, which architecture 'topk' does not have"),
        ({"b_enc": torch.zeros(N + 1)}, {}, r"b_enc has shape \(10,\), expected \(9,\)"),
        ({"b_dec": torch.full((D,), torch.nan)}, {}, "6 of 6 numbers in b_dec are not finite"),
        (None, {"k": None}, "has no k"),
        (None, {"architecture": None}, "names no architecture"),
        (None, {"architecture": "jumprelu"}, "lacks threshold"),
    ],
)
def test_what_a_folder_lacks_is_named_before_anything_trains(folder: Path, tensors, config, says: str) -> None:
    change(folder, tensors, **config)
    with pytest.raises(ValueError, match=says) as caught:
        Pretrained(path=str(folder), trust=True).check(0, "mlp_out", HOST)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_configuration_without_its_width_is_enough(folder: Path) -> None:
    change(folder, d_in=None, d_sae=None)
    source = Pretrained(path=str(folder), trust=True)
    source.check(0, "mlp_out", HOST)
    assert not source.is_transcoder(0)
    with pytest.raises(ValueError, match="the subject has width 7"):
        source.check(0, "mlp_out", dataclasses.replace(HOST, width=D + 1))


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_a_file_cut_short_is_named(folder: Path, keep: int) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        load(folder)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_configuration_that_is_none_is_named(folder: Path, text: str) -> None:
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(ValueError, match=f"{CONFIG_FILE} is"):
        load(folder)


def test_a_skip_that_is_absent_loads_without_one(folder: Path) -> None:
    change(folder, architecture="topk_skip_transcoder")
    dictionary = load(folder)
    assert dictionary.W_skip is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_saelens_runs_is_read_in_float32_too(tmp_path: Path, dtype: torch.dtype) -> None:
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig

    sae = GatedSAE(GatedSAEConfig(d_in=D, d_sae=N, device="cpu", dtype=str(dtype).removeprefix("torch.")))
    sae.save_model(tmp_path)
    dictionary = load(tmp_path)
    assert {parameter.dtype for parameter in dictionary.parameters()} == {torch.float32}
    assert dictionary(torch.randn(3, D)).dtype == torch.float32


def test_a_release_whose_weights_are_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_lens import SAE
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig

    sae = GatedSAE(GatedSAEConfig(d_in=D, d_sae=N, device="cpu"))
    with torch.no_grad():
        sae.b_dec[0] = torch.nan
    monkeypatch.setattr(SAE, "from_pretrained", lambda *_: sae)  # the hub, at the outer edge
    with pytest.raises(ValueError, match="b_dec holds numbers that are not finite"):
        Pretrained(release="someone/some", id="one").load(0, D)
