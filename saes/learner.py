"""A dictionary in training with all that belongs to it, and how several learn side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Barrier
from typing import TypeVar

import torch

from saes.quality import Quality
from saes.training_dictionary import DictionaryConfig, Shape, Standardisation, StepResult, TrainingModule

T = TypeVar("T")

# Elements of an encoder up to which a dictionary learns on one core. Its step is a hundred operations too small to
# share: twenty dictionaries of 512 and 2,048 latents on two cores, each on its own, took 0.79 of the time that they
# took one after the other on both. By size alone, so that what is trained beside it does not change a dictionary.
SMALL = 2**19


@dataclass
class Learner:
    """flops, seconds, cpu_seconds: of its own steps, its share where several learn at once. half: quality on held-out
    tokens when half of the budget was spent."""

    site: Hashable
    module: TrainingModule
    optimizer: torch.optim.Optimizer
    lr: float
    x: Standardisation
    target: Standardisation
    flops: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    half: Quality | None = None

    @staticmethod
    def start(
        site: Hashable, config: DictionaryConfig, seed: int, x: Standardisation, target: Standardisation
    ) -> Learner:
        """With weights drawn from the seed and the site: our autoencoders of one width at one site start equal."""
        digest = hashlib.sha256(f"{seed} {site}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        shape = Shape(x.mean.shape[0], target.mean.shape[0], transcoder=config.transcodes)
        module = config.build(shape, generator).to(x.mean.device)
        optimizer = torch.optim.Adam(module.parameters(), lr=config.lr, betas=(0.9, 0.999), fused=True)
        return Learner(site, module, optimizer, config.lr, x, target)

    @property
    def small(self) -> bool:
        return self.x.mean.device.type == "cpu" and self.module.d_in * self.module.config.n_latents <= SMALL

    def backward(self, result: StepResult) -> None:
        if result.loss.requires_grad:
            result.loss.backward()
        self.flops += result.flops

    def update(self, result: StepResult, lr_factor: float) -> None:
        """The optimiser's step, after `backward`."""
        self.module.before_update()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * lr_factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.module.after_update()
        self.module.note_usage(result)


class SideBySide(AbstractContextManager["SideBySide"]):
    """Does something with each of several learners: the small ones at once, each on a thread that computes on one
    core (in torch and in our kernels), then the others one after the other on all cores."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="learner") if threads > 1 else None
        if self._pool is not None:
            all_there = Barrier(threads, timeout=60)  # where no more threads can be had, an error and no endless wait
            for ready in [self._pool.submit(_on_one_core, all_there) for _ in range(threads)]:
                ready.result()
            torch.set_num_threads(threads)  # what a thread sets becomes the default of those that start later

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, learners: Mapping[str, Learner], function: Callable[[str, Learner], T]) -> dict[str, T]:
        """What `function(name, learner)` returns, by name, in the order of `learners`. Raises what it raised first, of
        the small ones before the others."""
        done: dict[str, T] = {}
        if self._pool is not None:
            small = {name: learner for name, learner in learners.items() if learner.small}
            done = dict(zip(small, self._pool.map(function, small.keys(), small.values()), strict=True))
        return {name: done[name] if name in done else function(name, learners[name]) for name in learners}


def _on_one_core(all_there: Barrier) -> None:
    torch.get_num_threads()  # a thread takes over the default when it first asks, so it must have asked before it sets
    torch.set_num_threads(1)
    all_there.wait()
