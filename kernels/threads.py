"""Numba kernels over rows, spread over as many threads as torch is allowed to use.

A kernel is compiled without the GIL and takes a range of rows last: `kernel(..., start, stop)`. A row is computed by
one thread in one order, so a result never depends on how many threads there were. A small pool of Python threads drives
it, rather than numba's own `parallel=True`: numba brings a second OpenMP runtime beside torch's, which cannot survive a
fork (data loaders) nor, in its other layer, two Python threads calling at once.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

# Sums may be reordered (into vector lanes, always the same way); NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}

ZERO = np.float32(0)
HUGE_PAGE = 2**21  # bytes
MADV_COLLAPSE = 25  # of Linux 6.1; Python's mmap does not name it
ASK_EVERY = 256  # calls with a table at the same place
MOST_TABLES = 4096  # remembered
CACHE_LINE = 16  # float32 in a cache line

_advise = ctypes.CDLL(None).madvise if hasattr(mmap, "MADV_HUGEPAGE") else None
_calls: dict[tuple[int, int], int] = {}  # address and bytes of a table -> calls with it
_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # a forked child has none of the threads


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call, keep on disk, release the GIL."""
    return numba.njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")(function)


def parallel(kernel: Callable[..., Any], rows: int, *args: Any, grain: int = 16) -> None:
    """Run `kernel(*args, start, stop)` until every row in [0, rows) was covered once. grain: fewest rows a call."""
    threads = min(torch.get_num_threads(), -(-rows // grain))
    if threads <= 1:
        if rows:
            kernel(*args, 0, rows)
        return
    # A few shares a thread, taken as threads come free: rows differ in cost.
    share = max(grain, -(-rows // (4 * threads)))
    starts = itertools.count(0, share)

    def work() -> None:
        while (start := next(starts)) < rows:
            kernel(*args, start, min(start + share, rows))

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


def array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as a C-contiguous array (a copy only where it was not contiguous)."""
    return tensor.detach().contiguous().numpy()


def large_empty(*shape: int) -> Tensor:
    """`torch.empty` in float32, on huge pages where the system grants them.

    A fresh table of 16 MB is 4,096 page faults, which cost more than the kernel that fills it.
    """
    tensor = torch.empty(shape, dtype=torch.float32)
    if _advise is not None:
        _ask_for_huge_pages(tensor, mmap.MADV_HUGEPAGE)
    return tensor


def table(tensor: Tensor) -> np.ndarray:
    """`array` of a table that stays for many calls and whose rows are read in no order, put on huge pages where the
    system grants them: on small ones every row of a large table costs a walk of the page tables beside the row itself.
    """
    if _advise is not None and tensor.is_contiguous():
        place = tensor.data_ptr(), tensor.nbytes
        if len(_calls) >= MOST_TABLES:
            _calls.clear()
        # Now and then again: another table may lie where one was, or huge pages have become free.
        if _calls.get(place, 0) % ASK_EVERY == 0:
            _ask_for_huge_pages(tensor, MADV_COLLAPSE)
        _calls[place] = _calls.get(place, 0) + 1
    return array(tensor)


def _ask_for_huge_pages(tensor: Tensor, advice: int) -> None:
    """What it answers does not matter: memory on small pages is as right, only slower."""
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    begin, end = -(-begin // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
    if _advise is not None and end > begin:
        _advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice)


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
