"""Training of several dictionaries from one pass of the subject.

A loop of our own: SAELens' trainer logs to wandb only, evaluates only when it logs, and forms dense gradients. Ours
can be killed at any moment and goes on to the bit (same machine, same number of threads) from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from saes.activations import Activations
from saes.learner import Learner, SideBySide
from saes.quality import Quality, as_trained, at_inference
from saes.settings import TrainSettings
from saes.stored import load
from saes.trained import CurveRow, Trained
from saes.training_dictionary import DictionaryConfig, Standardisation, StepResult

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.pt"
CURVE_FILE = "curve.jsonl"
RESULT_FILE = "training.json"


@dataclass(frozen=True)
class Assignment:
    """A dictionary to train: at which site of the stream, of which kind."""

    site: Hashable
    config: DictionaryConfig


class TokenBatch(Protocol):
    """What an objective learns from: `Activations`, or something else with a number of tokens."""

    @property
    def n_tokens(self) -> int: ...


class Batches(Protocol):
    """What `train` draws from: `ActivationStream`, or for other objectives anything resumable in the same way."""

    def chunk(self, index: int) -> Activations: ...

    def batches(self, chunk: int = 0, batch: int = 0) -> Iterator[tuple[int, int, TokenBatch]]: ...


# One forward pass of every learner on a batch, for losses that they share; `train` calls backward on each loss as it
# comes and lets all optimisers step at the end. A shared loss is put into one of the results, whole; the others then
# carry one without gradients.
LearnerObjective = Callable[[Mapping[str, Learner], Any], Iterator[tuple[str, StepResult]]]


def train(
    dictionaries: Mapping[str, Assignment],
    stream: Batches,
    settings: TrainSettings,
    work: Path,
    on_step: Callable[[str, CurveRow], None] | None = None,
    subject_flops_per_token: float = 0.0,
    held_out: Callable[[], Activations] | None = None,
    objective: LearnerObjective | None = None,
) -> dict[str, Trained]:
    """Train all `dictionaries` on the same batches and write each into `work/<name>/`.

    `work` keeps one checkpoint for all; a call that finds one goes on from there, and from a finished one returns at
    once. Every `log_every` batches, and at the last, a row per dictionary is appended to `work/<name>/curve.jsonl` and
    given to `on_step`, which may raise to stop training: a checkpoint is written then. After a resume the rows after
    the checkpoint are cut off and come again. Weights are drawn per site: our autoencoders of one width at one site
    start equal, which pairs their comparison. What is trained beside a small dictionary does not change it.

    Without an `objective` every dictionary reconstructs (or predicts) the activations at its site, by itself, and small
    ones learn side by side (`saes.learner`).

    `held_out` gives activations of tokens that are in neither the stream nor an evaluation (16,000 or more), at most
    once a call: thresholds are set on them, and quality is measured on them at half and at full budget. Without it only
    kinds without thresholds can be trained. `work/<name>/training.json` says what training took and gave.

    Raises ValueError when a kind needs held-out activations and there are none, when `work` holds a checkpoint of other
    settings, when a site is not in the stream or has an input and an output and the kind is not a transcoder, or when
    an activation or a loss is not finite.
    """
    if not dictionaries:
        raise ValueError("no dictionary to train")
    for name in dictionaries:
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"{name!r} names a folder: it may not be empty, hold '/' or start with '.'")
    work.mkdir(parents=True, exist_ok=True)
    with SideBySide() as side_by_side:
        run = _Run(dictionaries, stream, settings, work, held_out, side_by_side)
        _steps(run, stream, objective, on_step)
        return run.finish(subject_flops_per_token)


def _steps(
    run: _Run, stream: Batches, objective: LearnerObjective | None, on_step: Callable[[str, CurveRow], None] | None
) -> None:
    settings, work = run.settings, run.work
    previous = time.perf_counter()
    rows_since = run.tokens
    batches = stream.batches(run.chunk, run.batch)
    while run.tokens < settings.train_tokens:
        started, cpu_started = time.perf_counter(), time.process_time()
        chunk, index, batch = next(batches)
        run.collecting_seconds += time.perf_counter() - started
        run.collecting_cpu_seconds += time.process_time() - cpu_started
        # The rate in the middle of the batch: at its beginning that of the first one would be 0, at its end the last's.
        middle = (run.tokens + batch.n_tokens / 2) / max(settings.train_tokens, run.tokens + batch.n_tokens)
        factor = settings.lr_factor(middle)
        results = run.update(objective, batch, factor, run.tokens / settings.train_tokens)
        run.step += 1
        run.tokens += next(iter(results.values())).tokens
        run.chunk, run.batch = chunk, index + 1
        if 2 * run.tokens >= settings.train_tokens:
            run.measure_half()
        last = run.tokens >= settings.train_tokens
        if run.step % settings.log_every == 0 or last:
            now = time.perf_counter()
            speed, previous, rows_since = (run.tokens - rows_since) / (now - previous), now, run.tokens
            rows = {name: run.row(name, result, factor, speed) for name, result in results.items()}
            for name, row in rows.items():
                with (work / name / CURVE_FILE).open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
            try:
                for name, row in rows.items():
                    if on_step is not None:
                        on_step(name, row)
            except BaseException:
                run.save()
                raise
        if run.step % settings.checkpoint_every == 0 or last:
            run.save()


class _Run:
    """State of one call of `train`: what the checkpoint holds."""

    def __init__(
        self,
        dictionaries: Mapping[str, Assignment],
        stream: Batches,
        settings: TrainSettings,
        work: Path,
        held_out: Callable[[], Activations] | None,
        side_by_side: SideBySide,
    ) -> None:
        self.work, self.settings, self.side_by_side = work, settings, side_by_side
        self._held_out = held_out
        self._held_out_activations: Activations | None = None
        self.step = self.tokens = self.chunk = self.batch = 0
        self.collecting_seconds = self.collecting_cpu_seconds = 0.0
        described = {name: (repr(a.site), type(a.config).__name__, repr(a.config)) for name, a in dictionaries.items()}
        self.fingerprint = hashlib.sha256(repr((described, settings)).encode()).hexdigest()
        saved = self._saved()
        # The standardisation is part of the checkpoint; the first chunk is needed to find it, and the widths.
        first = stream.chunk(0) if saved is None else None
        self.learners: dict[str, Learner] = {}
        for name, assignment in dictionaries.items():
            if saved is None:
                assert first is not None
                x, target = _standardisations(first, assignment.site)
                if x is not target and not assignment.config.transcodes:
                    raise ValueError(f"site {assignment.site} has an input and an output: {name} must be a transcoder")
            else:
                x, target = (Standardisation(*saved["dictionaries"][name][key]) for key in ("x", "target"))
            self.learners[name] = Learner.start(assignment.site, assignment.config, settings.seed, x, target)
            if self.learners[name].module.calibrates and held_out is None:
                raise ValueError(f"{name} needs held-out activations to set its thresholds on")
            (work / name).mkdir(exist_ok=True)
        if saved is not None:
            self._restore(saved)
        for name in dictionaries:
            _cut_curve(work / name / CURVE_FILE, self.step)

    def held_out(self, site: Hashable) -> tuple[Tensor, Tensor]:
        """Raw input and target of the held-out tokens at a site; collected once."""
        if self._held_out_activations is None:
            assert self._held_out is not None
            self._held_out_activations = self._held_out()
            self._held_out_activations.check_finite()
        return self._held_out_activations.sites[site]

    def as_trained(self, learner: Learner) -> Quality:
        x, target = self.held_out(learner.site)
        return as_trained(learner.module, x, target, learner.x, learner.target, self.settings.batch_tokens)

    def measure_half(self) -> None:
        todo = {name: learner for name, learner in self.learners.items() if learner.half is None}
        if todo and self._held_out is not None:
            self.held_out(next(iter(todo.values())).site)  # collected here, before several threads ask for it
            for name, quality in self.side_by_side.each(todo, lambda _, learner: self.as_trained(learner)).items():
                self.learners[name].half = quality

    def update(
        self, objective: LearnerObjective | None, batch: Any, factor: float, progress: float
    ) -> dict[str, StepResult]:
        """One optimiser step of every learner."""

        took = dict.fromkeys(self.learners, 0.0)

        def alone(name: str, learner: Learner) -> StepResult:
            started = time.perf_counter()
            learner.module.prepare(progress)
            x, target = batch.sites[learner.site]
            standardised = learner.x(x)
            result = learner.module.step(standardised, standardised if target is x else learner.target(target))
            self._backward(name, result)
            learner.update(result, factor)
            took[name] = time.perf_counter() - started
            return result.without_graph()

        begun, cpu_begun = time.perf_counter(), time.process_time()
        if objective is None:
            results = self.side_by_side.each(self.learners, alone)
        else:
            results = self._jointly(objective, batch, factor, progress, took)
        # Where several learnt at once their times overlap: what passed is shared out in proportion.
        passed, cpu_passed = time.perf_counter() - begun, time.process_time() - cpu_begun
        for name, learner in self.learners.items():
            share = took[name] / sum(took.values())
            learner.seconds += share * passed
            learner.cpu_seconds += share * cpu_passed
        return results

    def _jointly(
        self, objective: LearnerObjective, batch: Any, factor: float, progress: float, took: dict[str, float]
    ) -> dict[str, StepResult]:
        for learner in self.learners.values():
            learner.module.prepare(progress)
        results = {}
        last = time.perf_counter()

        def charge(name: str) -> None:
            nonlocal last
            now = time.perf_counter()
            took[name], last = took[name] + now - last, now

        for name, result in objective(self.learners, batch):
            self._backward(name, result)
            results[name] = result.without_graph()
            charge(name)
        for name, learner in self.learners.items():
            learner.update(results[name], factor)
            charge(name)
        return results

    def _backward(self, name: str, result: StepResult) -> None:
        if not bool(torch.isfinite(result.loss)):
            raise ValueError(f"loss of {name} is {result.loss.item()} at step {self.step + 1}: try a lower lr")
        self.learners[name].backward(result)

    def row(self, name: str, result: StepResult, factor: float, speed: float) -> CurveRow:
        learner = self.learners[name]
        return CurveRow(
            step=self.step,
            tokens=self.tokens,
            loss=float(result.loss),
            explained_variance=1.0 - float(result.reconstruction),
            l0=float(result.l0),
            dead_share=learner.module.dead_share(),
            auxiliary=float(result.auxiliary),
            lr=learner.lr * factor,
            tokens_per_second=speed,
        )

    def save(self) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "step": self.step,
            "tokens": self.tokens,
            "chunk": self.chunk,
            "batch": self.batch,
            "collecting_seconds": self.collecting_seconds,
            "collecting_cpu_seconds": self.collecting_cpu_seconds,
            "dictionaries": {
                name: {
                    "module": learner.module.state_dict(),
                    "optimizer": learner.optimizer.state_dict(),
                    "x": (learner.x.mean, learner.x.scale),
                    "target": (learner.target.mean, learner.target.scale),
                    "flops": learner.flops,
                    "seconds": learner.seconds,
                    "cpu_seconds": learner.cpu_seconds,
                    "half": None if learner.half is None else asdict(learner.half),
                }
                for name, learner in self.learners.items()
            },
        }
        beside = self.work / f".{CHECKPOINT_FILE}"
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.work / CHECKPOINT_FILE)

    def _saved(self) -> dict[str, Any] | None:
        path = self.work / CHECKPOINT_FILE
        if not path.exists():
            return None
        saved = torch.load(path, weights_only=True)
        if saved["fingerprint"] != self.fingerprint:
            raise ValueError(f"{path} was made with other settings or dictionaries; remove it or use another folder")
        return saved

    def _restore(self, saved: dict[str, Any]) -> None:
        self.step, self.tokens = saved["step"], saved["tokens"]
        self.chunk, self.batch = saved["chunk"], saved["batch"]
        self.collecting_seconds = saved["collecting_seconds"]
        self.collecting_cpu_seconds = saved["collecting_cpu_seconds"]
        for name, state in saved["dictionaries"].items():
            learner = self.learners[name]
            learner.module.load_state_dict(state["module"])
            learner.optimizer.load_state_dict(state["optimizer"])
            learner.flops, learner.seconds = state["flops"], state["seconds"]
            learner.cpu_seconds = state["cpu_seconds"]
            learner.half = None if state["half"] is None else Quality(**state["half"])
        log.info("dictionaries in %s: going on from step %d, %d tokens", self.work, self.step, self.tokens)

    def finish(self, subject_flops_per_token: float) -> dict[str, Trained]:
        """Export every dictionary and measure it, or read what an earlier call wrote."""
        missing = [name for name in self.learners if not (self.work / name / RESULT_FILE).exists()]
        if missing and self._held_out is not None:
            self.held_out(self.learners[missing[0]].site)  # as in measure_half

        def one(name: str, learner: Learner) -> Trained:
            return self._finish(name, learner, subject_flops_per_token)

        return self.side_by_side.each(self.learners, one)

    def _finish(self, name: str, learner: Learner, subject_flops_per_token: float) -> Trained:
        folder = self.work / name
        record = folder / RESULT_FILE
        if record.exists():
            saved = json.loads(record.read_text())
            return Trained(load(folder), folder, **saved | {key: _quality(saved[key]) for key in _QUALITIES})
        trained_quality = inference_quality = None
        x, target = (None, None) if self._held_out is None else self.held_out(learner.site)
        # Some selections look at progress: the last step may have been taken in an earlier call.
        learner.module.prepare(1.0)
        dictionary = learner.module.inference(learner.x, learner.target, x)
        dictionary.save(folder)
        if x is not None:
            dictionary = dictionary.to(x.device)  # SAELens' modules are made on the CPU
        if x is not None and target is not None:
            trained_quality = self.as_trained(learner)
            inference_quality = at_inference(dictionary, x, target, self.settings.batch_tokens)
        figures = {
            "tokens": self.tokens,
            "training_flops": learner.flops,
            "collecting_flops": subject_flops_per_token * self.tokens,
            "seconds": learner.seconds,
            "cpu_seconds": learner.cpu_seconds,
            "collecting_seconds": self.collecting_seconds,
            "collecting_cpu_seconds": self.collecting_cpu_seconds,
            "as_trained_half": learner.half,
            "as_trained": trained_quality,
            "at_inference": inference_quality,
        }
        beside = folder / f".{RESULT_FILE}"
        beside.write_text(json.dumps(figures, indent=1, default=asdict))
        os.replace(beside, record)
        return Trained(dictionary, folder, **figures)


_QUALITIES = ("as_trained_half", "as_trained", "at_inference")


def _quality(saved: dict[str, Any] | None) -> Quality | None:
    return None if saved is None else Quality(**saved)


def _standardisations(first: Activations, site: Hashable) -> tuple[Standardisation, Standardisation]:
    if site not in first.sites:
        raise ValueError(f"site {site} is not in the stream, which has {', '.join(map(str, first.sites))}")
    x, target = first.sites[site]
    standardised = Standardisation.of(x)
    return standardised, standardised if target is x else Standardisation.of(target)


def _cut_curve(path: Path, step: int) -> None:
    """Drop rows after `step`, and a last line that a kill cut in two."""
    if not path.exists():
        return
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    kept = [line for line in whole if json.loads(line)["step"] <= step]
    beside = path.with_name(f".{path.name}")
    beside.write_text("".join(kept))
    os.replace(beside, path)
