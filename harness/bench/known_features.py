"""What benches on data with known features share: rows of kinds, the split of the data, and training them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import saes
from harness.base.errors import BadInput, HarnessError, Interrupted
from harness.base.progress import stage_progress
from harness.base.row_name import RowName
from harness.base.stop import STOP
from saes.activations import Collect
from saes.trained import CurveRow, Trained
from saes.trainer import Assignment, TrainSettings, train
from saes.training_dictionary import DictionaryConfig


@dataclass(frozen=True)
class Split:
    """Numbers of sequences, none of them in two parts: `0 … trained_on − 1` are trained on, thresholds are set on
    `calibration`, scores are of `fresh`."""

    trained_on: int
    calibration: Tensor
    fresh: Tensor

    @staticmethod
    def of(train_tokens: int, calibrated: int, tested: int, sequence_tokens: int) -> Split:
        """So many tokens of each."""
        trained_on = -(-train_tokens // sequence_tokens)
        fresh = trained_on + calibrated // sequence_tokens
        return Split(
            trained_on, torch.arange(trained_on, fresh), torch.arange(fresh, fresh + tested // sequence_tokens)
        )


def config_of(row: str, **shared: Any) -> DictionaryConfig:
    """The configuration of a row `kind[option=value,...]`: what is in brackets, and what all rows share. Raises
    BadInput where the kind is unknown or the options cannot be."""
    part = RowName.of(row).subject
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in part.settings.items()}
    try:
        return saes.DICTIONARIES.named(part.name)(**shared, **cast(Any, options))
    except (TypeError, ValueError) as error:
        raise BadInput(f"{row}: {error}") from error


def train_all(
    assignments: Mapping[str, Assignment],
    settings: TrainSettings,
    collect: Collect,
    split: Split,
    sequence_tokens: int,
    work: Path,
    label: str,
    when_stopped: str,
) -> dict[str, Trained]:
    """`saes.trainer.train` with progress, stopped by SIGTERM. Checkpoints and dictionaries go into `work`.

    Raises HarnessError when a loss is not finite or `work` is of other settings, Interrupted (with `when_stopped`) when
    it is stopped.
    """
    with stage_progress(label) as report:

        def on_step(_name: str, row: CurveRow) -> None:
            report(row.tokens, settings.train_tokens, "tokens")
            if STOP.requested:
                raise Interrupted(when_stopped)

        STOP.training = True  # SIGTERM then waits for the checkpoint
        try:
            return train(
                assignments,
                settings.stream(collect, split.trained_on, sequence_tokens),
                settings,
                work,
                on_step=on_step,
                held_out=lambda: collect(split.calibration),
            )
        except ValueError as error:
            raise HarnessError(str(error)) from error
        finally:
            STOP.training = False
