"""What every layer must keep to, asked of a model on a few sequences: before it is trained, and before it is read.

A layer that breaks one of these trains and is measured all the same, and its figures look better than they are: one
whose `fused` sees later tokens has a lower loss, one that says it takes no FLOPs gets more tokens. [U: ours]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kernels.codes import Codes, ReadWrite
from models.counted import FORMULAS
from models.feed_forward import Tap
from models.subject import Subject
from models.wrapped import Wrapped

FLOPS = 0.02  # by how much the counted ones may differ
_EXACT = {torch.float64: 1e-9, torch.float32: 1e-3}  # others 0.05; of the largest entry
_FEW = 0.05  # of the tokens may differ where numbers are short: where two experts tie, rounding decides


@dataclass(frozen=True)
class Broken:
    """A rule that something breaks, and what was seen."""

    where: str
    rule: str
    seen: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}; seen: {self.seen}"


def broken(model: Subject, ids: Tensor) -> Broken | None:
    """The first rule that is broken on the sequences ids `[sequences, T]`; None where all are kept."""
    return next(every(model, ids), None)


def every(model: Subject, ids: Tensor) -> Iterator[Broken]:
    """All rules that are broken. The model is asked in eval mode, and left as it was; no random number is drawn from
    torch's own generator."""
    modes = [(module, module.training) for module in model.modules()]  # a wrapped model's parts may differ from it
    model.eval()
    try:
        with torch.no_grad():
            yield from _all(model, ids)
    finally:
        for module, training in modes:
            module.training = training


def broken_codes(where: str, codes: Codes, n_tokens: int, n_units: int) -> Iterator[Broken]:
    """Of codes by themselves, whoever made them."""
    if codes.n_tokens != n_tokens or len(codes.rows) != n_tokens:
        yield Broken(where, f"codes have one row a token, here {n_tokens}", f"{codes.n_tokens} rows")
        return
    if codes.n_units != n_units:
        yield Broken(where, f"codes are over the layer's n_units = {n_units}", f"n_units {codes.n_units}")
    if not bool(codes.values.isfinite().all()):
        bad = int((~codes.values.isfinite()).sum())
        yield Broken(where, "codes are finite", f"{bad} of {codes.nnz} values are NaN or infinite")
    if zeros := int((codes.values == 0).sum()):
        yield Broken(where, "what does not fire is not in the codes", f"{zeros} of {codes.nnz} values are 0")
    if codes.nnz and not 0 <= int(codes.units.min()) <= int(codes.units.max()) < n_units:
        low, high = int(codes.units.min()), int(codes.units.max())
        yield Broken(where, f"units are numbered from 0 to {n_units - 1}", f"units {low} to {high}")
    place = codes.token_of_entry() * n_units + codes.units
    if bool((place.diff() <= 0).any()):
        yield Broken(where, "the units of a token ascend, each once", f"{int((place.diff() <= 0).sum())} do not")


@dataclass(frozen=True)
class _Ran:
    """What each layer read and wrote, `[tokens, d_model]` both."""

    x: list[Tensor]
    y: list[Tensor]


def _all(model: Subject, ids: Tensor) -> Iterator[Broken]:
    ids = ids.to(model.device)
    native = _run(model, ids)
    for at, (x, y) in enumerate(zip(native.x, native.y, strict=True)):
        if bool(x.isfinite().all()) and not bool(y.isfinite().all()):
            yield Broken(_named(model, at), "what a layer writes is finite", _share(~y.isfinite().all(1), "NaN or inf"))
    yield from _causal(model, ids, native)  # first: what a layer leaks is also missing from its codes
    yield from _read(model, ids, native)
    yield from _counted(model, ids)
    total, active = sum(parameter.numel() for parameter in model.parameters()), model.active_parameters()
    if active > total:
        yield Broken("the model", f"a token touches at most all {total:,} parameters", f"active_parameters {active:,}")


def _run(model: Subject, ids: Tensor) -> _Ran:
    ran = _Ran([], [])
    hooks = [
        layer.register_forward_hook(
            lambda _layer, args, y: (ran.x.append(args[0].flatten(0, 1)), ran.y.append(y.flatten(0, 1)), None)[2]
        )
        for layer in model.feed_forwards()
    ]
    try:
        model(ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return ran


def _read(model: Subject, ids: Tensor, native: _Ran) -> Iterator[Broken]:
    """Codes, and what is written of them. Every layer is read, so the first that disagrees is the one."""
    layers, seen = model.feed_forwards(), dict[int, tuple[Codes, Tensor]]()

    def watch(at: int, codes: Codes, x: Tensor) -> Codes:
        seen[at] = (codes, x)
        return codes

    before = [layer.tap for layer in layers]
    for at, layer in enumerate(layers):
        layer.tap = Tap(lambda codes, x, at=at: watch(at, codes, x))
    try:
        ran = _run(model, ids)
    finally:
        for layer, tap in zip(layers, before, strict=True):
            layer.tap = tap
    sequence, position = (
        torch.arange(n, device=ids.device).view(shape).expand(ids.shape).flatten()
        for n, shape in ((ids.shape[0], (-1, 1)), (ids.shape[1], (1, -1)))
    )
    for at, layer in enumerate(layers):
        where, (codes, x) = _named(model, at), seen[at]
        yield from broken_codes(where, codes, ids.numel(), layer.n_units)
        if not torch.equal(codes.rows, torch.stack([sequence, position], 1)):
            yield Broken(where, "read passes its rows through", f"rows that begin {codes.rows[:2].tolist()}")
        apart = _apart(ran.y[at], native.y[at])
        if _too_many(apart, x.dtype):
            rule = "fused(x) = write(read(x), x) + rest(x)"
            yield Broken(where, rule, f"{_share(apart, 'differ')}; norms {_norms(ran.y[at], native.y[at])}")
        yield from broken_write(where, layer, codes, x)


def broken_write(where: str, layer: ReadWrite, codes: Codes, x: Tensor) -> Iterator[Broken]:
    """Of what a layer or a dictionary writes of these codes; x: what they were read from."""
    noise = torch.randn(codes.nnz, generator=torch.Generator().manual_seed(0)).to(codes.values)
    other = codes.with_values(noise * codes.values.abs().mean())
    together = layer.write(codes.with_values(2 * codes.values - other.values), x)
    apart = _apart(together, 2 * layer.write(codes, x) - layer.write(other, x))
    if _too_many(apart, x.dtype):
        yield Broken(where, "write is linear in the values of the codes", _share(apart, "are not"))


def _causal(model: Subject, ids: Tensor, native: _Ran) -> Iterator[Broken]:
    """Later tokens are changed, at two places, since where experts tie a rounding may look like a leak."""
    length = ids.shape[1]
    leaks: list[tuple[int, bool, Tensor]] = []
    for cut in (length // 2, length // 4):
        changed = ids.clone()
        changed[:, cut:] = (changed[:, cut:] + 1) % model.config.vocab_size
        earlier = (torch.arange(length, device=ids.device) < cut).repeat(len(ids))
        ran, dtype = _run(model, changed), native.y[0].dtype
        for at in range(len(native.y)):
            of_input, of_output = (
                _apart(a[at][earlier], b[at][earlier]) for a, b in ((ran.x, native.x), (ran.y, native.y))
            )
            if bool(of_output.any()) if dtype in _EXACT else _too_many(of_output, dtype):
                leaks.append((at, bool(of_input.any()) if dtype in _EXACT else _too_many(of_input, dtype), of_output))
                break
    if len(leaks) == 2:
        at, before, changed_rows = leaks[0]
        where = f"what comes before layer {at}" if before else _named(model, at)
        yield Broken(where, "no token sees a later one", f"{_share(changed_rows, 'change')} when later tokens do")


def _counted(model: Subject, ids: Tensor) -> Iterator[Broken]:
    layers, counts = model.feed_forwards(), list[dict[str, int]]()
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:

        def ops() -> dict[str, int]:
            return {str(op): int(flops) for op, flops in counter.get_flop_counts().get("Global", {}).items()}

        start: list[dict[str, int]] = []
        hooks = [layer.register_forward_pre_hook(lambda *_: start.append(ops())) for layer in layers]
        hooks += [
            layer.register_forward_hook(
                lambda *_: counts.append({op: n - start[-1].get(op, 0) for op, n in ops().items()})
            )
            for layer in layers
        ]
        try:
            model(ids, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
    for at, layer in enumerate(layers):
        if isinstance(layer, Wrapped):
            continue  # of other people's modules, which may use products that the counter does not know (grouped ones)
        said, found = layer.flops_per_token() * ids.numel(), sum(counts[at].values())
        if abs(said - found) > FLOPS * max(found, said):
            by_op = ", ".join(f"{op} {n / ids.numel():,.0f}" for op, n in counts[at].items() if n)
            rule = f"flops_per_token is what the matrix products take, within {FLOPS:.0%}"
            seen = f"{layer.flops_per_token():,} said, {found / ids.numel():,.0f} counted ({by_op or 'no product'})"
            yield Broken(_named(model, at), rule, seen)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """`[tokens]` bool: rows that differ by more than rounding, beside the largest entry of all."""
    tolerance = _EXACT.get(b.dtype, 0.05) * float(b.abs().max())
    return ~((a - b).abs().amax(1) <= tolerance)  # NaN is apart from everything


def _too_many(apart: Tensor, dtype: torch.dtype) -> bool:
    """apart `[tokens]` bool"""
    return float(apart.float().mean()) > (0 if dtype == torch.float64 else _FEW)


def _named(model: Subject, at: int) -> str:
    layer: nn.Module = model.feed_forwards()[at]
    return f"layer {at} ({type(layer).__name__})"


def _share(rows: Tensor, what: str) -> str:
    return f"{int(rows.sum())} of {len(rows)} tokens {what}"


def _norms(a: Tensor, b: Tensor) -> str:
    return f"{float(a.float().norm()):.3g} against {float(b.float().norm()):.3g}"
