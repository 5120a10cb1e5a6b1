"""Names of architectures. A name is a model class and, for variants of one class, the settings that the name fixes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM

from models.config import TrunkConfig, nearest_name
from models.trunk import TrunkForCausalLM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Architecture:
    """`name` as rows of a table use it; `fixed` the settings that make the variant (`dense-relu`: activation)."""

    name: str
    model_class: type[TrunkForCausalLM]
    fixed: Mapping[str, Any]

    @property
    def config_class(self) -> type[TrunkConfig]:
        return self.model_class.config_class

    def config(self, **settings: Any) -> TrunkConfig:
        """The configuration with these settings. ValueError where one is unknown, impossible or fixed by the name."""
        known = [name for name in self.config_class.settings() if name not in self.fixed]
        for name, value in settings.items():
            if name in self.fixed:
                if value != self.fixed[name]:
                    raise ValueError(f"{name}={value!r} contradicts {self.name!r}, which fixes {self.fixed[name]!r}")
            elif name not in known:
                raise ValueError(f"{name!r} is not a setting of {self.name!r}: {nearest_name(name, known)}")
        return self.config_class(**{**settings, **self.fixed})


ARCHITECTURES: dict[str, Architecture] = {}


def register(name: str, model_class: type[TrunkForCausalLM], **fixed: Any) -> None:
    """Add an architecture under `name`, and its classes to transformers' Auto classes. ValueError: `name` is taken."""
    if name in ARCHITECTURES:
        raise ValueError(f"architecture {name!r} is already registered, by {ARCHITECTURES[name].model_class.__name__}")
    if not any(known.model_class is model_class for known in ARCHITECTURES.values()):
        AutoConfig.register(model_class.config_class.model_type, model_class.config_class)
        AutoModelForCausalLM.register(model_class.config_class, model_class)
    ARCHITECTURES[name] = Architecture(name, model_class, fixed)
    log.debug("registered architecture %s", name)


def architecture(name: str) -> Architecture:
    """The architecture called `name`. ValueError names the nearest one where there is none."""
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture {name!r} is not known: {nearest_name(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build(name: str, **settings: Any) -> TrunkForCausalLM:
    """A freshly initialised model. Weights come from torch's global generator: call `torch.manual_seed` before."""
    chosen = architecture(name)
    return chosen.model_class(chosen.config(**settings))
