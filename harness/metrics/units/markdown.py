"""units.md of a comparison: of every system the most telling units and pairs, in a few lines of plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.base.files import write_atomically
from harness.metrics.units.reports import Context, Explanation, Outcome, Partner, Unit, UnitReports

FILE = "units.md"
UNITS, PAIRS = 5, 3
LEAST_FIRINGS = 15  # of a unit whose domain is said to be lopsided


def write(systems: Sequence[UnitReports], folder: Path) -> None:
    if systems:
        write_atomically(folder / FILE, "\n".join(lines(systems)).encode())


def lines(systems: Sequence[UnitReports]) -> list[str]:
    found = [
        "# Units to look at",
        "",
        f"Up to {UNITS} units and {PAIRS} pairs of every system, seed {systems[0].seed}: the extreme ones of a sample, "
        "so they say what there is and not how much of it. All of the sample: `details/*/units.json`. In a context the "
        "token that it is about stands in «». A pair: the model's next tokens where both write, one, or neither.",
        "",
    ]
    for system in systems:
        described = "; ".join(
            f"`{site.site}`: {site.live:,} of {site.n_units:,} units fire, {site.described} described"
            for site in system.sites
        )
        chosen, by = _telling(system)
        found += [f"## {_code(system.system)}", "", f"On {system.tokens:,} tokens. {described}. {by}"]
        found += [_unit(unit, system) for unit in chosen]
        pairs = _pairs(system)
        if pairs:
            found.append(f"- The {len(pairs)} pairs of largest excess over their floor:")
            found += [f"  {_pair(unit, partner, system)}" for unit, partner in pairs]
        found.append("")
    return found


def _telling(system: UnitReports) -> tuple[list[Unit], str]:
    """The units, and what they were chosen by. Equals stand in the order of the file."""
    above = [(gap, unit) for unit in system.units if (gap := _above_control(unit.explanation)) is not None]
    if above:
        return _most(above), "Explained units furthest above their best control:"
    often = [unit for unit in system.units if unit.fired >= LEAST_FIRINGS] or list(system.units)
    lopsided = [(sum(abs(own - share) for _, own, share in unit.domains), unit) for unit in often]
    if any(by for by, _ in lopsided):
        return _most(lopsided), f"Units of the most lopsided domains, among those with {LEAST_FIRINGS} firings:"
    same = [(float(_most_common(unit)), unit) for unit in often]
    return _most(same), "Units whose strongest firings are most often on the same token:"


def _above_control(explanation: Explanation | None) -> float | None:
    if explanation is None or explanation.score is None or explanation.control_score is None:
        return None
    return explanation.score - explanation.control_score


def _most_common(unit: Unit) -> int:
    return max(Counter(context.p[context.at] for context in unit.top).values(), default=0)


def _most(scored: list[tuple[float, Unit]]) -> list[Unit]:
    return [unit for _, unit in sorted(scored, key=lambda each: -each[0])[:UNITS]]


def _pairs(system: UnitReports) -> list[tuple[Unit, Partner]]:
    """Pairs that joint edited, each once, the largest excess over its floor first."""
    found: dict[frozenset[tuple[str, int]], tuple[float, Unit, Partner]] = {}
    for unit in system.units:
        for partner in unit.partners:
            if partner.excess is not None and partner.floor is not None:
                pair = frozenset({(unit.site, unit.unit), (partner.site, partner.unit)})
                found.setdefault(pair, (partner.excess - partner.floor, unit, partner))
    ranked = sorted(found.values(), key=lambda each: -each[0])[:PAIRS]
    return [(unit, partner) for _, unit, partner in ranked]


def _unit(unit: Unit, system: UnitReports) -> str:
    said = [f"- `{unit.site}` unit {unit.unit}, on {unit.density:.2%} of tokens"]
    if (explained := unit.explanation) is not None and explained.score is not None:
        said.append(f"{_code(explained.text)} ({_plain(explained.scorer)} {explained.score:.2f}")
        control = (
            "" if explained.control_score is None else f", {_plain(explained.control)} {explained.control_score:.2f}"
        )
        said[-1] += f"{control})"
    elif unit.domains:
        name, own, share = max(unit.domains, key=lambda domain: domain[1])
        said.append(f"{own:.0%} of its firings in {_code(name)}, which has {share:.0%} of tokens")
    return "; ".join(said) + (f": {_context(unit.top[0], system)}" if unit.top else "")


def _pair(unit: Unit, partner: Partner, system: UnitReports) -> str:
    assert partner.excess is not None
    assert partner.floor is not None
    said = partner.next
    states = (
        [] if said is None else [("both", said.both), ("only A", said.a), ("only B", said.b), ("neither", said.neither)]
    )
    heard = "; ".join(f"{state} {_outcomes(outcomes, system)}" for state, outcomes in states)
    marked = _code(f"{partner.text}«{partner.token}»")
    return (
        f"- A `{unit.site}` unit {unit.unit}, B `{partner.site}` unit {partner.unit}, "
        f"{partner.excess - partner.floor:.3g} bit above the floor: {marked} then {heard}"
    )


def _outcomes(outcomes: Sequence[Outcome], system: UnitReports) -> str:
    return ", ".join(f"{_code(system.pieces[piece])} {p:.2f}" for piece, p in outcomes)


def _context(context: Context, system: UnitReports) -> str:
    pieces = [system.pieces[piece] for piece in context.p]
    pieces[context.at] = f"«{pieces[context.at]}»"
    return _code("".join(pieces))


def _plain(name: str | None) -> str:
    """A name of ours, whose underscores are none of Markdown's."""
    return (name or "").replace("_", " ")


def _code(text: str) -> str:
    """Text of a corpus or a judge as a code span on one line: Markdown reads nothing in it and strips no space."""
    text = text.replace("`", "ˋ").replace("\r", "␍").replace("\n", "⏎")
    plain = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    if plain[:1] == " " and plain[-1:] == " " and plain.strip():
        plain = f" {plain} "  # Markdown takes one space from each side where both have one
    return f"`{plain or '␀'}`"
