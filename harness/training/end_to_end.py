"""Training dictionaries end to end: for what the model computes through them, not for the activations themselves.

The loss is KL(native ‖ spliced), the mean over tokens in nats, of the model as it is and the model with all
dictionaries of a row in place of what they read, their error dropped (Braun et al. 2024, arXiv 2405.12241, one layer;
several layers trained at once is ours). This is the cross entropy that a student of the native model would be trained
on: the opponent of an expert model trained on cross entropy. Auxiliary losses and penalties are added as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from harness.systems.collecting import native_run, watched
from harness.systems.system import Site
from saes.activations import Activations, ActivationStream
from saes.learner import Learner
from saes.training_dictionary import StepResult

if TYPE_CHECKING:
    from harness.corpus import Batch, PackedSplit
    from models.subject import Subject

# Forward passes of the subject that a token costs: one native, one spliced, and the backward pass through it, which has
# no gradients of weights to form. Layers before the first site need none: this is what training all layers takes.
FORWARD_PASSES = 3


@dataclass(frozen=True)
class NativeBatch:
    """Whole sequences, and the native model's log-probabilities on them `[tokens, vocabulary]`."""

    batch: Batch
    log_p: Tensor

    @property
    def n_tokens(self) -> int:
        return self.log_p.shape[0]


@dataclass(frozen=True)
class NativeStream:
    """The sequences of an activation stream in the same order, whole, with what the native model says to them.

    Resumes like it. A batch holds as many sequences as fit into the stream's `batch_tokens`, and at least one. Raises
    ValueError naming site and token at an activation that is not finite.
    """

    stream: ActivationStream
    model: Subject
    split: PackedSplit
    sites: frozenset[Site]

    def chunk(self, index: int) -> Activations:
        return self.stream.chunk(index)

    def batches(self, chunk: int = 0, batch: int = 0) -> Iterator[tuple[int, int, NativeBatch]]:
        together = max(1, self.stream.batch_tokens // self.stream.sequence_tokens)
        while True:
            for index, sequences in enumerate(self.stream.sequences(chunk).split(together)):
                if index >= batch:
                    yield chunk, index, self._run(sequences)
            chunk, batch = chunk + 1, 0

    def _run(self, sequences: Tensor) -> NativeBatch:
        batch = self.split.batch(sequences).to(self.model.device)
        activations, logits = native_run(self.model, batch, sequences, self.sites)
        activations.check_finite()
        return NativeBatch(batch, logits.float().log_softmax(-1).flatten(0, 1))


class EndToEnd:
    """The objective (see `saes.trainer.Objective`). rows: names of the learners that are spliced in together."""

    def __init__(self, model: Subject, rows: Sequence[Sequence[str]]) -> None:
        self.model, self.rows = model.requires_grad_(False), rows

    def __call__(self, learners: Mapping[str, Learner], native: NativeBatch) -> Iterator[tuple[str, StepResult]]:
        for names in self.rows:
            results: dict[Site, StepResult] = {}
            at = {cast(Site, learners[name].site): name for name in names}
            with self._spliced({site: learners[name] for site, name in at.items()}, results):
                logits = self.model(native.batch.input_ids, use_cache=False).logits
            log_p = logits.float().log_softmax(-1).flatten(0, 1)
            kl = (native.log_p.exp() * (native.log_p - log_p)).sum(1).mean()
            loss = kl + torch.stack([result.beside for result in results.values()]).sum()
            for site, result in results.items():
                yield at[site], replace(result, loss=loss)
                loss = loss.detach()  # one backward pass teaches all: the others carry only its value

    @contextlib.contextmanager
    def _spliced(self, learners: Mapping[Site, Learner], results: dict[Site, StepResult]) -> Iterator[None]:
        """While the block runs, the sites' outputs are what the dictionaries in training make of their inputs."""
        system = watched(self.model, learners)
        seen: dict[Site, Tensor] = {}

        def see(site: Site, x: Tensor, _y: Tensor) -> None:
            seen[site] = x

        def write(site: Site, y: Tensor) -> Tensor:
            learner = learners[site]
            x = learner.x(seen.pop(site).flatten(0, 1))
            target = x if site.point != "mlp" else learner.target(y.flatten(0, 1))
            results[site] = learner.module.step(x, target)
            return learner.target.undo(results[site].output).view_as(y)

        # Hooks run in the order in which they were set: what a site reads is seen before its output is replaced.
        with system.watching(see), system.replacing({site: partial(write, site) for site in learners}):
            yield
