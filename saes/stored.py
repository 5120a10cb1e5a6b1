"""Reading a dictionary back from its folder, whichever architecture it has."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from kernels.memory import settle
from saes.dictionary import CONFIG_FILE, WEIGHTS_FILE, Dictionary, EncoderDecoder, Weights

# SAELens' architecture name of a saved file -> the class that reads it.
INFERENCE = {
    "standard": "saes.relu:ReLU",
    "transcoder": "saes.relu:ReLU",
    "skip_transcoder": "saes.relu:ReLU",
    "topk": "saes.topk:TopK",
    "topk_transcoder": "saes.topk:TopK",
    "topk_skip_transcoder": "saes.topk:TopK",
    "jumprelu": "saes.thresholds:JumpReLU",
    "jumprelu_transcoder": "saes.thresholds:JumpReLU",
    "jumprelu_skip_transcoder": "saes.thresholds:JumpReLU",
}


def load(folder: Path) -> Dictionary:
    """The dictionary in a folder that `Dictionary.save` or SAELens wrote.

    SAELens is imported only for what needs it: architectures of which we have no class, and those that transform
    activations as they run. Raises ValueError when the folder holds none.
    """
    from safetensors.torch import load_file

    if not (folder / CONFIG_FILE).exists() or not (folder / WEIGHTS_FILE).exists():
        raise ValueError(f"{folder} holds no dictionary: {CONFIG_FILE} and {WEIGHTS_FILE} are needed")
    config = json.loads((folder / CONFIG_FILE).read_text())
    architecture = config.get("architecture")
    runtime = config.get("normalize_activations", "none") != "none" or any(
        config.get(key, False) for key in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm")
    )
    if architecture not in INFERENCE or runtime:
        from saes.saelens import load_pretrained

        return load_pretrained(folder)
    module, _, name = INFERENCE[architecture].partition(":")
    cls: type[EncoderDecoder] = getattr(import_module(module), name)
    weights = Weights(**load_file(folder / WEIGHTS_FILE))
    dictionary = cls.from_file(weights, config, transcoder="transcoder" in architecture)
    metadata = config.get("metadata", {})
    dictionary.metadata = {key: value for key, value in metadata.items() if key != "sae_lens_version"}
    settle(dictionary)
    return dictionary


def load_release(release: str, sae_id: str) -> Dictionary:
    """A dictionary of SAELens' list of releases, fetched from the hub."""
    from saes.saelens import load_pretrained

    return load_pretrained(release, sae_id)


def modules() -> tuple[str, ...]:
    """Every module that a folder's contents can make `load` run, for the key of what was not trained here."""
    return tuple(sorted({"saes.saelens", *(place.partition(":")[0] for place in INFERENCE.values())}))
