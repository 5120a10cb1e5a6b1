"""Reading a dictionary back from its folder, whichever architecture it has."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from kernels.memory import settle
from saes.centred import MARK, Centred
from saes.dictionary import CONFIG_FILE, WEIGHTS_FILE, Dictionary, EncoderDecoder, Weights
from saes.registry import formats


def load(folder: Path) -> Dictionary:
    """The dictionary in a folder that `Dictionary.save` or SAELens wrote, in float32 whatever it was kept in.

    SAELens is imported only for what needs it: architectures of which we have no class, those that transform
    activations as they run, and files from before its version 6. Raises ValueError, in one line that names the folder,
    when it holds none, when a tensor is missing, of another shape, unknown or not finite, or when the configuration
    lacks something.
    """
    config = config_of(folder)
    dictionary = _theirs(folder) if _needs_saelens(folder, config) else _ours(folder, config)
    return Centred(dictionary) if (config.get("metadata") or {}).get(MARK) else dictionary


def config_of(folder: Path) -> dict[str, Any]:
    """What a folder says of its dictionary. Raises ValueError where it holds none."""
    if not (folder / CONFIG_FILE).exists() or not (folder / WEIGHTS_FILE).exists():
        raise ValueError(f"{folder} holds no dictionary: {CONFIG_FILE} and {WEIGHTS_FILE} are needed")
    return _config(folder)


def _needs_saelens(folder: Path, config: dict[str, Any]) -> bool:
    """Files from before SAELens 6 leave out what was a matter of course then, and it knows what that was."""
    version = config.get("sae_lens_version") or (config.get("metadata") or {}).get("sae_lens_version")
    if version is None or int(str(version).partition(".")[0]) < 6:
        return True
    if not isinstance(config.get("architecture"), str):
        raise ValueError(f"{folder / CONFIG_FILE} names no architecture (one of {', '.join(formats())})")
    return _runtime(config)


def _runtime(config: dict[str, Any]) -> bool:
    """Whether SAELens does more as it runs than our classes do."""
    return (
        config["architecture"] not in formats()
        or config.get("normalize_activations") not in (None, False, "none")
        or any(config.get(key, False) for key in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"))
    )


def _theirs(folder: Path) -> Dictionary:
    from saes.saelens import load_pretrained

    _tensors(folder)  # what is damaged is told in our words
    try:
        return load_pretrained(folder)
    except (KeyError, TypeError, RuntimeError) as error:  # what SAELens raises for files that are not its own
        raise ValueError(f"{folder}: SAELens cannot read it: {' '.join(str(error).split())[:200]}") from error


def _ours(folder: Path, config: dict[str, Any]) -> EncoderDecoder:
    architecture, tensors = config["architecture"], _tensors(folder)
    cls = formats()[architecture]
    _check_tensors(folder, tensors, architecture, cls)
    try:
        dictionary = cls.from_file(Weights(**tensors), config, transcoder="transcoder" in architecture)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE} {error}") from None
    metadata = config.get("metadata") or {}
    dictionary.metadata = {key: value for key, value in metadata.items() if key not in ("sae_lens_version", MARK)}
    settle(dictionary)
    return dictionary


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG_FILE} is a {type(config).__name__}, not a configuration")
    return config


def _tensors(folder: Path) -> dict[str, Tensor]:
    """In float32 and finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(f"{path}: {bad} of {tensor.numel()} numbers in {name} are not finite")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _check_tensors(folder: Path, tensors: dict[str, Tensor], architecture: str, cls: type[EncoderDecoder]) -> None:
    wanted = set(cls.tensors)
    allowed = wanted | ({"W_skip"} if "skip" in architecture else set())
    path = folder / WEIGHTS_FILE
    for name in sorted(wanted - tensors.keys()):
        raise ValueError(f"{path} lacks {name}, which architecture {architecture!r} needs")
    for name in sorted(tensors.keys() - allowed):
        raise ValueError(f"{path} holds {name}, which architecture {architecture!r} does not have")
    (d_in, n), d_out = tensors["W_enc"].shape, tensors["W_dec"].shape[-1]
    shapes = {"W_enc": (d_in, n), "b_enc": (n,), "W_dec": (n, d_out), "b_dec": (d_out,), "threshold": (n,)}
    for name, tensor in tensors.items():
        expected = shapes.get(name, (d_out, d_in))
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{path}: {name} has shape {tuple(tensor.shape)}, expected {expected}")


def load_release(release: str, sae_id: str) -> Dictionary:
    """A dictionary of SAELens' list of releases, fetched from the hub. Raises ValueError where it cannot be had."""
    from saes.saelens import load_pretrained

    with _from_the_hub(release, sae_id):
        return load_pretrained(release, sae_id)


def release_config(release: str, sae_id: str) -> dict[str, Any]:
    """What such a dictionary says of itself: fetched alone, without its weights. Raises ValueError."""
    from saes import saelens

    with _from_the_hub(release, sae_id):
        return saelens.release_config(release, sae_id)


@contextlib.contextmanager
def _from_the_hub(release: str, sae_id: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # of the network, of the Hub, of SAELens for files that are not as it knows them
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{release}/{sae_id} is not to be had from the Hub ({reason})") from error


def modules() -> tuple[str, ...]:
    """Every module that a folder's contents can make `load` run, for the key of what was not trained here."""
    return tuple(sorted({__name__, "saes.saelens", *(cls.__module__ for cls in formats().values())}))
