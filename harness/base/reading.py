"""Reading YAML and the names of rows: a number is written one way everywhere, and nothing may stand twice.

A row is called `subject[key=value,...]+dictionary[key=value,...]`; values are YAML, so lists and commas inside brackets
belong to the value.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from harness.base.errors import BadInput

# Also 1e-3 and 1e4, which YAML 1.1 takes for text.
_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)$")


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands twice (lines {seen[key]} and {key_node.start_mark.line + 1})", None
                )
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def from_yaml(text: str) -> Any:
    """The value that `text` stands for. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """The parts of `text` between separators that stand in no bracket of either kind."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def subject_and_dictionary(row: str) -> tuple[str, str | None]:
    """What stands before and behind the `+` of a row's name; None where there is none."""
    subject, *rest = split_outside_brackets(row, "+")
    return subject, "+".join(rest) if rest else None


def name_and_settings(text: str, row: str) -> tuple[str, dict[str, Any]]:
    """`topk[k=16,layers=[0,1]]` → `topk` and its settings. Raises BadInput, which names the row."""
    name, bracket, inside = text.partition("[")
    if not bracket:
        return name, {}
    if not inside.endswith("]") or text.count("[") != text.count("]"):
        raise BadInput(f"systems.{row}: the bracket is not closed; write {name}[key=value,...]")
    settings: dict[str, Any] = {}
    for part in filter(None, split_outside_brackets(inside[:-1], ",")):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals:
            raise BadInput(f"systems.{row}: {part!r} in brackets is not key=value")
        if key in settings:
            raise BadInput(f"systems.{row}: {key} stands twice in the brackets")
        try:
            settings[key] = from_yaml(value)
        except yaml.YAMLError:
            raise BadInput(f"systems.{row}: {key} = {value!r} is not YAML") from None
    return name, settings
