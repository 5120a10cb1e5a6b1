"""Code or composition? What a unit says where its partner is silent, looked for where both fire.

"animal" and "barks" both fire on a dog: each still says there what it says alone (composition). Where A alone says dog,
B alone says cat, and both together say bird, neither does: dog is lost (code). A conjunction cannot tell the two apart,
since both make something likelier than either unit does. [U: ours]

A unit's *core* is what it makes likelier alone: the outcomes whose probability rises at least three quarters as much as
that of the one that rises most, on average over contexts where the partner is silent. How far the core moves is read on
logits against the median outcome, so that the partner's own say does not push it down through the softmax.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from torch import Tensor

CORE = 0.75  # of the largest rise
KEPT = 0.5  # of what the cores move alone: less than that is lost


def core(rise: Tensor) -> Tensor:
    """Boolean, of the mean rise of probabilities `[..., outcomes]`; all false where nothing rises."""
    most = rise.amax(-1, keepdim=True)
    return (rise >= CORE * most) & (most > 0)


def moved(on: Tensor, off: Tensor, of: Tensor) -> Tensor:
    """Mean over the outcomes `of` (boolean) of how far logits move from `off` to `on`, less the median outcome's move.
    All `[contexts, outcomes]`, the result `[contexts]` in nats, float64."""
    change = on.double() - off
    change = change - change.median(-1, keepdim=True).values
    return (change * of).sum(-1) / of.sum(-1).clamp_min(1)


def kept(together: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Of what the cores of a pair's units move alone, how much moves where both fire: the mean over units.

    together `[pairs, contexts, units]`, alone `[pairs, units]`, nats. `[pairs, contexts]`; nan where one of the units
    raises nothing alone.
    """
    says = alone > 0
    shares = together / np.where(says, alone, np.nan)[:, None]
    return shares.mean(-1)


def lost(shares: np.ndarray) -> np.ndarray:
    """One-sided p-values `[pairs]` of `kept` `[pairs, contexts]`: is less than KEPT of the meaning left where both
    fire? A t-test over contexts; nan where `kept` is."""
    left = shares - KEPT
    error = left.std(1, ddof=1) / np.sqrt(left.shape[1])
    return np.asarray(stats.t.cdf(left.mean(1) / np.maximum(error, 1e-12), left.shape[1] - 1))
