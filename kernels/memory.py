"""Where large tables and their gradients lie: on huge pages where the system grants them, gradients in used memory."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor, nn

HUGE_PAGE = 2**21  # bytes
MADV_COLLAPSE = 25  # of Linux 6.1; Python's mmap does not name it
ASK_EVERY = 256  # calls with a table at the same place
MOST_TABLES = 4096  # remembered
LARGEST_KEPT = 2**25  # bytes of a gradient whose memory is kept for the next one
MOST_KEPT = 16  # so 512 MB at most

_advise = ctypes.CDLL(None).madvise if hasattr(mmap, "MADV_HUGEPAGE") else None
_calls: dict[tuple[int, int], int] = {}  # address and bytes of a table -> calls with it
_free: deque[mmap.mmap] = deque(maxlen=MOST_KEPT)  # the oldest goes when another comes


def array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as a C-contiguous array (a copy only where it was not contiguous)."""
    return tensor.detach().contiguous().numpy()


@torch.no_grad()
def settle(module: nn.Module) -> None:
    """Moves every parameter and buffer of `module` into memory that torch has aligned, in place.

    A tensor that is mapped from a file lies where the file puts it, and matrix products round by how their operands
    are aligned. After this, a module that was loaded computes the same digits as the one that was saved. Tensors that
    share memory (tied weights) go on sharing it.
    """
    placed: dict[tuple[int, torch.Size, tuple[int, ...]], Tensor] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_meta:
            continue
        place = tensor.data_ptr(), tensor.shape, tensor.stride()
        tensor.data = placed.setdefault(place, tensor.detach().clone())


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
            _ask_for_huge_pages(tensor)
        _calls[place] = _calls.get(place, 0) + 1
    return array(tensor)


def empty_gradient(*shape: int) -> Tensor:
    """`torch.empty` in float32 for a gradient as large as a table, which lives for one step: in the memory of one that
    is no longer held, if there is one of that size, else on fresh huge pages.

    The system clears fresh memory, so that a gradient there is written twice (and on small pages faults 4,096 times in
    16 MB, which costs more than the kernel that fills it).
    """
    nbytes = 4 * math.prod(shape)
    if _advise is None or nbytes < HUGE_PAGE:
        return torch.empty(shape, dtype=torch.float32)
    length = -(-nbytes // HUGE_PAGE) * HUGE_PAGE
    pages = _kept(length) or _fresh(length)
    memory = np.frombuffer(pages, np.float32, nbytes // 4).reshape(shape)
    if length <= LARGEST_KEPT:
        # torch holds this very array as long as any tensor lies in it.
        weakref.finalize(memory, _free.append, pages).atexit = False
    return torch.from_numpy(memory)


def _kept(length: int) -> mmap.mmap | None:
    # Only operations that are atomic each: a gradient may be given back at any moment, from any thread.
    for _ in range(len(_free)):
        try:
            pages = _free.popleft()
        except IndexError:
            return None
        if len(pages) == length:
            return pages
        _free.append(pages)
    return None


def _fresh(length: int) -> mmap.mmap:
    pages = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # from 2 MB on, Linux aligns it to that
    pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


def _ask_for_huge_pages(tensor: Tensor) -> None:
    """What it answers does not matter: memory on small pages is as right, only slower."""
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    begin, end = -(-begin // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
    if _advise is not None and end > begin:
        _advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_COLLAPSE)
