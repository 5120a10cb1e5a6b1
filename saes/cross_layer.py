"""Cross-layer transcoders in the layout of circuit-tracer, read layer by layer.

Latents of layer i read there and write to i and every later layer. A folder has a `config.yaml` and for each layer
`W_enc_i.safetensors` (W_enc_i `[latents, d]`, b_enc_i, b_dec_i, for a JumpReLU threshold_i) and `W_dec_i.safetensors`
(W_dec_i `[latents, layers − i, d]`). Here a dictionary writes where it reads: of the decoders it gets the first, that
to its own layer, and what earlier layers' latents would write there is its error. (SAELens sums all decoders, which
keeps the codes and gives no reconstruction of anything.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from kernels.memory import settle
from saes.dictionary import EncoderDecoder, Weights
from saes.registry import formats

CONFIG = "config.yaml"
NOTE = "one layer of a cross-layer transcoder: what it writes to later layers and earlier ones write here is left out"


def files(layer: int) -> tuple[str, str]:
    return f"W_enc_{layer}.safetensors", f"W_dec_{layer}.safetensors"


def is_folder(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and any(folder.glob("W_enc_*.safetensors"))


def config_of(folder: Path, layer: int) -> dict[str, Any]:
    """What a layer says of itself, as a `cfg.json` would. Raises ValueError where the folder's config does not say."""
    try:
        said = yaml.safe_load((folder / CONFIG).read_text())
        hooks = [f"blocks.{layer}.{said[key]}" for key in ("feature_input_hook", "feature_output_hook")]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} does not say where a cross-layer transcoder reads and writes") from error
    return {
        "architecture": "transcoder",
        "model_name": said.get("model_name"),
        "hook_name": hooks[0],
        "hook_name_out": hooks[1],
    }


def fetched(repo: str, layer: int, weights: bool) -> Path:
    """A repository of the Hub as far as it is needed. Raises ValueError where it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=[CONFIG, *(files(layer) if weights else ())]))
    except Exception as error:
        raise ValueError(f"{repo} is not to be had from the Hub ({' '.join(str(error).split())[:120]})") from error


def load(folder: Path, layer: int) -> EncoderDecoder:
    """The latents of a layer with their decoder to it. Raises ValueError, one line, where they are not there."""
    encoder, decoder = (folder / name for name in files(layer))
    for path in (encoder, decoder):
        if not path.is_file():
            there = len(list(folder.glob("W_enc_*.safetensors")))
            raise ValueError(f"{path} is not there: the cross-layer transcoder has {there} layers, from 0")
    read = {name: _tensor(encoder, f"{name}_{layer}") for name in ("W_enc", "b_enc", "b_dec", "threshold")}
    for name in ("W_enc", "b_enc", "b_dec"):
        if read[name] is None:
            raise ValueError(f"{encoder} lacks {name}_{layer}")
    W_dec = _tensor(decoder, f"W_dec_{layer}", first=True)
    W_enc, b_enc, b_dec, threshold = (read[name] for name in ("W_enc", "b_enc", "b_dec", "threshold"))
    assert W_enc is not None
    assert b_enc is not None
    assert b_dec is not None
    if W_dec is None or W_dec.shape != W_enc.shape:
        shape = None if W_dec is None else tuple(W_dec.shape)
        raise ValueError(f"{decoder}: W_dec_{layer} to its own layer has shape {shape}, expected {tuple(W_enc.shape)}")
    weights = Weights(W_enc.T, b_enc, W_dec, b_dec, threshold=None if threshold is None else threshold.flatten())
    cls = formats()["transcoder" if threshold is None else "jumprelu_transcoder"]
    dictionary = cls.from_file(weights, {}, transcoder=True)
    dictionary.metadata = {k: v for k, v in config_of(folder, layer).items() if k != "architecture"}
    settle(dictionary)
    return dictionary


def _tensor(path: Path, name: str, first: bool = False) -> Tensor | None:
    """In float32, None where it is not there. first: of its second dimension only that, which may be a tenth of it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if name not in file.keys():  # noqa: SIM118 (it is no mapping)
                return None
            tensor = file.get_slice(name)[:, 0] if first else file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None
    if not tensor.isfinite().all():
        raise ValueError(f"{path}: {name} holds numbers that are not finite")
    return tensor.float()
