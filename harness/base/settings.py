"""Settings that people write: strict models, and what is wrong with one in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from harness.base.errors import BadInput
from kernels.registry import Registry, nearest


class Strict(BaseModel):
    """Configuration in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def modules(self) -> tuple[str, ...]:
        """Where the code lies that these settings, and the settings inside them, bring with them."""
        inside = (value for _, value in self if isinstance(value, Strict))
        return (type(self).__module__, *(module for value in inside for module in value.modules()))


M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], raw: Any, *, where: str) -> M:
    """`raw` as `model`; the first thing wrong as one line that names key, value, what is allowed, the nearest name."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise BadInput(_one_line(error, model, where)) from None


class _Inside(ValueError):
    """What is wrong in a value whose model its kind chose. HERE stands for the value's key."""


_HERE = "\0"


def by_kind(registry: Registry[Any], default: str | Callable[[Mapping[str, Any]], str]) -> BeforeValidator:
    """For a field whose model is named by the value's own key `kind`, and registered under that name."""

    def chosen(raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        kind = raw.get("kind", default if isinstance(default, str) else default(raw))
        if kind not in registry:
            raise _Inside(f"{_HERE}.kind = {kind!r}: {nearest(str(kind), registry)}")
        try:
            model = registry.named(kind)
        except ValueError as error:
            raise _Inside(f"{_HERE}.kind = {kind!r}: {error}") from error
        try:
            return model.model_validate({**raw, "kind": kind})
        except ValidationError as error:
            raise _Inside(_one_line(error, model, _HERE)) from None

    return BeforeValidator(chosen)


def _one_line(error: ValidationError, model: type[BaseModel], where: str) -> str:
    # A typing slip in a required key gives two errors: the unknown key says more than the missing one.
    first = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
    owner, path = _resolved(model, [str(part) for part in first["loc"]])
    key = ".".join([where, *path] if where else path) or model.__name__
    inside = first.get("ctx", {}).get("error")
    if isinstance(inside, _Inside):
        return str(inside).replace(_HERE, key)
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; {nearest(path[-1], list(owner.model_fields))}"
    if first["type"] == "union_tag_invalid":
        context = first.get("ctx", {})
        known = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        return f"{key}.kind = {context['tag']!r}: {nearest(context['tag'], known)}"
    if first["type"] == "union_tag_not_found":
        return f"{key} = {first['input']!r}: must be a mapping that names a kind"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return f"{key}: {message}{more}"
    shown = repr(first["input"])
    return f"{key} = {shown if len(shown) < 80 else shown[:77] + '...'}: {message}{more}"


def _resolved(model: type[BaseModel], path: list[str]) -> tuple[type[BaseModel], list[str]]:
    """The model that the last part of `path` belongs to, and the path as the file writes it: in a choice by `kind`,
    pydantic's path names the kind that was chosen."""
    written, choices = [], []
    for place, part in enumerate(path):
        tagged = [choice for choice in choices if part in get_args(choice.model_fields["kind"].annotation)]
        choices = []
        if tagged:
            model = tagged[0]
            continue
        written.append(part)
        field = model.model_fields.get(part)
        inner = _models_in(field.annotation) if field else []
        if len(inner) > 1:
            choices = [choice for choice in inner if "kind" in choice.model_fields]
        elif inner and place < len(path) - 1:
            model = inner[0]
    return model, written


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
