"""How much the supporting part looks at. Apart, so that reading options imports no estimator."""

from __future__ import annotations

from pydantic import Field

from harness.base.settings import Strict


class SupportingOptions(Strict):
    """What the codes alone show of a system: pairs and groups drawn on dev, figures on the stored codes of eval."""

    pairs: int = Field(default=120, ge=2, description="Pairs drawn in proportion to co-activation, over all sites.")
    groups: int = Field(default=120, ge=2, description="Groups drawn from units that fire on one token.")
    group_size: int = Field(default=4, ge=2, le=10, description="Units of a group.")
    least: int = Field(default=10, ge=1, description="Meetings below which a pair is pruned and no pair is drawn.")
    most: float = Field(default=0.5, gt=0, le=1, description="Units that fire on more than this share are left out.")
    bins: int = Field(default=3, ge=1, description="Quantile bins of a unit's values.")
    draws: int = Field(default=10, ge=2, description="Draws of the null that information stands against.")
    outcomes: int = Field(default=64, ge=2, description="Next tokens told apart: the commonest, and all others as one.")
    contexts: int = Field(default=1024, ge=16, description="Contexts of a pair, half of them of neither, at most.")
    rank: int = Field(default=8, ge=1, description="Of the factorisation machine.")
    epochs: int = Field(default=12, ge=1, description="Of a readout, at most.")
    dev_sequences: int = Field(default=128, ge=1, description="Dev sequences that readouts are fitted on (at most).")
