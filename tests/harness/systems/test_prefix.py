from collections.abc import Callable
from functools import partial

import torch

from harness.systems.prefix import Entries, Prefix
from harness.systems.system import System

from ..conftest import set_entries


def entries(*rows: tuple[int, int, float]) -> Entries:
    row, unit, value = zip(*rows, strict=True)
    return Entries(torch.tensor(row), torch.tensor(unit), torch.tensor(value, dtype=torch.float64))


def test_variants_of_many_positions_equal_the_whole_sequence_run_again_for_each(
    make_system: Callable[[torch.dtype], System], tokens: torch.Tensor
) -> None:
    system = make_system(torch.float64)
    codes = {site: found.codes for site, found in system.encode(tokens[:1]).items()}
    first, last = system.sites[0], system.sites[-1]

    def fires(site: object, position: int, place: int) -> tuple[int, float]:
        of = codes[site]  # pyright: ignore[reportArgumentType]
        entry = int(of.indptr[position]) + place
        return int(of.units[entry]), float(of.values[entry])

    live = [p for p in (2, 5, 9, 10, 11) if all(c.row_lengths()[p] >= 2 for c in codes.values())]
    assert live, "the test needs positions at which units fire"
    plans = [
        {},
        {first: [(fires(first, p, 0)[0], 0.0) for p in live]},
        {last: [(fires(last, p, 1)[0], 0.5 * fires(last, p, 1)[1]) for p in live]},
        {
            first: [(fires(first, p, 1)[0], 0.0) for p in live],
            last: [fires(last, p, 0) for p in live],  # held at its native value under the earlier edit
        },
    ]
    rows = [(plan, place) for plan in plans for place in range(len(live))]
    edits = {}
    for site in {first, last}:
        set_rows = [(r, *plan[site][place]) for r, (plan, place) in enumerate(rows) if site in plan]
        edits[site] = entries(*set_rows)
    found = Prefix(system, tokens[0]).logits(torch.tensor([live[place] for _, place in rows]), edits)
    moved = []
    for r, (plan, place) in enumerate(rows):
        edit = {
            site: partial(set_entries, entries=entries((live[place], *values[place]))) for site, values in plan.items()
        }
        with torch.no_grad(), system.running(edit):
            whole = system.model(tokens[:1], use_cache=False).logits[0, live[place]]
        torch.testing.assert_close(found[r], whole, rtol=1e-9, atol=1e-10)
        moved.append(float((found[r] - found[place]).abs().max()))
    assert max(moved) > 1e-6, "the edits must do something"


def test_a_push_equals_the_edit_that_takes_the_same_vector_away(
    make_subject: Callable[..., object], tokens: torch.Tensor
) -> None:
    system = System("peer", make_subject("peer"), None)  # pyright: ignore[reportArgumentType]
    site = system.sites[0]
    codes = system.encode(tokens[:1])[site].codes
    prefix, positions = Prefix(system, tokens[0]), torch.tensor([3, 8])
    entry = codes.indptr[positions]
    units, values = codes.units[entry], codes.values[entry]
    off = prefix.logits(positions, {site: Entries(torch.arange(2), units, torch.zeros(2, dtype=torch.float64))})
    write = system.decomposition[site].writes(codes, torch.empty(0), entry)
    pushed = prefix.logits(positions, pushes={site: -values[:, None] * write})
    torch.testing.assert_close(off, pushed, rtol=1e-9, atol=1e-10)
    again = prefix.logits(positions)  # and the native prefix is left as it was
    torch.testing.assert_close(again, system.model(tokens[:1], use_cache=False).logits[0, positions].detach())


def test_what_no_unit_explains_can_be_held_and_is_then_the_native_one(
    make_system: Callable[[torch.dtype], System], tokens: torch.Tensor
) -> None:
    """A unit set to the value that it has: whatever runs again comes out as it was, error and rest too."""
    system = make_system(torch.float64)
    site = system.sites[0]
    codes = system.encode(tokens[:1])[site].codes
    position = next(p for p in (9, 10, 11, 5) if codes.row_lengths()[p])
    entry = int(codes.indptr[position])
    edit = {site: entries((0, int(codes.units[entry]), float(codes.values[entry])))}
    prefix = Prefix(system, tokens[0])
    at = torch.tensor([position])
    torch.testing.assert_close(prefix.logits(at, edit, held=True), prefix.logits(at), rtol=1e-9, atol=1e-10)
