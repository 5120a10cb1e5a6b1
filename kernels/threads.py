"""Numba kernels over rows, spread over as many threads as torch is allowed to use.

A kernel is compiled without the GIL and takes a range of rows last: `kernel(..., start, stop)`. A row is computed by
one thread in one order, so a result never depends on how many threads there were. A small pool of Python threads drives
it, rather than numba's own `parallel=True`: numba brings a second OpenMP runtime beside torch's, which cannot survive a
fork (data loaders) nor, in its other layer, two Python threads calling at once.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

from kernels.memory import array

T = TypeVar("T")

# Sums may be reordered (into vector lanes, always the same way); NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}

ZERO = np.float32(0)
CACHE_LINE = 16  # float32 in a cache line

_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # a forked child has none of the threads


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call, keep on disk, release the GIL."""
    return _compiled(function)


def leaf(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jit` for what makes no array: it counts no references to its arrays. Counting is an atomic operation for each
    array at each call; of a call on short rows it was more than half of the time."""
    return _compiled(function, _nrt=False)


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return numba.njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy", **options)(function)


def parallel(kernel: Callable[..., Any], rows: int, *args: Any, grain: int = 16) -> None:
    """Run `kernel(*args, start, stop)` until every row in [0, rows) was covered once. grain: fewest rows a call."""
    threads = min(torch.get_num_threads(), -(-rows // grain))
    if threads <= 1:
        if rows:
            kernel(*args, 0, rows)
        return
    # Some shares a thread, taken as threads come free: rows differ in cost, and cores in what else they do.
    share = max(grain, -(-rows // (8 * threads)))
    starts = itertools.count(0, share)

    def work() -> None:
        while (start := next(starts)) < rows:
            kernel(*args, start, min(start + share, rows))

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


def beside(function: Callable[..., T], *args: Any) -> Callable[[], T]:
    """Begin `function(*args)`, which must let go of the GIL to be of use, on another thread, and return what waits for
    it. A `parallel` meanwhile has that thread's help once the function is done."""
    threads = torch.get_num_threads()
    if threads == 1:
        return functools.partial(function, *args)
    return _pool(threads - 1).submit(function, *args).result


def check_range(indices: Tensor, rows: int) -> None:
    """Numba does not check bounds, so this does. Raises IndexError when an index is outside [0, rows)."""
    # Not torch's minimum: its thread would spin for a while after, on a core the kernel wants next.
    low, high = _extremes(array(indices).reshape(-1))
    if low < 0 or high >= rows:
        raise IndexError(f"index {low if low < 0 else high} is outside the table of {rows} rows")


@jit
def _extremes(indices):
    low, high = np.int64(0), np.int64(-1)
    for i in range(indices.shape[0]):
        low = min(low, indices[i])
        high = max(high, indices[i])
    return low, high


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="kernels")
    return _pools[threads]


@intrinsic
def prefetch(typing_context: Any, values: Any, element: Any) -> Any:
    """Ask for the cache line of element number `element` of the C-contiguous array `values`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, flag(0), flag(3), flag(1)])  # read, keep in every level, data
        return context.get_dummy_value()

    return numba.types.void(values, numba.types.intp), codegen
