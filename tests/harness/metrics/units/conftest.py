"""A world of six documents in which it is known by hand where every unit fires.

Each document is a sequence of its own: an end-of-text token, then 99 words, w1 to w9 in turn. Units fire in the first
half of a document only, so the second is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import models
from harness.corpus import Document
from harness.metrics.units.describe import Wanted, describe
from harness.metrics.units.left import Left
from harness.metrics.units.reports import UnitReports
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System
from kernels.codes import Codes

DOCUMENTS, LENGTH, HALF, UNITS = 6, 100, 50, 8


def word(position: int) -> int:
    return 0 if position == 0 else 1 + (position - 1) % 9


def strengths(site: int, unit: int, document: int, position: int) -> float:
    """What is planted. A: site 0, unit 2, on w3, stronger in later documents. B: site 0, unit 5, on w3 of even ones
    and on w4. C: site 1, unit 1, where A fires in the first half of the documents. D: site 1, unit 7, twice."""
    if position >= HALF:
        return 0.0
    on = word(position)
    if (site, unit) == (0, 2):
        return float(on == 3) * (1 + document)
    if (site, unit) == (0, 5):
        return float((on == 3 and document % 2 == 0) or on == 4)
    if (site, unit) == (1, 1):
        return float(on == 3 and document < 3)
    return float((site, unit, document) == (1, 7, 4) and position in (10, 20))


@dataclass
class World:
    """documents: how many there are. order: new number of every unit. seen: what Evaluation.document gives."""

    documents: int = DOCUMENTS
    order: Sequence[int] = tuple(range(UNITS))
    domains: bool = True
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = models.build(
            "dense", d_model=16, n_layers=2, n_heads=2, d_ff=UNITS, vocab_size=10, max_position_embeddings=LENGTH
        ).eval()
        for layer in self.model.feed_forwards():
            w_in, w_out = layer.w_in.weight.data.clone(), layer.w_out.weight.data.clone()
            layer.w_in.weight.data[list(self.order)] = w_in
            layer.w_out.weight.data[:, list(self.order)] = w_out

    def codes(self, site: Site) -> Encoded:
        dense = torch.zeros(self.documents * LENGTH, UNITS)
        for token in range(len(dense)):
            for unit in range(UNITS):
                dense[token, self.order[unit]] = strengths(site.layer, unit, *divmod(token, LENGTH))
        rows = torch.stack([torch.arange(len(dense)) // LENGTH, torch.arange(len(dense)) % LENGTH], 1)
        codes = Codes.from_dense(dense, rows)
        return Encoded(codes, codes.values)

    def evaluation(self) -> Evaluation:
        ids = torch.tensor([word(position) for position in range(LENGTH)]).expand(self.documents, -1)

        class Split:
            length = LENGTH

            def __len__(self) -> int:
                return len(ids)

            def batch(self, indices: torch.Tensor) -> Any:
                made = SimpleNamespace(input_ids=ids[indices], document=indices[:, None].expand(-1, LENGTH))
                made.to = lambda device: made
                return made

        def name(token: int) -> str:
            return f"w{token}" if token else "<end>"

        tokenizer = SimpleNamespace(
            convert_ids_to_tokens=name, decode=lambda ids: name(ids[0]), all_special_ids=[0], eos_token_id=0
        )
        return Evaluation(
            system=System("world", self.model, None),
            split=cast(Any, Split()),
            dev=cast(Any, Split()),
            sequences=len(ids),
            codes_sequences=len(ids),
            batch_sequences=4,
            resamples=100,
            load_codes=self.codes,
            cost=cast(Any, None),
            tokenizer=cast(Any, tokenizer),
            document=(lambda row: Document(str(row), "late" if row > 3 else "early", "", "")) if self.domains else None,
        )

    def reports(self, left: Left | None = None, a_site: int = UNITS, strongest: int = 4) -> UnitReports:
        wanted, nothing = Wanted(a_site, strongest), Left({}, ())
        return describe(self.evaluation(), wanted, left or nothing, 3, lambda *_: None)


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    """`World`, for tests that cannot import this file."""
    return World


@pytest.fixture(scope="session")
def reports() -> UnitReports:
    return World().reports()
