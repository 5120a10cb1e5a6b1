"""Training the dictionaries of one subject: one pass of the subject for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from harness.base.errors import HarnessError, Interrupted
from harness.base.progress import Report
from harness.base.stop import STOP
from harness.systems.collecting import collect, collect_text
from harness.systems.system import Site
from harness.training import trained_on
from harness.training.attaching import attached
from harness.training.dictionary_record import DictionaryRecord, SiteOutcome
from harness.training.end_to_end import FORWARD_PASSES, EndToEnd, NativeStream
from kernels import dispatch
from kernels.codes import ReadWrite
from saes import stored
from saes.activations import Activations
from saes.dictionary import Dictionary
from saes.pretrained import Pretrained
from saes.quality import at_inference
from saes.trained import CurveRow, Trained
from saes.trainer import Assignment, Batches, LearnerObjective, TrainSettings, train
from saes.training_dictionary import DictionaryConfig

if TYPE_CHECKING:
    from harness.corpus import PackedSplit
    from models.subject import Subject

HELD_OUT_SEQUENCES = 128


@dataclass(frozen=True)
class Job:
    """The dictionaries of one row: the same configuration at each of its sites, written into `folder`."""

    config: DictionaryConfig
    sites: tuple[Site, ...]
    folder: Path


def train_dictionaries(
    jobs: Mapping[str, Job],
    model: Subject,
    split: PackedSplit,
    held_out: PackedSplit,
    settings: TrainSettings,
    *,
    scratch: Path,
    report: Report,
) -> None:
    """Trains every job's dictionaries from one pass of `model` over `split`, into `folder/<site>/`.

    With the objective end_to_end the dictionaries of a job are trained together (end_to_end.py), and each job
    runs the subject once more per batch.

    held_out: sequences of it (dev) on which thresholds are set and convergence is judged.
    scratch: holds checkpoints; a call that finds them continues. Raises Interrupted on SIGTERM, HarnessError when an
    activation or a loss is not finite.
    """
    assignments = {f"{name}@{site}": Assignment(site, job.config) for name, job in jobs.items() for site in job.sites}
    wanted = {assignment.site for assignment in assignments.values()}

    def of_training(indices: Tensor) -> Activations:
        return collect(model, split, indices, cast(set[Site], wanted))

    def on_step(_name: str, row: CurveRow) -> None:
        report(row.tokens, settings.train_tokens, "tokens")
        if STOP.requested:
            raise Interrupted("stopped while training dictionaries; run the same command to continue")

    flops = float(model.forward_flops_per_token(split.length))
    stream: Batches = settings.stream(of_training, len(split), split.length)
    objective: LearnerObjective | None = None
    if settings.objective == "end_to_end":
        stream = NativeStream(stream, model, split, frozenset(cast(set[Site], wanted)))
        objective = EndToEnd(model, [[f"{name}@{site}" for site in job.sites] for name, job in jobs.items()])
        flops *= FORWARD_PASSES
    STOP.training = True
    try:
        with dispatch.recording() as kernels:
            trained = train(
                assignments,
                stream,
                settings,
                scratch,
                on_step=on_step,
                subject_flops_per_token=flops,
                held_out=lambda: collect_text(model, held_out, _held_out(held_out), cast(set[Site], wanted)),
                objective=objective,
            )
    except ValueError as error:
        raise HarnessError(str(error)) from error
    finally:
        STOP.training = False
    subject = trained_on.fingerprint(model)
    for name, job in jobs.items():
        done = {site: trained[f"{name}@{site}"] for site in job.sites}
        _keep(job, done, subject)
        _record(job, done, settings, dict(kernels)).save(job.folder)


def _keep(job: Job, done: Mapping[Site, Trained], subject: str) -> None:
    """From where they were trained into the folder of the job."""
    for site, result in done.items():
        target = job.folder / str(site)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(result.folder, target)
        trained_on.note(target, subject, site)


def _record(
    job: Job, done: Mapping[Site, Trained], settings: TrainSettings, kernels: dict[str, str]
) -> DictionaryRecord:
    first = next(iter(done.values()))
    return DictionaryRecord(
        objective=settings.objective,
        target_l0=job.config.k,
        sites={str(site): SiteOutcome.of(result) for site, result in done.items()},
        tokens=first.tokens,
        parameters=sum(r.dictionary.parameter_count() for r in done.values()),
        active_parameters=sum(r.dictionary.active_parameters(job.config.k) for r in done.values()),
        forward_flops_per_token=sum(r.dictionary.flops_per_token(job.config.k) for r in done.values()),
        training_flops=sum(r.training_flops for r in done.values()),
        collecting_flops=first.collecting_flops,
        seconds=sum(r.seconds for r in done.values()) + first.collecting_seconds,
        cpu_seconds=sum(r.cpu_seconds for r in done.values()) + first.collecting_cpu_seconds,
        kernels=kernels,
    )


def import_dictionaries(
    source: Pretrained, sites: tuple[Site, ...], folder: Path, model: Subject, held_out: PackedSplit
) -> None:
    """Copies dictionaries that others trained into `folder/<site>/`, as `train_dictionaries` leaves its own, and
    measures them on the same held-out tokens.

    Raises HarnessError when a width differs from the subject's, a folder holds no dictionary, one that was trained here
    was trained on another subject, or what TransformerLens had changed in its model cannot be allowed for in this one.
    """
    width = model.config.hidden_size
    loaded: dict[Site, Dictionary] = {}
    subject = trained_on.fingerprint(model)
    try:
        with dispatch.recording() as kernels:
            for site in sites:
                loaded[site] = source.load(site.layer, width)
                few = held_out.batch(torch.arange(min(2, len(held_out)))).to(model.device).input_ids
                loaded[site] = attached(loaded[site], source.claims(site.layer), model, site, few)
                if why := trained_on.mismatch(loaded[site], subject, site):
                    raise ValueError(f"the dictionary for layer {site.layer} does not belong here: {why}")
                loaded[site].save(folder / str(site))
            activations = collect_text(model, held_out, _held_out(held_out), sites)
            activations.check_finite()
            quality = {
                site: at_inference(dictionary.to(model.device), *activations.sites[site], batch=2048)
                for site, dictionary in loaded.items()
            }
    except (ValueError, OSError) as error:
        raise HarnessError(f"{source.name}: {error}") from error
    DictionaryRecord(
        objective="pretrained",
        target_l0=None,
        sites={str(site): SiteOutcome(None, None, found) for site, found in quality.items()},
        tokens=0,
        parameters=sum(dictionary.parameter_count() for dictionary in loaded.values()),
        active_parameters=sum(loaded[site].active_parameters(found.l0) for site, found in quality.items()),
        forward_flops_per_token=sum(loaded[site].flops_per_token(found.l0) for site, found in quality.items()),
        training_flops=0.0,
        collecting_flops=0.0,
        seconds=0.0,
        cpu_seconds=0.0,
        kernels=dict(kernels),
        of_source=tuple(dict.fromkeys(note for site in sites for note in source.notes_on(site.layer))),
    ).save(folder)


def _held_out(split: PackedSplit) -> Tensor:
    return torch.arange(min(HELD_OUT_SEQUENCES, len(split)))


def load_dictionaries(folder: Path, sites: tuple[Site, ...], device: str) -> dict[Site, ReadWrite]:
    return {site: stored.load(folder / str(site)).to(device) for site in sites}
