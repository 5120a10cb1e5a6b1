"""The floor: the excess of random write directions in the same contexts, of the same norms and at the same angle.

Whatever runs downstream is not linear, so any two vectors add up only nearly. A pair says something in common only
where it exceeds that. The random vectors take the units' place: they are added to the context without the two. (Taken
*away* from it, where they never were, they would lengthen the residual where the units shorten it; with a live norm
that alone set 97% of planted independent pairs apart from their floor. Without the angle, two units that write alike
stand out in the same way.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def random_frames(pairs: int, draws: int, d_model: int, rng: np.random.Generator) -> Tensor:
    """Two orthonormal directions `[pairs, draws, 2, d_model]`, uniform, for each pair and draw: the same in all of the
    pair's contexts, as a unit writes one direction."""
    vectors = torch.from_numpy(rng.standard_normal((pairs, draws, d_model, 2)).astype(np.float32))
    return torch.linalg.qr(vectors).Q.transpose(-1, -2).contiguous()


def turned(frame: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """What two units write, a and b `[contexts, d_model]`, turned as one into the plane of `frame`
    `[contexts, 2, d_model]`: norms and the angle between them stay."""
    size_a, size_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    cosine = ((a * b).sum(-1, keepdim=True) / (size_a * size_b).clamp_min(1e-30)).clamp(-1, 1)
    first, second = frame[:, 0], frame[:, 1]
    return size_a * first, size_b * (cosine * first + (1 - cosine.square()).sqrt() * second)


def rotated_values(
    value: tuple[Tensor, Tensor], strength: tuple[Tensor, Tensor], angle: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The control "units rotated at random": the pair turned by an angle in the plane of what its two units write.

    In units of strength A' = cos·A + sin·B and B' = −sin·A + cos·B; both together, and both off, are what they were,
    and only how the two share it differs. Returns the values (of A, of B) that take B' away, and those that take A'
    away; all `[contexts]`.
    """
    (a, b), (s, t) = value, strength
    cos, sin = angle.cos(), angle.sin()
    turned_a, turned_b = cos * s + sin * t, -sin * s + cos * t
    without_b = (a * (1 + sin * turned_b / s), b * (1 - cos * turned_b / t))
    without_a = (a * (1 - cos * turned_a / s), b * (1 - sin * turned_a / t))
    return without_b, without_a
