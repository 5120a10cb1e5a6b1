"""Names of architectures. A name is a model class and, for variants of one class, the settings that the name fixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kernels.registry import Registry, nearest
from models.config import TrunkConfig
from models.trunk import TrunkForCausalLM


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
                raise ValueError(f"{name!r} is not a setting of {self.name!r}: {nearest(name, known)}")
        return self.config_class(**{**settings, **self.fixed})


ARCHITECTURES: Registry[Architecture] = Registry("architecture", "models", "harness.systems")


def register(name: str, model_class: type[TrunkForCausalLM], **fixed: Any) -> None:
    """Add an architecture under `name`, and its classes to transformers' Auto classes. ValueError: `name` is taken."""
    config_class = model_class.config_class
    if config_class.model_type not in CONFIG_MAPPING or CONFIG_MAPPING[config_class.model_type] is not config_class:
        AutoConfig.register(config_class.model_type, config_class)
        AutoModelForCausalLM.register(config_class, model_class)
    ARCHITECTURES.register(name, Architecture(name, model_class, fixed))


def build(name: str, **settings: Any) -> TrunkForCausalLM:
    """A freshly initialised model. Weights come from torch's global generator: call `torch.manual_seed` before.

    Raises ValueError, which names the nearest architecture or setting.
    """
    chosen = ARCHITECTURES.named(name)
    return chosen.model_class(chosen.config(**settings))
