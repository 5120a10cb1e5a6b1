"""Random directions in the units' place."""

from __future__ import annotations

import torch

from harness.metrics.concepts.sites import Read, random_codes
from harness.systems.system import Encoded, Site
from kernels.codes import Codes

SITE = Site(0, "mlp_out")


def read(inputs: int, outputs: int, signed: bool = True) -> Read:
    """Eight units that are always on; what the layer reads and writes is drawn by these seeds."""

    def drawn(seed: int) -> torch.Tensor:
        return torch.randn(30, 5, generator=torch.Generator().manual_seed(seed))

    values = torch.randn(30, 8, generator=torch.Generator().manual_seed(9))
    codes = Codes.from_dense(values if signed else values.abs(), torch.zeros(30, 2, dtype=torch.long))
    encoded = {SITE: Encoded(codes, codes.values.abs())}
    return Read(encoded, {SITE: drawn(inputs)}, {SITE: 3 * drawn(outputs)}, drawn(0), drawn(0), drawn(0))


def dense(one: Read, other: Read) -> torch.Tensor:
    return random_codes(one, other, 0)[1][0].codes.dense()


def test_every_second_direction_reads_what_the_layer_reads_and_the_others_what_it_writes() -> None:
    one = read(1, 2)
    same, other_input, other_output = (dense(one, other) for other in (one, read(3, 2), read(1, 3)))
    assert torch.equal(same[:, 1::2], other_input[:, 1::2])
    assert not torch.allclose(same[:, ::2], other_input[:, ::2])
    assert torch.equal(same[:, ::2], other_output[:, ::2])
    assert not torch.allclose(same[:, 1::2], other_output[:, 1::2])


def test_directions_fire_with_the_signs_that_units_have() -> None:
    assert (dense(read(1, 2), read(1, 2)) < 0).any()
    one_sided = read(1, 2, signed=False)
    assert (dense(one_sided, one_sided) >= 0).all()
