"""What the primary part of the joint metric costs: pairs edited in contexts, at the size of the quickstart.

Models are as initialised and their text is made up by Zipf's law: neither changes how much there is to compute.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import models
from harness.corpus.packing import COLUMNS, Packed, save_split
from harness.corpus.stored import PackedSplit
from harness.metrics.joint import primary
from harness.metrics.joint.options import Options
from harness.systems.cost import Cost
from harness.systems.evaluation import Evaluation
from harness.systems.system import Encoded, Site, System

log = logging.getLogger(__name__)

SUBJECTS: dict[str, dict[str, int]] = {"dense": {}, "peer": {"n_experts": 4096, "heads": 4, "k": 8}}


@dataclass(frozen=True)
class EditSize:
    """The quickstart's model, text and evaluation; and how many pairs are tried in how many contexts."""

    pairs: int = 200
    contexts: int = 100
    d_model: int = 128
    n_layers: int = 4
    sequences: int = 192
    length: int = 256
    vocab_size: int = 2048


@dataclass(frozen=True)
class EditTime:
    """pairs: of those edited, how many the headline figures are of (within a layer, the last apart)."""

    subject: str
    pairs: int
    seconds: float


def measure(size: EditSize) -> list[EditTime]:
    """Of every subject in SUBJECTS, from its text to its figures."""
    found = []
    for name, settings in SUBJECTS.items():
        torch.manual_seed(0)
        model = models.build(
            name,
            d_model=size.d_model,
            n_layers=size.n_layers,
            n_heads=max(1, size.d_model // 32),
            vocab_size=size.vocab_size,
            max_position_embeddings=size.length,
            **settings,
        ).eval()
        options = Options(pairs=size.pairs, contexts=size.contexts)
        with tempfile.TemporaryDirectory() as folder:
            evaluation = _evaluation(System(name, model, None), size, Path(folder))
            clock = time.perf_counter()
            measured = primary.measure(evaluation, options, np.random.default_rng(0))
        seconds = time.perf_counter() - clock
        pairs = next(int(m.value) for m in measured if m.name == "joint/pairs")
        found.append(EditTime(name, pairs, seconds))
        log.info("joint, edits, %s: %.1f s", name, seconds)
    return found


def _evaluation(system: System, size: EditSize, folder: Path) -> Evaluation:
    def load_codes(_site: Site) -> Encoded:
        raise AssertionError("the edits read the text themselves")

    return Evaluation(
        system=system,
        split=_made_up(size, 0, folder / "eval"),
        dev=_made_up(size, 1, folder / "dev"),
        sequences=size.sequences,
        codes_sequences=size.sequences,
        batch_sequences=16,
        resamples=1000,
        load_codes=load_codes,
        cost=Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1),
        artifacts=folder,
    )


def _made_up(size: EditSize, seed: int, folder: Path) -> PackedSplit:
    """Tokens by Zipf's law, a document a sequence, written to `folder` as a corpus is."""
    import datasets

    weights = 1 / np.arange(1, size.vocab_size + 1)
    shape = (size.sequences, size.length)
    columns = {
        "input_ids": np.random.default_rng(seed).choice(size.vocab_size, shape, p=weights / weights.sum()),
        "document": np.broadcast_to(np.arange(size.sequences)[:, None], shape),
        "domain": np.zeros(shape),
        "n_bytes": np.ones(shape),
        "ply": np.full(shape, -1),
    }
    typed = {name: columns[name].astype(kind) for name, kind in COLUMNS.items()}
    save_split(Packed(typed, [size.length] * size.sequences, 0), folder, f"made up {seed}")
    return PackedSplit(datasets.Dataset.load_from_disk(str(folder)), size.length)
