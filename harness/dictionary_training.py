"""Training the dictionaries of one subject: one pass of the subject for all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.decomposition import Site, System
from harness.errors import HarnessError, Interrupted
from harness.evaluation import Cost
from harness.progress import Report
from harness.training import STOP
from kernels import dispatch
from kernels.codes import ReadWrite, token_rows
from saes import dictionary as dictionary_files
from saes.activations import Activations
from saes.trainer import CURVE_FILE, Assignment, CurveRow, TrainSettings, train
from saes.training_dictionary import DictionaryConfig

if TYPE_CHECKING:
    from harness.corpus import PackedSplit

RECORD = "dictionaries.json"
HELD_OUT_SEQUENCES = 128


@dataclass(frozen=True)
class DictionaryRecord:
    """What the dictionaries of a row took, summed over its sites; one pass of the subject is charged to the row."""

    tokens: int
    parameters: int
    active_parameters: int
    forward_flops_per_token: float
    training_flops: float
    collecting_flops: float
    seconds: float
    kernels: dict[str, str]

    @staticmethod
    def load(folder: Path) -> DictionaryRecord:
        return DictionaryRecord(**json.loads((folder / RECORD).read_text()))

    def added_to(self, subject: Cost) -> Cost:
        """The whole system: a subject and the dictionaries grafted onto it."""
        return Cost(
            parameters=subject.parameters + self.parameters,
            active_parameters=subject.active_parameters + self.active_parameters,
            forward_flops_per_token=subject.forward_flops_per_token + self.forward_flops_per_token,
            training_flops=subject.training_flops + self.training_flops + self.collecting_flops,
            training_tokens=subject.training_tokens + self.tokens,
            training_seconds=subject.training_seconds + self.seconds,
            peak_memory_bytes=subject.peak_memory_bytes,
        )


@dataclass(frozen=True)
class Job:
    """The dictionaries of one row: the same configuration at each of its sites, written into `folder`."""

    config: DictionaryConfig
    sites: tuple[Site, ...]
    folder: Path


def train_dictionaries(
    jobs: Mapping[str, Job],
    model: PreTrainedModel,
    split: PackedSplit,
    held_out: PackedSplit,
    settings: TrainSettings,
    *,
    scratch: Path,
    report: Report,
) -> None:
    """Trains every job's dictionaries from one pass of `model` over `split`, into `folder/<site>/`.

    held_out: sequences of it (dev) on which thresholds are set and convergence is judged.
    scratch: holds checkpoints; a call that finds them continues. Raises Interrupted on SIGTERM, HarnessError when an
    activation or a loss is not finite.
    """
    assignments = {
        f"{name}@{site}": Assignment(site, job.config) for name, job in jobs.items() for site in job.sites
    }  # fmt: skip
    wanted = {assignment.site for assignment in assignments.values()}

    def collect_from(source: PackedSplit, indices: Tensor) -> Activations:
        return _collect(model, source, indices, cast(set[Site], wanted))

    def on_step(_name: str, row: CurveRow) -> None:
        report(row.tokens, settings.train_tokens, "tokens")
        if STOP.requested:
            raise Interrupted("stopped while training dictionaries; run the same command to continue")

    flops = float(cast(Any, model).forward_flops_per_token(split.length))
    STOP.training = True
    try:
        with dispatch.recording() as kernels:
            trained = train(
                assignments,
                settings.stream(lambda indices: collect_from(split, indices), len(split), split.length),
                settings,
                scratch,
                on_step=on_step,
                subject_flops_per_token=flops,
                held_out=lambda: collect_from(held_out, torch.arange(min(HELD_OUT_SEQUENCES, len(held_out)))),
            )
    except ValueError as error:
        raise HarnessError(str(error)) from error
    finally:
        STOP.training = False
    for name, job in jobs.items():
        done = {site: trained[f"{name}@{site}"] for site in job.sites}
        for site, result in done.items():
            target = job.folder / str(site)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(result.folder, target)
            shutil.copy(scratch / f"{name}@{site}" / CURVE_FILE, target / CURVE_FILE)
        first = next(iter(done.values()))
        record = DictionaryRecord(
            tokens=first.tokens,
            parameters=sum(sum(p.numel() for p in r.dictionary.parameters()) for r in done.values()),
            active_parameters=sum(r.dictionary.active_parameters(job.config.k) for r in done.values()),
            forward_flops_per_token=sum(r.dictionary.flops_per_token(job.config.k) for r in done.values()),
            training_flops=sum(r.training_flops for r in done.values()),
            collecting_flops=first.collecting_flops,
            seconds=sum(r.seconds for r in done.values()) + first.collecting_seconds,
            kernels=dict(kernels),
        )
        (job.folder / RECORD).write_text(json.dumps(asdict(record), indent=1))


def load_dictionaries(folder: Path, sites: tuple[Site, ...], device: str) -> dict[Site, ReadWrite]:
    return {site: dictionary_files.load(folder / str(site)).to(device) for site in sites}


def _collect(model: PreTrainedModel, split: PackedSplit, indices: Tensor, sites: set[Site]) -> Activations:
    """What the sites read and should write on the sequences `indices`, in the order of their tokens."""
    batch = split.batch(indices).to(model.device)
    found: dict[Site, tuple[Tensor, Tensor]] = {}

    def keep(site: Site, x: Tensor, y: Tensor) -> None:
        flat = x.flatten(0, 1)
        found[site] = (flat, flat if y is x else y.flatten(0, 1))

    watched = System("collecting", model, dict.fromkeys(sites, cast(ReadWrite, None)))
    with torch.no_grad(), watched.watching(keep):
        model(batch.input_ids, use_cache=False, logits_to_keep=1)
    positions = torch.arange(split.length)[None]
    rows = token_rows(len(indices), positions)
    rows[:, 0] = indices[rows[:, 0]]
    return Activations(rows.to(model.device), cast(Any, found))
