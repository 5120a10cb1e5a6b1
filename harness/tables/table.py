"""The table of a comparison: its schema (table.json), and how it is built from measurements.

table.json keeps full precision and is the record; table.md and table.csv are made from it (harness/tables/text.py).
`python -m harness.tables.table` rewrites table.schema.json beside it after a change of the models here; a change that
an older reader would misread raises SCHEMA_VERSION.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.stats import false_discovery_control

from harness.base.files import write_atomically
from harness.tables.measurement import Direction, Measurement
from harness.tables.statistics import interval, paired_difference

SCHEMA_VERSION = 1
FALSE_DISCOVERIES = 0.05  # share of the verdicts better and worse that may be wrong
SCHEMA_PATH = Path(__file__).with_name("table.schema.json")
Kind = Literal["reference", "subject", "dictionary"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Figure(_Model):
    """One metric of one system. `seeds` is in the order of the row's `seeds`, null where that seed has no value."""

    value: float
    low: float | None
    high: float | None
    unit: str
    direction: Direction
    version: int
    seeds: list[float | None]
    timing: bool = False
    saw: str | None = None  # the text it was measured on; None where its metric does not say


class RowProvenance(_Model):
    """`kernels`: op -> implementation that ran. `stages`: stage -> hash of the stored result; in a row "stage/seed"."""

    kernels: dict[str, str] = {}
    stages: dict[str, str] = {}


class Row(_Model):
    """One system. `not_applicable`: metric -> why there is no figure."""

    system: str
    kind: Kind
    seeds: list[int]
    metrics: dict[str, Figure]
    not_applicable: dict[str, str] = {}
    provenance: RowProvenance
    notes: list[str] = []


Verdict = Literal["better", "worse", "unresolved"]


class Difference(_Model):
    """a − b on the same documents, mean over seeds. p: of no difference, over seeds; None with one seed. verdict: of
    headline figures alone, at a false discovery rate of 5% over all of them together (Benjamini and Hochberg 1995)."""

    a: str
    b: str
    metric: str
    value: float
    low: float | None
    high: float | None
    p: float | None = None
    verdict: Verdict | None = None


class Hardware(_Model):
    cpu: str
    cores: int
    memory_gib: float
    gpu: str | None = None


class Provenance(_Model):
    """Where the figures come from. No path, user or host name of the machine."""

    commit: str | None
    dirty: bool | None
    config_hash: str
    corpus_hash: str
    packages: dict[str, str]
    hardware: Hardware
    threads: int
    python: str
    os: str
    dtype: str
    device: str
    created: str | None = None
    matched: str | None = None  # what is equal in the systems compared; None in tables older than the statement


class Table(_Model):
    """results/<comparison>/table.json."""

    schema_version: Literal[1] = SCHEMA_VERSION
    comparison: str
    provenance: Provenance
    rows: list[Row]
    differences: list[Difference] = []

    def without_timing(self) -> Table:
        """What two runs of one experiment on one machine must agree on to the last digit."""
        rows = [
            row.model_copy(update={"metrics": {name: f for name, f in row.metrics.items() if not f.timing}})
            for row in self.rows
        ]
        return self.model_copy(
            update={"rows": rows, "provenance": self.provenance.model_copy(update={"created": None})}, deep=True
        )

    def metric_names(self) -> list[str]:
        """Every metric that some row has or says it cannot have; families together, first seen first."""
        names = dict.fromkeys(name for row in self.rows for name in (*row.metrics, *row.not_applicable))
        families = list(dict.fromkeys(name.split("/")[0] for name in names))
        return sorted(names, key=lambda name: families.index(name.split("/")[0]))


@dataclass(frozen=True)
class SeedResult:
    """What one system gave with one seed."""

    system: str
    kind: Kind
    seed: int
    measurements: list[Measurement]
    provenance: RowProvenance
    notes: list[str] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)


def build(
    comparison: str,
    results: Sequence[SeedResult],
    provenance: Provenance,
    baseline: str | None,
    headline: Sequence[str] = (),
    compared_with: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """The table of these results; rows in the order their systems first appear.

    `baseline`: the system that every other subject or dictionary is compared with (None: no differences), but those for
    which `compared_with` names another. Differences are given for figures that were resampled, or that have several
    seeds; those of `headline` get a verdict where there are several seeds. Raises ValueError where results contradict.
    """
    by_system: dict[str, list[SeedResult]] = {}
    for result in results:
        by_system.setdefault(result.system, []).append(result)
    for other in {baseline, *compared_with.values()} - {None}:
        if other not in by_system:
            raise ValueError(f"baseline {other!r} is not among the systems {sorted(by_system)}")
    rows = [_row(system, sorted(of, key=lambda r: r.seed)) for system, of in by_system.items()]
    named = {row.system: row for row in rows}
    differences = []
    for row in rows:
        other = compared_with.get(row.system, baseline)
        if other is not None and other != row.system:
            differences += _differences(row, named[other], by_system[row.system], by_system[other])
    differences = _judged(differences, named, headline)
    return Table(comparison=comparison, provenance=provenance, rows=rows, differences=differences)


def _judged(differences: list[Difference], rows: Mapping[str, Row], headline: Sequence[str]) -> list[Difference]:
    """With verdicts on the headline, corrected for how many of them are read."""
    read = [
        d for d in differences
        if d.metric in headline and d.p is not None and rows[d.b].metrics[d.metric].direction != "none"
    ]  # fmt: skip
    if not read:
        return differences
    adjusted = false_discovery_control([d.p for d in read])
    verdicts: dict[tuple[str, str], Verdict] = {}
    for d, p in zip(read, adjusted, strict=True):
        lower = rows[d.b].metrics[d.metric].direction == "lower"
        clear: Verdict = "better" if (d.value < 0) == lower else "worse"
        verdicts[d.a, d.metric] = clear if p <= FALSE_DISCOVERIES else "unresolved"
    return [d.model_copy(update={"verdict": verdicts.get((d.a, d.metric))}) for d in differences]


def _row(system: str, results: list[SeedResult]) -> Row:
    seeds = [r.seed for r in results]
    if len(set(seeds)) != len(seeds) or len({r.kind for r in results}) != 1:
        raise ValueError(f"{system}: a seed came twice or with another kind: {[(r.seed, r.kind) for r in results]}")
    kernels: dict[str, set[str]] = {}
    for result in results:
        for op, implementation in result.provenance.kernels.items():
            kernels.setdefault(op, set()).add(implementation)
    metrics: dict[str, Figure] = {}
    reasons: dict[str, str] = {}
    for result in results:
        reasons.update(result.not_applicable)
    for name in dict.fromkeys(m.name for r in results for m in r.measurements):
        found = _by_seed(results, name)
        broken = [m.reason or f"seed {seed} gave {m.value}" for seed, m in found.items() if not np.isfinite(m.value)]
        if broken:  # a mean without the seeds that failed would flatter the system
            reasons[name] = "; ".join(dict.fromkeys(broken))
        else:
            metrics[name] = _figure(found, seeds)
    return Row(
        system=system,
        kind=results[0].kind,
        seeds=seeds,
        metrics=metrics,
        not_applicable=reasons,
        provenance=RowProvenance(
            kernels={op: ", ".join(sorted(used)) for op, used in sorted(kernels.items())},
            stages={f"{stage}/{r.seed}": key for r in results for stage, key in r.provenance.stages.items()},
        ),
        notes=_notes(results),
    )


def _notes(results: list[SeedResult]) -> list[str]:
    """Every note once. Notes that say the same with other numbers (`subject: numbers`) stand in one line, by seed; a
    note of some seeds says of which."""
    said: dict[str, dict[str, list[int]]] = {}
    for result in results:
        for note in dict.fromkeys(result.notes):
            about, _, rest = note.partition(": ")
            said.setdefault(about, {}).setdefault(rest, []).append(result.seed)
    lines = []
    for about, by_text in said.items():
        texts = [
            text if len(seeds) == len(results) else f"{text} (seed {', '.join(map(str, seeds))})".lstrip()
            for text, seeds in by_text.items()
        ]
        lines.append(f"{about}: {'; '.join(texts)}" if any(by_text) else " ".join([about, *texts]).rstrip())
    return lines


def _by_seed(results: list[SeedResult], name: str) -> dict[int, Measurement]:
    found: dict[int, Measurement] = {}
    for result in results:
        for m in result.measurements:
            if m.name == name:
                if result.seed in found:
                    raise ValueError(f"{result.system}, seed {result.seed}: {name} was measured twice")
                found[result.seed] = m
    if len({(m.unit, m.direction, m.version) for m in found.values()}) != 1:
        raise ValueError(f"{results[0].system}: {name} has another unit, direction or version in another seed")
    return found


def _figure(found: dict[int, Measurement], seeds: list[int]) -> Figure:
    first = next(iter(found.values()))
    ends = interval([m.replicates for m in found.values()], [m.value for m in found.values()])
    return Figure(
        value=ends.value,
        low=ends.low,
        high=ends.high,
        unit=first.unit,
        direction=first.direction,
        version=first.version,
        seeds=[float(found[seed].value) if seed in found else None for seed in seeds],
        timing=first.timing,
        saw=first.saw,
    )


def _differences(row: Row, base: Row, results: list[SeedResult], base_results: list[SeedResult]) -> list[Difference]:
    differences = []
    for name, figure in row.metrics.items():
        other = base.metrics.get(name)
        if other is None or figure.timing:
            continue
        a, b = _by_seed(results, name), _by_seed(base_results, name)
        if set(a) != set(b) and 1 not in (len(a), len(b)):  # seeds that only one side has cannot be paired
            common = set(a) & set(b)
            a, b = ({seed: m for seed, m in side.items() if seed in common} for side in (a, b))
            if not common:
                continue
        ends = paired_difference([a[seed] for seed in sorted(a)], [b[seed] for seed in sorted(b)])
        if ends.low is not None:
            differences.append(Difference(a=row.system, b=base.system, metric=name, **vars(ends)))
    return differences


def schema_text() -> str:
    """What harness/tables/table.schema.json must hold."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Table.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_atomically(SCHEMA_PATH, schema_text().encode())
