import numpy as np
import torch

from harness.metrics.joint.floor import random_frames, rotated_values, turned


def test_turned_vectors_keep_norms_and_angle_and_lie_in_the_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 6, 10, generator=generator)
    b[0] = -2 * a[0]  # also where they are parallel
    frame = random_frames(6, 1, 10, np.random.default_rng(0))[:, 0]
    c, d = turned(frame, a, b)
    torch.testing.assert_close(c.norm(dim=1), a.norm(dim=1))
    torch.testing.assert_close(d.norm(dim=1), b.norm(dim=1))
    torch.testing.assert_close((c * d).sum(1), (a * b).sum(1), rtol=1e-4, atol=1e-4)
    inside = (d[:, None] @ frame.transpose(1, 2)) @ frame
    torch.testing.assert_close(inside[:, 0], d, rtol=1e-4, atol=1e-4)


def test_the_rotated_pair_together_writes_what_the_pair_writes() -> None:
    generator = torch.Generator().manual_seed(1)
    writes = torch.randn(2, 10, generator=generator, dtype=torch.float64)
    values = torch.rand(2, 6, generator=generator, dtype=torch.float64) + 0.1
    strengths = values * writes.norm(dim=1)[:, None]
    angle = 6 * torch.rand(6, generator=generator, dtype=torch.float64)
    without_b, without_a = rotated_values((values[0], values[1]), (strengths[0], strengths[1]), angle)

    def written(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a[:, None] * writes[0] + b[:, None] * writes[1]

    # What is left without B' is A', and the other way round: they share out the whole.
    torch.testing.assert_close(written(*without_b) + written(*without_a), written(values[0], values[1]))
    assert (written(*without_b) - written(values[0], 0 * values[1])).norm(dim=1).min() > 0.01
    zero = rotated_values((values[0], values[1]), (strengths[0], strengths[1]), 0 * angle)
    torch.testing.assert_close(zero[0][0], values[0])
    torch.testing.assert_close(zero[0][1], 0 * values[1])
