"""Operands of different precision give what the widest of them gives, in every op."""

import pytest
import torch

from kernels import product_keys, sparse_dictionary
from kernels.codes import Codes
from kernels.mixed import widened
from kernels.rank1_experts import coefficients, rank1_experts

BF16 = torch.bfloat16
G = torch.Generator().manual_seed(0)
X, U, V = torch.randn(6, 8, generator=G), torch.randn(12, 8, generator=G), torch.randn(12, 8, generator=G)
INDICES, GATES = torch.randint(12, (6, 3), generator=G), torch.rand(6, 3, generator=G)
Q1, Q2 = torch.randn(6, 2, 4, generator=G), torch.randn(6, 2, 4, generator=G)
K1, K2 = torch.randn(2, 5, 4, generator=G), torch.randn(2, 5, 4, generator=G)
W, B = torch.randn(8, 12, generator=G), torch.randn(12, generator=G)

OPS = {
    "rank1_experts": lambda x: rank1_experts(x, U, V, INDICES, GATES.to(x.dtype), "gelu"),
    "coefficients": lambda x: coefficients(x, U, INDICES, GATES.to(x.dtype), "gelu"),
    "product_keys": lambda x: product_keys.search(Q1.to(x.dtype), Q2.to(x.dtype), K1, K2, 3)[0],
    "preactivations": lambda x: sparse_dictionary.preactivations(x, W, B),
    "encode_topk": lambda x: sparse_dictionary.encode_topk(x, W, B, 3)[1],
    "encode_batch_topk": lambda x: sparse_dictionary.encode_batch_topk(x, W, B, 9)[2],
    "encode_column_topk": lambda x: sparse_dictionary.encode_column_topk(x, W, B, torch.full((12,), 2))[2],
    "encode_positive": lambda x: sparse_dictionary.encode_positive(x, W, B)[2],
    "decode": lambda x: sparse_dictionary.decode(
        Codes.from_dense(x.relu(), torch.zeros(6, 2, dtype=torch.long)), U[:8]
    ),
    "decode_slots": lambda x: sparse_dictionary.decode_slots(INDICES, GATES.to(x.dtype), U),
}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("autocast", [False, True])
def test_an_input_in_bfloat16_meets_tables_in_float32(op: str, autocast: bool) -> None:
    x = X.to(BF16).requires_grad_()
    with torch.autocast("cpu", BF16, enabled=autocast):
        y = OPS[op](x)
    exact = OPS[op](X.to(BF16).float()) if op != "product_keys" else None
    if exact is not None:
        # Only what is rounded on the way in and out differs: the gates, and the answer.
        torch.testing.assert_close(y.float(), exact, rtol=2e-2, atol=2e-2)
    assert y.isfinite().all()
    if y.requires_grad:
        y.float().sum().backward()
        assert x.grad is None or x.grad.dtype == BF16


@pytest.mark.parametrize("op", ["rank1_experts", "coefficients", "product_keys"])
def test_what_a_layer_gets_back_has_the_type_that_it_gave(op: str) -> None:
    assert OPS[op](X.to(BF16)).dtype == BF16
    assert OPS[op](X).dtype == torch.float32


def test_float16_with_bfloat16_is_computed_in_float32() -> None:
    assert {t.dtype for t in widened(X.half(), X.to(BF16))} == {torch.float32}
    same = widened(X, U)
    assert same[0] is X
    assert same[1] is U
