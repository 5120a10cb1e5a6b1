"""Dictionaries learnt on a subject's activations: one kind a file, named here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saes.training_dictionary import DictionaryConfig

# Name in experiments -> "module:config class". A new kind is one file and one line.
DICTIONARIES: dict[str, str] = {
    "relu": "saes.relu:ReLUConfig",
    "topk": "saes.topk:TopKConfig",
    "batchtopk": "saes.batchtopk:BatchTopKConfig",
    "mutual_choice": "saes.mutual_choice:MutualChoiceConfig",
    "feature_choice": "saes.feature_choice:FeatureChoiceConfig",
    "transcoder": "saes.transcoder:TranscoderConfig",
    "skip_transcoder": "saes.transcoder:SkipTranscoderConfig",
}


# SAELens' own architectures, trained on our stream. Listed, so that naming them does not cost its import.
for _name in (
    "standard",
    "gated",
    "topk",
    "abstopk",
    "jumprelu",
    "batchtopk",
    "matryoshka_batchtopk",
    "matching_pursuit",
):
    DICTIONARIES[f"saelens:{_name}"] = f"saes.saelens:config_of({_name})"


def config_class(name: str) -> type[DictionaryConfig]:
    """The config class of a registered kind, or of `saelens:` and whatever SAELens registers. Raises ValueError with
    the nearest valid name."""
    if name.startswith("saelens:"):
        from saes.saelens import config_of

        return config_of(name.removeprefix("saelens:"))
    if name not in DICTIONARIES:
        from difflib import get_close_matches

        nearest = get_close_matches(name, DICTIONARIES, n=1, cutoff=0.0)[0]
        raise ValueError(f"dictionary {name!r}: not one of {', '.join(DICTIONARIES)} (nearest: {nearest})")
    module, _, cls = DICTIONARIES[name].partition(":")
    return getattr(import_module(module), cls)
