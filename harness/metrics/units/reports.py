"""The file units.json: what it may hold, how it is written and read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from harness.base.errors import HarnessError

SCHEMA = 1
FILE = "units.json"

Why = Literal["autointerp", "pair", "sample"]
Outcome = tuple[int, float]  # index of a piece, probability


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Context(_Part):
    """A window of text around one token. p: index into `pieces` of each token. s: strength on each token, 0 where the
    unit is silent, else 1 to 99 of 99, the unit's largest. at: index of the token that the window is about. d: row of
    its document in the corpus."""

    p: tuple[int, ...]
    s: tuple[int, ...]
    at: int
    d: int

    @model_validator(mode="after")
    def _as_long(self) -> Context:
        if len(self.s) != len(self.p) or not 0 <= self.at < len(self.p):
            raise ValueError("a context needs a strength for each token, and a trigger among them")
        return self


class PairContext(Context):
    """t: strength of the partner on each token, as s is the unit's own."""

    t: tuple[int, ...]


class Histogram(_Part):
    """Firings by strength: 16 bins, equal in log strength from low to high. All in the first where these are equal."""

    low: float
    high: float
    counts: tuple[int, ...]


class Explanation(_Part):
    """What autointerp made of the unit. score: of its first scorer; control: the best of the controls that have nothing
    to find; None where there was too little to score on."""

    text: str
    by: str
    scorer: str
    score: float | None
    control: str | None
    control_score: float | None


class Predictions(_Part):
    """The likeliest next tokens by which of the two units write: a is the unit, b its partner."""

    neither: tuple[Outcome, ...]
    a: tuple[Outcome, ...]
    b: tuple[Outcome, ...]
    both: tuple[Outcome, ...]


class Examples(_Part):
    """One context of each state, its trigger the token where that is clearest; None where there is no such token."""

    a: PairContext | None
    b: PairContext | None
    both: PairContext | None


class Partner(_Part):
    """Another unit that fires with this one. lift: P(both) / P(a)P(b). neither, a, b, both: on how many counted
    tokens; a: this unit alone. The last five are of a pair that the joint metric edited, else None: mean excess and its
    floor in bits, and the first of its contexts (text, and the token at which both fire), with what the model says
    next."""

    site: str
    unit: int
    lift: float
    neither: int
    a: int
    b: int
    both: int
    examples: Examples
    excess: float | None = None
    floor: float | None = None
    text: str | None = None
    token: str | None = None
    next: Predictions | None = None


class Unit(_Part):
    """One unit. fired: on how many counted tokens it is among the strongest. promoted, suppressed: indexes of the
    pieces whose logits its mean write raises and lowers most. domains: name, share of its firings, share of all counted
    tokens. top: its strongest firings, of different documents as far as there are; quantiles: two from each third of
    its strengths below these, the strongest third first; near_misses: silent windows around a token that it fires on
    elsewhere."""

    site: str
    unit: int
    fired: int
    density: float
    mean_strength: float
    max_strength: float
    why: tuple[Why, ...]
    explanation: Explanation | None
    histogram: Histogram
    promoted: tuple[int, ...]
    suppressed: tuple[int, ...]
    domains: tuple[tuple[str, float, float], ...]
    partners: tuple[Partner, ...]
    top: tuple[Context, ...]
    quantiles: tuple[Context, ...]
    near_misses: tuple[Context, ...]

    def contexts(self) -> Iterator[Context]:
        yield from (*self.top, *self.quantiles, *self.near_misses)
        for partner in self.partners:
            of = partner.examples
            yield from (found for found in (of.a, of.b, of.both) if found is not None)

    def indexes(self) -> Iterator[int]:
        """Every piece that the unit's report names."""
        yield from (*self.promoted, *self.suppressed)
        for context in self.contexts():
            yield from context.p
        for partner in self.partners:
            if said := partner.next:
                yield from (piece for piece, _ in (*said.neither, *said.a, *said.b, *said.both))


class Site(_Part):
    """live: units that fire at all on the counted tokens; the others cannot be described."""

    site: str
    n_units: int
    live: int
    described: int


class UnitReports(_Part):
    """Of one system. tokens, documents: what units are counted on. strongest: a unit fires on a token where it is among
    this many strongest of its site."""

    version: Literal[1] = SCHEMA  # in the file `schema`, a name that pydantic has taken
    system: str
    seed: int
    tokens: int
    documents: int
    strongest: int
    sites: tuple[Site, ...]
    pieces: tuple[str, ...]
    units: tuple[Unit, ...]

    @model_validator(mode="after")
    def _holds_together(self) -> UnitReports:
        for unit in self.units:
            where = f"{unit.site}, unit {unit.unit}"
            if sum(unit.histogram.counts) != unit.fired:
                raise ValueError(f"{where}: the histogram holds other firings than the unit")
            for with_it in unit.partners:
                if with_it.neither + with_it.a + with_it.b + with_it.both != self.tokens:
                    raise ValueError(f"{where}: the states of a pair are not all counted tokens")
            if any(not 0 <= piece < len(self.pieces) for piece in unit.indexes()):
                raise ValueError(f"{where}: an index of a piece that is not there")
        return self

    def save(self, path: Path) -> None:
        data = self.model_dump(mode="json")
        data = {"schema": data.pop("version"), **data}
        path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> UnitReports:
        """Raises HarnessError, in one line, where the file is not what `save` writes."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return UnitReports.model_validate({"version": data.pop("schema"), **data})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise HarnessError(f"{path} is not a file of unit reports: {where}: {first['msg']}") from None
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise HarnessError(f"cannot read unit reports {path}: {error}") from error
