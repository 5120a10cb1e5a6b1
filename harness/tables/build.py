"""How a table is built from measurements: means and intervals, paired differences, and the verdicts on its headline.

Verdicts are of headline figures with several seeds: a system's difference from the row that it is compared with, and
what is left of a figure when its control is taken off. All that one table prints are corrected together, so that at
most 5% of those that resolve anything are wrong by chance (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from scipy.stats import false_discovery_control

from harness.tables.measurement import Measurement
from harness.tables.statistics import Interval, interval, paired_difference
from harness.tables.table import (
    Accounting,
    AgainstControl,
    Difference,
    Elsewhere,
    Figure,
    Kind,
    Provenance,
    Row,
    RowProvenance,
    Table,
    Verdict,
)

FALSE_DISCOVERIES = 0.05  # share of the verdicts that resolve anything and may be wrong

# Figures that say what is left when the control is taken off, by how their names end: what they are of nothing real.
_NOTHING_REAL = {
    "_above_random": 0.0,
    "/excess_above_floor": 0.0,
    "/excess_over_floor": 1.0,
    "/together_over_strangers": 1.0,
    "/conjunction_over_strangers": 1.0,
    "/ablation_over_random": 1.0,
}


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
    accounting: Accounting | None = None
    unmatched: str | None = None
    elsewhere: Elsewhere | None = None


def build(
    comparison: str,
    results: Sequence[SeedResult],
    provenance: Provenance,
    baseline: str | None,
    headline: Sequence[str] = (),
    compared_with: Mapping[str, str] = MappingProxyType({}),
    question: str = "",
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
    left = {
        (row.system, name): what_is_left(by_system[row.system], name)
        for row in rows
        for name in headline
        if name in row.metrics
    }
    differences, rows = _judged(differences, rows, {key: rest for key, rest in left.items() if rest}, headline)
    return Table(
        comparison=comparison,
        question=question,
        headline=list(headline),
        provenance=provenance,
        rows=rows,
        differences=differences,
    )


def nothing_real(metric: str) -> float | None:
    """What a figure is where its system does no better than the control in it; None where it has no control in it."""
    return next((value for ending, value in _NOTHING_REAL.items() if metric.endswith(ending)), None)


def what_is_left(results: Sequence[SeedResult], metric: str) -> Interval | None:
    """The figure minus what it would be of nothing real. None where it has no control in it, or there is one seed."""
    nothing = nothing_real(metric)
    if nothing is None:
        return None
    found = list(_by_seed(list(results), metric).values())
    replicates = [None if m.replicates is None else np.asarray(m.replicates) - nothing for m in found]
    rest = interval(replicates, [m.value - nothing for m in found])
    return rest if rest.p is not None else None


def _judged(
    differences: list[Difference],
    rows: list[Row],
    left: Mapping[tuple[str, str], Interval],
    headline: Sequence[str],
) -> tuple[list[Difference], list[Row]]:
    """With verdicts on the headline, corrected for how many of them are read. left: by system and figure."""
    named = {row.system: row for row in rows}
    read = [
        d for d in differences
        if d.metric in headline and d.p is not None and named[d.b].metrics[d.metric].direction != "none"
    ]  # fmt: skip
    ps = [d.p for d in read] + [rest.p for rest in left.values()]
    if not ps:
        return differences, rows
    clear = [bool(p <= FALSE_DISCOVERIES) for p in false_discovery_control(ps)]
    verdicts: dict[tuple[str, str], Verdict] = {}
    for d, resolved in zip(read, clear[: len(read)], strict=True):
        lower = named[d.b].metrics[d.metric].direction == "lower"
        says: Verdict = "better" if (d.value < 0) == lower else "worse"
        verdicts[d.a, d.metric] = says if resolved else "unresolved"
    against: dict[tuple[str, str], AgainstControl] = {}
    for (key, rest), resolved in zip(left.items(), clear[len(read) :], strict=True):
        against[key] = ("above" if rest.value > 0 else "below") if resolved else "unresolved"
    judged = [d.model_copy(update={"verdict": verdicts.get((d.a, d.metric))}) for d in differences]
    return judged, [_with_controls(row, against) for row in rows]


def _with_controls(row: Row, against: Mapping[tuple[str, str], AgainstControl]) -> Row:
    metrics = {
        name: figure.model_copy(update={"against_control": against[row.system, name]})
        if (row.system, name) in against
        else figure
        for name, figure in row.metrics.items()
    }
    return row.model_copy(update={"metrics": metrics})


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
        accounting=results[0].accounting,
        unmatched=results[0].unmatched,
        elsewhere=results[0].elsewhere,
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
    # What a seed could not have is in no unit.
    if len({(m.unit, m.direction, m.version) for m in found.values() if np.isfinite(m.value)}) > 1:
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
