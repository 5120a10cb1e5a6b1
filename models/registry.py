"""Names of architectures. A name is a model class and, for variants of one class, the settings that the name fixes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, overload

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kernels.registry import Registry, nearest
from models.config import TrunkConfig
from models.feed_forward import FeedForward
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


@overload
def register(name: str, what: type[TrunkForCausalLM], /, **fixed: Any) -> None: ...
@overload
def register(name: str, what: type[TrunkConfig], layer: type[FeedForward], /, **fixed: Any) -> None: ...
def register(
    name: str, what: type[TrunkForCausalLM] | type[TrunkConfig], layer: type[FeedForward] | None = None, /, **fixed: Any
) -> None:
    """Add an architecture under `name`, and its classes to transformers' Auto classes.

    what: the configuration of a layer, around which the model is built, or a model class of its own. A configuration
    without a `model_type` gets the name. fixed: settings that the name fixes. ValueError: `name` is taken.
    """
    if layer is None:
        assert issubclass(what, TrunkForCausalLM)
        model_class = what
    else:
        assert issubclass(what, TrunkConfig)
        what.model_type = what.model_type or name
        model_class = _model_around(what, layer)
    config_class = model_class.config_class
    if config_class.model_type not in CONFIG_MAPPING or CONFIG_MAPPING[config_class.model_type] is not config_class:
        AutoConfig.register(config_class.model_type, config_class)
        AutoModelForCausalLM.register(config_class, model_class)
    ARCHITECTURES.register(name, Architecture(name, model_class, fixed))


@cache
def _model_around(config_class: type[TrunkConfig], layer: type[FeedForward]) -> type[TrunkForCausalLM]:
    """One class for all names of a layer. It stands in the layer's file: there pickles look for it, and a stage's key
    for the code that it hashes."""
    name = f"{layer.__name__}ForCausalLM"
    body = {"config_class": config_class, "feed_forward_class": layer, "__module__": layer.__module__}
    made = type(name, (TrunkForCausalLM,), body)
    setattr(sys.modules[layer.__module__], name, made)
    return made


def build(name: str, **settings: Any) -> TrunkForCausalLM:
    """A freshly initialised model. Weights come from torch's global generator: call `torch.manual_seed` before.

    Raises ValueError, which names the nearest architecture or setting.
    """
    chosen = ARCHITECTURES.named(name)
    return chosen.model_class(chosen.config(**settings))
