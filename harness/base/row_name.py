"""What a row's name says: `subject[key=value,...]+dictionary[key=value,...]`, read once.

Values are YAML, so that lists, and commas inside brackets, belong to the value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.base.errors import BadInput
from harness.base.reading import from_yaml, split_outside_brackets


@dataclass(frozen=True)
class Part:
    """One side of the `+`, as it is written: a registered name and the settings behind it (`pieces`: each as it stands
    there, with its key)."""

    text: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    pieces: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    def without(self, *keys: str) -> Part:
        """The part as if these settings did not stand there."""
        pieces = {key: piece for key, piece in self.pieces.items() if key not in keys}
        text = f"{self.name}[{','.join(pieces.values())}]" if pieces else self.name
        return Part(text, self.name, {key: self.settings[key] for key in pieces}, pieces)


@dataclass(frozen=True)
class RowName:
    """A subject, and a dictionary grafted on it where there is one."""

    subject: Part
    dictionary: Part | None

    @staticmethod
    def of(text: str) -> RowName:
        """Raises BadInput, which names the row."""
        subject, *rest = split_outside_brackets(text, "+")
        return RowName(_part(subject, text), _part("+".join(rest), text) if rest else None)

    def __str__(self) -> str:
        return str(self.subject) if self.dictionary is None else f"{self.subject}+{self.dictionary}"

    @property
    def last(self) -> Part:
        """The dictionary where there is one, else the subject."""
        return self.dictionary or self.subject

    def without(self, *keys: str) -> RowName:
        """The name without these settings, wherever they stand: what rows of a sweep share."""
        dictionary = None if self.dictionary is None else self.dictionary.without(*keys)
        return RowName(self.subject.without(*keys), dictionary)


def _part(text: str, row: str) -> Part:
    name, bracket, inside = text.partition("[")
    if not bracket:
        return Part(text, name)
    if not inside.endswith("]") or text.count("[") != text.count("]"):
        raise BadInput(f"systems.{row}: the bracket is not closed; write {name}[key=value,...]")
    settings: dict[str, Any] = {}
    pieces: dict[str, str] = {}
    for part in filter(None, split_outside_brackets(inside[:-1], ",")):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals:
            raise BadInput(f"systems.{row}: {part!r} in brackets is not key=value")
        if key in settings:
            raise BadInput(f"systems.{row}: {key} stands twice in the brackets")
        try:
            settings[key], pieces[key] = from_yaml(value), part
        except yaml.YAMLError:
            raise BadInput(f"systems.{row}: {key} = {value!r} is not YAML") from None
    return Part(text, name, settings, pieces)


def together(part: Part, options: dict[str, Any], row: str) -> dict[str, Any]:
    """The settings in the brackets and those below the row's name. Raises BadInput where one stands in both."""
    for key in part.settings:
        if key in options:
            raise BadInput(f"systems.{row}: {key} stands in the brackets and below the name")
    return {**options, **part.settings}
