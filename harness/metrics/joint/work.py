"""What the supporting figures share: the codes on dev and on eval, the pairs drawn, and how a figure is stated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from harness.metrics.joint.firing import Firing
from harness.metrics.joint.options import VERSION, SupportingOptions
from harness.metrics.joint.sampling import Positions
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement
from harness.tables.statistics import document_bootstrap, unit_bootstrap

DOCUMENTS = 6  # of dev, at the least, where readouts are fitted on some and stopped on others


@dataclass
class Work:
    """pairs `[n, 2]` and null draws that keep documents, by site: filled by `together.together`."""

    evaluation: Evaluation
    options: SupportingOptions
    rng: np.random.Generator
    dev_text: Positions
    text: Positions
    dev: dict[Site, Firing]
    test: dict[Site, Firing]
    pairs: dict[Site, np.ndarray] = field(default_factory=dict)
    draws: dict[Site, list[Firing]] = field(default_factory=dict)

    def document_rows(self, documents: np.ndarray) -> np.ndarray:
        """Rows of evaluation.documents."""
        return np.searchsorted(self.evaluation.documents, documents)

    def folds(self, n: int) -> np.ndarray:
        """Number of the fold of every dev token, by document, about equally many documents in each. `[tokens]` int64"""
        found, of_token = np.unique(self.dev_text.document, return_inverse=True)
        return (self.rng.permutation(len(found)) % n)[of_token]

    def none_drawn(self) -> str:
        """Why there is no pair, and what would be needed."""
        least = self.options.least
        best = [np.diff(firing.indptr).max(initial=0) for firing in self.test.values()]
        if max(best, default=0) < 2:
            return "underpowered: no two units fire on the same token"
        return (
            f"underpowered: no pair of units meets {least} times on {self.dev_text.ids.size:,} tokens of dev and "
            f"on {self.text.ids.size:,} of eval"
        )

    def few_documents(self) -> str | None:
        """Why nothing can be fitted and held out, or None where it can."""
        dev, test = (len(np.unique(text.document)) for text in (self.dev_text, self.text))
        if dev >= DOCUMENTS and test >= 2:
            return None
        return f"underpowered: {dev} documents of dev and {test} of eval; at least {DOCUMENTS} and 2 are needed"

    def figure(
        self,
        name: str,
        value: float,
        unit: str,
        reason: str | None = None,
        direction: Direction = "none",
        replicates: np.ndarray | None = None,
        resampled: Literal["documents", "units"] | None = None,
    ) -> Measurement:
        return Measurement(f"joint/{name}", float(value), unit, direction, VERSION, replicates, resampled, reason)

    def by_documents(
        self, name: str, numerator: np.ndarray, denominator: np.ndarray, unit: str, direction: Direction = "none"
    ) -> Measurement:
        """Σ numerator / Σ denominator, both `[documents]` as in evaluation.documents."""
        total = denominator.sum()
        if not total:
            return self.figure(name, np.nan, unit, "underpowered: nothing to measure it on in eval", direction)
        replicates = None
        if (denominator > 0).sum() > 1:  # a single document says nothing of others
            replicates = document_bootstrap(numerator, denominator, self.evaluation.resamples)
        resampled = None if replicates is None else "documents"
        return self.figure(name, numerator.sum() / total, unit, None, direction, replicates, resampled)

    def over_units(self, name: str, values: np.ndarray, unit: str, reason: str | None) -> Measurement:
        """Mean over drawn pairs, which are what is resampled."""
        if not len(values):
            return self.figure(name, np.nan, unit, reason)
        replicates = unit_bootstrap(values, n_resamples=self.evaluation.resamples)
        return self.figure(name, values.mean(), unit, None, "none", replicates, "units")

    def per_meeting(self, name: str, bits: np.ndarray, together: np.ndarray, reason: str | None) -> Measurement:
        """Σ bits / Σ together over pairs or groups, which are what is resampled: fewer distinct documents would raise
        counted information."""
        if not together.sum():
            return self.figure(name, np.nan, "bit/meeting", reason)
        rates = np.divide(bits, together, out=np.zeros(len(bits)), where=together > 0)
        replicates = unit_bootstrap(rates, together, self.evaluation.resamples)
        return self.figure(name, bits.sum() / together.sum(), "bit/meeting", None, "none", replicates, "units")
