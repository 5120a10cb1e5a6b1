import numpy as np
import torch

from harness.metrics.sparsity import token_sparsity
from harness.systems.system import Encoded
from kernels.codes import Codes


def encoded(strengths: list[list[float]]) -> Encoded:
    dense = torch.tensor(strengths)
    codes = Codes.from_dense(dense, torch.zeros(len(dense), 2, dtype=torch.long))
    return Encoded(codes, codes.values.abs())


def test_strength_l0_is_the_fewest_units_that_carry_95_percent() -> None:
    found = token_sparsity(
        encoded(
            [
                [0.95, 0.05, 0.0, 0.0],  # one carries exactly 95%
                [0.94, 0.06, 0.0, 0.0],
                [1.0, 1.0, 1.0, 1.0],
                [0.001, 0.0, 0.0, 10.0],
                [0.0, 0.0, 0.0, 0.0],
            ]
        )
    )
    assert found["strength_l0"].tolist() == [1, 2, 4, 1, 0]
    assert found["l0"].tolist() == [2, 2, 4, 2, 0]


def test_gini_and_hoyer_by_hand() -> None:
    found = token_sparsity(encoded([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 5.0, 0.0], [1.0, 3.0, 0.0, 0.0]]))
    # Gini of (0, 0, 1, 3): 2·(3·1 + 4·3)/(4·4) − 5/4 = 0.625. Hoyer: (2 − 4/√10)/(2 − 1).
    torch.testing.assert_close(found["gini"], torch.tensor([0.0, 0.75, 0.625], dtype=torch.float64))
    torch.testing.assert_close(found["hoyer"], torch.tensor([0.0, 1.0, 2 - 4 / np.sqrt(10)], dtype=torch.float64))


def test_sparsity_does_not_depend_on_the_scale_or_the_order_of_units() -> None:
    strengths = torch.rand(20, 13, generator=torch.Generator().manual_seed(0)).square()
    strengths[strengths < 0.2] = 0
    base = token_sparsity(encoded(strengths.tolist()))
    permuted = token_sparsity(encoded(strengths[:, torch.randperm(13)].tolist()))
    scaled = token_sparsity(encoded((1e4 * strengths).tolist()))
    for name, values in base.items():
        torch.testing.assert_close(permuted[name], values)
        torch.testing.assert_close(scaled[name], values)


def test_strength_l0_equals_a_plain_loop() -> None:
    strengths = torch.rand(50, 17, generator=torch.Generator().manual_seed(1)).pow(3)
    found = token_sparsity(encoded(strengths.tolist()))["strength_l0"]
    for row, value in zip(strengths.double(), found.tolist(), strict=True):
        ordered = row.sort(descending=True).values
        needed = int((ordered.cumsum(0) < 0.95 * ordered.sum()).sum()) + 1
        assert value == needed
