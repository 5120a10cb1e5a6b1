"""Configuration shared by every architecture, and the checks that all of them need.

No `from __future__ import annotations` here or where a config is defined: checking reads the annotations as types.
"""

import math
import types
from collections.abc import Iterable
from dataclasses import Field, fields
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

from transformers import PreTrainedConfig

from kernels.registry import nearest


class TrunkConfig(PreTrainedConfig):
    """The decoder around the feed-forward layer. An architecture's config derives from it and adds typed attributes.

    Every attribute is checked by its annotation when the config is made: whole numbers are at least 1, numbers above 0
    (where 0 means "without", the name is in `zero_allowed`), a `Literal` is one of its values. `check` is for what
    concerns several attributes together.

    Raises ValueError, one line: the value, what is allowed, the nearest valid value.
    """

    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    # The names that transformers' own parts (LlamaAttention, DynamicCache, ...) ask for.
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_heads",
    }
    attention_bias: ClassVar[bool] = False
    attention_dropout: ClassVar[float] = 0.0
    zero_allowed: ClassVar[frozenset[str]] = frozenset()
    small: ClassVar[dict[str, Any]] = {}  # settings of a model as small as can be, on which conformance.py asks

    vocab_size: int = 2048
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4  # of attention
    max_position_embeddings: int = 256
    rope_parameters: dict | None = None  # None: base 10,000
    norm_eps: float = 1e-6
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name, field in self.settings().items():
            _check_value(name, getattr(self, name), field.type, name in self.zero_allowed)
        self.check()
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """What one attribute demands of another. Overridden by an architecture, which calls `super().check()`."""
        if self.d_model % (2 * self.n_heads):  # 2: rotary embeddings turn pairs of dimensions
            heads = [n for n in range(1, self.d_model // 2 + 1) if self.d_model % (2 * n) == 0]
            raise ValueError(
                f"n_heads={self.n_heads} does not split d_model={self.d_model} into heads of even width; "
                f"{nearest_numbers(self.n_heads, heads)}"
            )

    @classmethod
    def settings(cls) -> dict[str, Field]:
        """The attributes that are this project's, by name: what an experiment file may set."""
        theirs = {field.name for field in fields(PreTrainedConfig)}
        return {field.name: field for field in fields(cls) if field.name not in theirs}


def residual_std(config: TrunkConfig) -> float:
    """Std at initialisation of the matrices that write into the residual stream, two in each layer (GPT-2)."""
    return config.initializer_range / math.sqrt(2 * config.n_layers)


def nearest_numbers(value: float, allowed: Iterable[int]) -> str:
    """ "nearest: 961 or 1024": the allowed numbers on both sides of `value`."""
    numbers = sorted(allowed)
    below = [n for n in numbers if n < value][-1:]
    above = [n for n in numbers if n > value][:1]
    if not below + above:
        return "no value is allowed"
    return "nearest: " + " or ".join(str(n) for n in below + above)


def check_square(name: str, value: int) -> None:
    """ValueError that names the squares around `value` if it is none."""
    root = math.isqrt(value)
    if root * root != value:
        raise ValueError(f"{name}={value} is not a square; nearest: {root * root} or {(root + 1) ** 2}")


def _check_value(name: str, value: Any, kind: Any, zero_allowed: bool) -> None:
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return
    kind = options[0]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name}={value!r} is not known: {nearest(str(value), map(str, get_args(kind)))}")
    elif kind is int:
        least = 0 if zero_allowed or name.endswith("_token_id") else 1
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{name}={value!r} is not a whole number; it must be one of at least {least}")
        if value < least:
            raise ValueError(f"{name}={value} is too small; nearest: {least}")
    elif kind is float:
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
        if not (number > 0 or (zero_allowed and number == 0)):
            raise ValueError(f"{name}={value!r} must be a number {'of at least' if zero_allowed else 'above'} 0")
    elif not isinstance(value, kind):
        raise ValueError(f"{name}={value!r} must be of type {kind.__name__}")
