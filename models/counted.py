"""What a token costs in a feed-forward layer, counted in a run on random tokens: for layers that give no closed form.

Matrix products are counted by torch's FlopCounterMode, which knows our own ops (kernels/). It does not know products
with a single vector, bags of embeddings and sums into chosen rows; their formulas are here. What is multiplied element
by element is not counted, as in every cost of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from models.feed_forward import FeedForward

FLOP_TOKENS = (
    64  # enough that a selection over a batch, or a gate that is sometimes closed, is seen as it is on average
)
SINGLE_TOKENS = 8  # that run one at a time, since tokens of a batch would share what each of them touches

aten = torch.ops.aten


def counted_flops(layer: FeedForward) -> int:
    """Forward FLOPs of the layer's products for one token; a multiply-add is 2."""
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with torch.device("cpu"), torch.no_grad():
        probe, tokens = _like(layer), _tokens(FLOP_TOKENS, layer.config.d_model)
        with counter:
            probe.fused(tokens)
    return round(counter.get_total_flops() / FLOP_TOKENS)


def counted_active(layer: FeedForward) -> int:
    """Entries of the layer's parameters that one token reads, on average. Where an op looks rows up (an expert's in a
    table), these rows; else all that the op is given."""
    with torch.device("cpu"), torch.no_grad():
        probe = _like(layer)
        reads = _Reads(probe)
        for token in _tokens(SINGLE_TOKENS, layer.config.d_model).split(1):
            with reads:
                probe.fused(token)
            reads.next_token()
    return round(reads.total / SINGLE_TOKENS)


def _like(layer: FeedForward) -> FeedForward:
    """A layer of the same shape, with weights that are always the same: a cost depends on shapes, and not on where the
    weights lie (a plan's have no memory) or what they have learnt."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = type(layer)(layer.config, layer.layer_index, layer.build_shared(layer.config))
        probe.float().init_weights(layer.config)
    return probe.eval()


def _tokens(n: int, d_model: int) -> Tensor:
    return torch.randn(n, d_model, generator=torch.Generator().manual_seed(0))


def _bag(weight: tuple, indices: tuple, *_: Any, **__: Any) -> int:
    return 2 * indices[0] * weight[1]


def _vector_product(matrix: tuple, *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _added_vector_product(_vector: tuple, matrix: tuple, *_: Any, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _sum_into_rows(_out: tuple, _dim: int, _rows: tuple, added: tuple, *_: Any, **__: Any) -> int:
    """The reference of a sparse decode: as many as the fast kernels are counted with, a product and a sum an entry."""
    return 2 * added[0] * added[1] if len(added) == 2 else 0


FORMULAS: dict[Any, Callable[..., int]] = {
    aten._embedding_bag: _bag,
    aten._embedding_bag_forward_only: _bag,
    aten.mv: _vector_product,
    aten.addmv: _added_vector_product,
    aten.dot: lambda one, *_, **__: 2 * one[0],
    aten.index_add: _sum_into_rows,
}


class _Reads(TorchDispatchMode):
    """Marks which entries of a layer's parameters ops read. A view reads nothing; what is computed from it does.

    total: entries read, summed over tokens (`next_token` ends one).
    """

    def __init__(self, layer: FeedForward) -> None:
        super().__init__()
        self.total = 0
        self._marks = {
            p.untyped_storage().data_ptr(): torch.zeros(
                p.untyped_storage().nbytes() // p.element_size(), dtype=torch.bool
            )
            for p in layer.parameters()
        }

    def next_token(self) -> None:
        self.total += sum(int(marks.sum()) for marks in self._marks.values())
        for marks in self._marks.values():
            marks.zero_()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        if all(each.numel() == 0 for each in made):  # no token came here
            return out
        given = tree_leaves((args, kwargs or {}))
        for tensor in (each for each in given if isinstance(each, Tensor)):
            place = tensor.untyped_storage().data_ptr()
            is_view = any(each.untyped_storage().data_ptr() == place for each in made)
            if place in self._marks and not is_view:
                marks = self._marks[place].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
                _mark(marks, func.overloadpacket, tensor, args)
        return out


def _mark(marks: Tensor, op: Any, tensor: Tensor, args: tuple) -> None:
    """Sets what `op` reads of `tensor` in its `marks`."""
    if op is aten.index_select:
        marks.index_fill_(args[1], args[2], True)
    elif op is aten.gather:
        marks.scatter_(args[1], args[2], True)
    elif op is aten.index:
        marks[tuple(slice(None) if index is None else index for index in args[1])] = True
    elif (rows := _ROWS.get(str(op))) is not None:
        marks.index_fill_(0, args[rows].flatten(), True)
    else:
        marks.fill_(True)


# Ops that read rows of their tables: where the numbers of the rows stand among their arguments. By name: ours exist
# once the kernel that has them is imported, which is the layer's business.
_ROWS = {
    "aten.embedding": 1,
    "aten._embedding_bag": 1,
    "aten._embedding_bag_forward_only": 1,
    "harness.sparse_decode": 1,
    "harness.rank1_experts": 3,
    "harness.rank1_coefficients": 2,
}
