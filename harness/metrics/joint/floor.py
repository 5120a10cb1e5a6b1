"""The floor: what the excess is of random write directions of equal norm in the same contexts.

Whatever runs downstream is not linear, so removing any two vectors adds up only nearly. A pair says something in common
only where it exceeds that.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def random_directions(pairs: int, draws: int, d_model: int, rng: np.random.Generator) -> Tensor:
    """Unit vectors `[pairs, draws, 2, d_model]`, uniform on the sphere: one a unit of each pair and draw, the same in
    all of its contexts, as a unit writes one direction."""
    vectors = torch.from_numpy(rng.standard_normal((pairs, draws, 2, d_model)).astype(np.float32))
    return vectors / vectors.norm(dim=-1, keepdim=True)


def rotated_values(
    value: tuple[Tensor, Tensor], strength: tuple[Tensor, Tensor], angle: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The control "units rotated at random": the pair turned by an angle in the plane of what its two units write.

    In units of strength A' = cos·A + sin·B and B' = −sin·A + cos·B; both together, and both off, are what they were, and
    only how the two share it differs. Returns the values (of A, of B) that take B' away, and those that take A' away;
    all `[contexts]`.
    """
    (a, b), (s, t) = value, strength
    cos, sin = angle.cos(), angle.sin()
    turned_a, turned_b = cos * s + sin * t, -sin * s + cos * t
    without_b = (a * (1 + sin * turned_b / s), b * (1 - cos * turned_b / t))
    without_a = (a * (1 - cos * turned_a / s), b * (1 - sin * turned_a / t))
    return without_b, without_a
