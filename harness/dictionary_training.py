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

from harness import trained_on
from harness.collecting import collect, collect_text
from harness.cost import Cost
from harness.decomposition import Site
from harness.end_to_end import FORWARD_PASSES, EndToEnd, NativeStream
from harness.errors import HarnessError, Interrupted
from harness.measurement import Direction, Measurement
from harness.progress import Report
from harness.training import STOP
from kernels import dispatch
from kernels.codes import ReadWrite
from saes import stored
from saes.activations import Activations
from saes.dictionary import Dictionary
from saes.pretrained import Pretrained
from saes.quality import Quality, at_inference
from saes.trainer import CURVE_FILE, Assignment, CurveRow, Objective, Trained, TrainSettings, train
from saes.training_dictionary import DictionaryConfig

if TYPE_CHECKING:
    from harness.corpus import PackedSplit

RECORD = "dictionaries.json"
HELD_OUT_SEQUENCES = 128
L0_OFF = 1.25  # a factor between the L0 that was asked for and the one that came out, above which a row says so
VERSION = 2  # of the figures in the family `dictionary`


@dataclass(frozen=True)
class SiteOutcome:
    """How good one dictionary is on held-out tokens of dev: selecting as in training, at half and at full budget (None:
    it was not trained here), and as it is used."""

    half: Quality | None
    as_trained: Quality | None
    at_inference: Quality

    @staticmethod
    def of(trained: Trained) -> SiteOutcome:
        assert trained.at_inference is not None, "the harness always holds tokens out"
        return SiteOutcome(trained.as_trained_half, trained.as_trained, trained.at_inference)


@dataclass(frozen=True)
class DictionaryRecord:
    """What the dictionaries of a row took, summed over its sites, and what came out; one pass of the subject is charged
    to the row. `sites`: by the site's name. `target_l0`: None where nobody set one."""

    objective: str
    target_l0: float | None
    sites: dict[str, SiteOutcome]
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
        saved = json.loads((folder / RECORD).read_text())
        sites = {
            site: SiteOutcome(**{key: cast(Any, found and Quality(**found)) for key, found in outcome.items()})
            for site, outcome in saved["sites"].items()
        }
        return DictionaryRecord(**{**saved, "sites": sites})

    def save(self, folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=1))

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
            trial_flops=subject.trial_flops,
        )

    def measurements(self) -> list[Measurement]:
        """The family `dictionary`: means over the row's sites, on held-out text of dev (intervals, and the same at
        inference on eval, are in `reconstruction`, `sparsity` and `usage`).

        as_trained_*: with the selection of training, over batches; inference_*: each token by itself, with the
        thresholds set on these same tokens. half_budget_explained_variance: as trained, when half of the tokens were
        seen. inference_under_used: see `saes.quality.Quality`. width: latents of a site.
        """
        found: list[Measurement] = []

        def add(name: str, values: list[float | None], unit: str, direction: Direction) -> None:
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                mean = sum(known) / len(known)
                found.append(Measurement(f"dictionary/{name}", mean, unit, direction, VERSION))

        outcomes = list(self.sites.values())
        stages = {
            "half_budget": [outcome.half for outcome in outcomes],
            "as_trained": [outcome.as_trained for outcome in outcomes],
            "inference": [outcome.at_inference for outcome in outcomes],
        }
        for stage, qualities in stages.items():
            add(f"{stage}_explained_variance", [q and q.explained_variance for q in qualities], "", "higher")
        add("target_l0", [self.target_l0], "units/token", "none")
        for stage in ("as_trained", "inference"):
            add(f"{stage}_l0", [q and q.l0 for q in stages[stage]], "units/token", "none")
        for share in ("dead", "under_used"):
            shares = [getattr(outcome.at_inference, f"{share}_share") for outcome in outcomes]
            add(f"inference_{share}", shares, "share of units", "lower")
        add("width", [float(outcome.at_inference.width) for outcome in outcomes], "units", "none")
        add("held_out_tokens", [float(outcomes[0].at_inference.tokens)], "tokens", "none")
        return found

    def curves(self) -> list[str]:
        """Sites whose training left a curve."""
        return [site for site, outcome in self.sites.items() if outcome.as_trained is not None]

    def notes(self) -> list[str]:
        """What a reader of the row must know."""
        found = []
        rising = {
            site: outcome.as_trained.explained_variance - outcome.half.explained_variance
            for site, outcome in self.sites.items()
            if outcome.as_trained is not None
            and outcome.half is not None
            and outcome.as_trained.still_rising(outcome.half)
        }
        if rising:
            most = max(rising, key=lambda site: rising[site])
            where = (
                f" at {most}" if len(self.sites) == 1 else f" at {len(rising)} of {len(self.sites)} sites, most {most}"
            )
            found.append(f"not converged: explained variance +{rising[most]:.3f} in the second half{where}")
        if self.target_l0 is not None:
            reached = {site: outcome.at_inference.l0 for site, outcome in self.sites.items()}
            missed = {site: l0 for site, l0 in reached.items() if _off(l0, self.target_l0) > L0_OFF}
            if missed:
                where = f"at {len(missed)} of {len(reached)} sites, furthest " if len(reached) > 1 else "at "
                furthest = max(missed, key=lambda site: _off(missed[site], cast(float, self.target_l0)))
                found.append(
                    f"target L0 {self.target_l0:g} not reached: {missed[furthest]:.3g} at inference {where}{furthest}"
                )
        worse = {site: o.at_inference.explained_variance for site, o in self.sites.items()}
        if worse and (least := min(worse.values())) < 0:
            sites = [site for site, explained in worse.items() if explained < 0]
            found.append(
                f"worse than writing the mean: explained variance {least:.3f} at inference at {', '.join(sites)}"
            )
        if any(outcome.as_trained is None for outcome in self.sites.values()):
            found.append("pretrained: what training the dictionary took is not counted")
        return found


def _off(l0: float, target: float) -> float:
    """The factor between them, above 1 either way."""
    return max(l0 / target, target / l0) if l0 > 0 else float("inf")


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

    With the objective end_to_end the dictionaries of a job are trained together (`harness.end_to_end`), and each job
    runs the subject once more per batch.

    held_out: sequences of it (dev) on which thresholds are set and convergence is judged.
    scratch: holds checkpoints; a call that finds them continues. Raises Interrupted on SIGTERM, HarnessError when an
    activation or a loss is not finite.
    """
    assignments = {
        f"{name}@{site}": Assignment(site, job.config) for name, job in jobs.items() for site in job.sites
    }  # fmt: skip
    wanted = {assignment.site for assignment in assignments.values()}

    def of_training(indices: Tensor) -> Activations:
        return collect(model, split, indices, cast(set[Site], wanted))

    def on_step(_name: str, row: CurveRow) -> None:
        report(row.tokens, settings.train_tokens, "tokens")
        if STOP.requested:
            raise Interrupted("stopped while training dictionaries; run the same command to continue")

    flops = float(cast(Any, model).forward_flops_per_token(split.length))
    stream: Any = settings.stream(of_training, len(split), split.length)
    objective: Objective | None = None
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
        for site, result in done.items():
            target = job.folder / str(site)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(result.folder, target)
            shutil.copy(scratch / f"{name}@{site}" / CURVE_FILE, target / CURVE_FILE)
            trained_on.note(target, subject, site)
        first = next(iter(done.values()))
        DictionaryRecord(
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
            kernels=dict(kernels),
        ).save(job.folder)


def import_dictionaries(
    source: Pretrained, sites: tuple[Site, ...], folder: Path, model: PreTrainedModel, held_out: PackedSplit
) -> None:
    """Copies dictionaries that others trained into `folder/<site>/`, as `train_dictionaries` leaves its own, and
    measures them on the same held-out tokens.

    Raises HarnessError when a width differs from the subject's, a folder holds no dictionary, or one that was trained
    here was trained on another subject.
    """
    width = cast(Any, model).config.d_model
    loaded: dict[Site, Dictionary] = {}
    subject = trained_on.fingerprint(model)
    try:
        with dispatch.recording() as kernels:
            for site in sites:
                loaded[site] = source.load(site.layer, width)
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
        kernels=dict(kernels),
    ).save(folder)


def _held_out(split: PackedSplit) -> Tensor:
    return torch.arange(min(HELD_OUT_SEQUENCES, len(split)))


def load_dictionaries(folder: Path, sites: tuple[Site, ...], device: str) -> dict[Site, ReadWrite]:
    return {site: stored.load(folder / str(site)).to(device) for site in sites}
