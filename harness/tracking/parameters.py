"""Which settings of a row are its parameters, and which are the same everywhere and only fill the page.

A live run and `harness log` give the same: a row's settings are those that its stages are stored with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.tables.table import Row, Table
from harness.tracking.curves import flat

Key = tuple[str, int]  # of a row: system and seed
_OWN = (
    "architecture",
    "settings.",
    "dictionary.kind",
    "dictionary.config.",
)  # what a system is, not how it was trained
_OF_COMPARISON = ("baseline", "seeds", "headline", "metrics")


@dataclass(frozen=True)
class Parameters:
    """rows: the flat settings of every row; constant: those that tell no two rows apart."""

    rows: Mapping[Key, Mapping[str, str]]
    constant: Mapping[str, str]

    @staticmethod
    def of(rows: Mapping[Key, Mapping[str, Any]]) -> Parameters:
        flattened = {key: flat(settings) for key, settings in rows.items()}
        return Parameters(flattened, _constant(list(flattened.values())))

    def varying(self, key: Key) -> dict[str, str]:
        return {name: value for name, value in self.rows.get(key, {}).items() if name not in self.constant}


def settings(subject: Mapping[str, Any], dictionary: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of a row, from the configurations of its stages."""
    return {**subject, **({"dictionary": dict(dictionary)} if dictionary else {})}


def of_table(table: Table, store: Path) -> dict[Key, dict[str, Any]]:
    """The settings of every row whose stages `store` still has."""
    return {
        (row.system, seed): settings(subject, _stored(row, "dictionary", seed, store))
        for row in table.rows
        for seed in row.seeds
        if (subject := _stored(row, "subject", seed, store)) is not None
    }


def of_comparison(config: Mapping[str, Any]) -> dict[str, str]:
    """What two comparisons are told apart by; the whole of it is the artifact experiment.yaml."""
    wanted = {name: config[name] for name in _OF_COMPARISON if config.get(name)}
    if isinstance(metrics := wanted.get("metrics"), Mapping):
        wanted["metrics"] = list(metrics)
    for section, name in (("corpus", "kind"), ("budget", "matched"), ("training", "tokens")):
        if name in (config.get(section) or {}):
            wanted[f"{section}.{name}"] = config[section][name]
    return flat(wanted)


def _stored(row: Row, stage: str, seed: int, store: Path) -> dict[str, Any] | None:
    manifest = store / stage / row.provenance.stages.get(f"{stage}/{seed}", "-") / "manifest.json"
    return json.loads(manifest.read_text())["config"] if manifest.is_file() else None


def _constant(rows: list[Mapping[str, str]]) -> dict[str, str]:
    """A system's own settings are constant where every row has them alike; those of training where all that have
    them do."""
    found: dict[str, str] = {}
    for name in _names(rows):
        values = [row[name] for row in rows if name in row]
        everywhere = len(values) == len(rows) and len(rows) > 1
        if len(set(values)) == 1 and (everywhere or not name.startswith(_OWN)):
            found[name] = values[0]
    return found


def _names(rows: Iterable[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
