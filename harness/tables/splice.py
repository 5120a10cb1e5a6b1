"""What a dictionary costs its model by itself: bits per byte with it in place, minus the same model's without it.

A row's difference from the baseline holds that and more: where its dictionaries come out of its budget, its subject has
seen fewer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.tables.build import SeedResult
from harness.tables.measurement import Measurement

VERSION = 1
NATIVE, SPLICED = "loss/bits_per_byte", "loss/spliced_bits_per_byte"
COST = "loss/splice_cost"


def with_splice_cost(results: Sequence[SeedResult]) -> list[SeedResult]:
    """The results; those of dictionaries with one figure more, resampled where both of its losses are."""
    return [_with(result) if result.kind == "dictionary" else result for result in results]


def _with(result: SeedResult) -> SeedResult:
    named = {measured.name: measured for measured in result.measurements}
    native, spliced = named.get(NATIVE), named.get(SPLICED)
    if native is None or spliced is None:
        return result
    replicates = None
    if native.replicates is not None and spliced.replicates is not None:
        replicates = spliced.replicates - native.replicates
    kind = None if replicates is None else spliced.resampled
    cost = Measurement(
        COST, spliced.value - native.value, spliced.unit, "lower", VERSION, replicates, kind, saw=spliced.saw
    )
    place = result.measurements.index(spliced) + 1
    return replace(result, measurements=[*result.measurements[:place], cost, *result.measurements[place:]])
