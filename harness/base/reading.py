"""Reading YAML: a number is written one way everywhere, and nothing may stand twice."""

from __future__ import annotations

import re
from typing import Any

import yaml

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
