"""What is noted while a subject trains: the curve, progress, complete checkpoints; and when to stop."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from harness.base.errors import Diverged, HarnessError
from harness.base.progress import Report
from harness.base.stop import STOP
from harness.training.objective import Objective
from harness.training.probe import UsageProbe, probe_every

log = logging.getLogger(__name__)

MARK = "complete.json"  # written last into a checkpoint: without it the checkpoint was cut off while being written


class Curve:
    """Rows of `curve.jsonl`. Of an earlier process those up to `step`, from which this one continues, stay."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        found = path.read_text().splitlines(keepends=True) if path.exists() else []
        # A killed run may have left half a line at the end.
        kept = [line for line in found if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.write_text("".join(kept))

    def append(self, step: int, tokens: int, values: dict[str, float]) -> None:
        row = {"step": step, "tokens": tokens, **values}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")


@dataclass(frozen=True)
class Before:
    """What an earlier process came to: its last complete checkpoint, and step, seconds, CPU seconds and tokens until
    then."""

    checkpoint: Path | None = None
    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: int = 0

    @staticmethod
    def found(checkpoints: Path, objective: Objective, probe: UsageProbe, steps: int) -> Before:
        """Restores the objective's weight and the probe too."""
        checkpoint = _last_complete(checkpoints)
        if checkpoint is None:
            return Before()
        state = json.loads((checkpoint / MARK).read_text())
        objective.mu = state["mu"]
        probe.load(checkpoint)
        log.info("continuing from step %d of %d", state["step"], steps)
        step = int(checkpoint.name.split("-")[1])
        return Before(checkpoint, step, state["seconds"], state["cpu_seconds"], state["tokens"])


def _last_complete(checkpoints: Path) -> Path | None:
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for folder in found:
        try:
            json.loads((folder / MARK).read_text())
            return folder
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
    return None


class Watcher(TrainerCallback):
    """Writes the curve, reports progress, marks complete checkpoints, stops on SIGTERM or a loss that is not finite.

    tokens: what went through the model so far, counted as it goes in; of_all: what will have at the end.
    """

    def __init__(
        self,
        curve: Path,
        report: Report,
        steps: int,
        of_all: int,
        before: Before,
        objective: Objective,
        probe: UsageProbe,
    ) -> None:
        self.curve, self.report, self.steps = Curve(curve, before.step), report, steps
        self.tokens, self.of_all = before.tokens, of_all
        self.clipped = False
        self.objective, self.probe = objective, probe
        self.sums: dict[str, torch.Tensor] = {}  # terms of the loss since the last row; a checkpoint is made at a row
        self.noted = 0
        self.seconds_before, self.started = before.seconds, time.monotonic()
        self.cpu_seconds_before, self.cpu_started = before.cpu_seconds, time.process_time()
        self.stopped, self.step, self.last_loss = False, 0, math.nan
        self._since: tuple[float, int] | None = None

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def cpu_seconds(self) -> float:
        """Of all threads of the process."""
        return self.cpu_seconds_before + time.process_time() - self.cpu_started

    def took(self) -> dict[str, Any]:
        """What the record of a training that came to its end says of tokens and time."""
        seconds = self.seconds()
        return {
            "tokens": self.tokens,
            "steps": self.steps,
            "seconds": seconds,
            "cpu_seconds": self.cpu_seconds(),
            "tokens_per_second": self.tokens / seconds,
        }

    def note(self, terms: dict[str, torch.Tensor], tokens: int) -> None:
        self.noted += 1
        self.tokens += tokens
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term if name in self.sums else term

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.step = state.global_step
        if not self.clipped:
            raise HarnessError(
                f"transformers {transformers.__version__} no longer clips gradients where this harness replaces it: "
                "install the version that constraints.txt names"
            )
        self.clipped = False
        self.report(self.tokens, self.of_all, "tokens")
        # Only from a point of the curve can training continue on the same curve: a few more steps until the next.
        if STOP.requested and self.step < self.steps and self.step % args.logging_steps == 0:
            self.stopped = control.should_training_stop = control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        now = time.monotonic()
        terms = self._means()
        loss = terms.pop("cross_entropy")
        values = {"loss": loss, "lr": float(logs["learning_rate"]), "gradient_norm": float(logs["grad_norm"])}
        if terms.keys() != {"objective"}:  # else it is the cross entropy
            values |= terms
        if self._since:
            before, tokens = self._since
            values["tokens_per_second"] = (self.tokens - tokens) / (now - before)
        self._since = (now, self.tokens)
        self.last_loss = loss
        finite = math.isfinite(terms["objective"])
        if finite and state.global_step % probe_every(self.steps, int(args.logging_steps)) == 0:
            values |= self.probe.measure(kwargs["model"])
        self.curve.append(state.global_step, self.tokens, values)
        self._check(terms["objective"])

    def _means(self) -> dict[str, float]:
        """Of the terms since the last row."""
        means = {name: float(total) / self.noted for name, total in self.sums.items()}
        self.sums, self.noted = {}, 0
        return means

    def _check(self, objective: float) -> None:
        if not math.isfinite(objective):
            says = f"the training loss became {objective} at step {self.step}: lower the learning rates"
            raise Diverged(says, self.tokens)

    def check_rest(self) -> None:
        """At the end: the steps after the last row, which are all where a training has fewer than a row's."""
        if self.noted:
            terms = self._means()
            self._check(terms["objective"])
            if math.isnan(self.last_loss):
                self.last_loss = terms["cross_entropy"]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self.probe.save(folder)
        mark = {
            "step": state.global_step,
            "seconds": self.seconds(),
            "cpu_seconds": self.cpu_seconds(),
            "tokens": self.tokens,
            "mu": self.objective.mu,
        }
        (folder / MARK).write_text(json.dumps(mark))
