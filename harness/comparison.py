"""Runs a plan: every stage that is not stored, in order; then the table, the figures and the tracking of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from transformers.utils.logging import disable_progress_bar

from harness import metrics, provenance, references, teachers
from harness.config import Experiment
from harness.corpus import Corpus
from harness.corpus.build import build, load
from harness.decomposition import System
from harness.dictionary_training import (
    DictionaryRecord,
    Job,
    import_dictionaries,
    load_dictionaries,
    train_dictionaries,
)
from harness.evaluation import Cost, Evaluation, encode_split, read_codes
from harness.measurement import Measurement
from harness.metrics import loss as loss_metric
from harness.plan import Plan, SubjectStages, SystemRun
from harness.progress import stage_progress
from harness.scaling import with_dense_equivalent
from harness.stages import Stage, Store, digest
from harness.subjects import Subjects, computed, stop_if_asked
from harness.table import RowProvenance, SeedResult, Table, check_writable, details_folder, write_atomically
from harness.table import build as build_table
from harness.table import write as write_table
from harness.tracking import Invocation, tracker
from harness.training import TrainingRecord
from harness.trials import Trials
from kernels import dispatch
from saes.pretrained import Pretrained
from saes.trainer import CURVE_FILE

log = logging.getLogger(__name__)

KERNELS = "kernels.json"  # in a stage folder: op -> implementation that ran in it


class Comparison:
    """One invocation: `run()` leaves results in `out` and returns the table."""

    def __init__(self, plan: Plan, store: Store, out: Path) -> None:
        self.plan, self.store, self.out = plan, store, out
        self.experiment: Experiment = plan.experiment
        self.device, self.dtype = plan.numerics.device, plan.numerics.dtype

    def run(self) -> Table:
        disable_progress_bar()  # transformers' own bars: ours say more
        # Set even to what it was: until then MKL shares out its products as it likes, and who sets it first
        # (dictionaries that learn side by side) changes the last digits of all that the process trains afterwards.
        torch.set_num_threads(self.plan.numerics.threads)
        if self.device != "cpu":
            torch.cuda.set_device(self.device)  # Triton starts kernels on the current device, wherever tensors are
        check_writable(self.out)
        with self.store.in_use(self.plan.stages()):
            return self._run()

    def _run(self) -> Table:
        corpus = self._corpus()
        for run in self.plan.runs:
            if isinstance(run.trained.teacher, Path):
                teachers.check_tokenizer(run.trained.teacher, corpus.tokenizer(), run.spec.name)
        with tracker(self.experiment, self.store.root).invocation(corpus.info, self._config_hash()) as invocation:
            results = [self._reference(name, stage, corpus, invocation) for name, stage in self.plan.references.items()]
            for run in self.plan.runs:
                results.append(self._system(run, corpus, invocation))
            source = provenance.collect(self._config_hash(), corpus.info.content_hash, self.dtype, self.device)
            table = build_table(
                self.experiment.name,
                with_dense_equivalent(results, self.experiment.scaling),
                source.model_copy(update={"matched": self.plan.matching.statement}),
                self.experiment.baseline,
            )
            self._write(table)
            invocation.finish(table, self.out)
        return table

    def _config_hash(self) -> str:
        return digest(self.experiment.model_dump(mode="json"))[:16]

    def _stage(self, stage: Stage, produce: Callable[[Path], None]) -> Path:
        return computed(self.store, stage, produce)

    def _corpus(self) -> Corpus:
        def produce(work: Path) -> None:
            with stage_progress(self.plan.corpus.label) as report:
                build(self.experiment.corpus, work, report)

        return load(self._stage(self.plan.corpus, produce))

    def _reference(self, name: str, stage: Stage, corpus: Corpus, invocation: Invocation) -> SeedResult:
        def produce(work: Path) -> None:
            save_measurements(work, _measure_reference(name, corpus, self.experiment), {})

        measurements, _ = load_measurements(self._stage(stage, produce))
        kept = RowProvenance(stages={"corpus": self.plan.corpus.key, "reference": stage.key})
        result = SeedResult(name, "reference", self.experiment.seeds[0], measurements, kept)
        with invocation.system(name, result.seed, {"kind": "reference"}) as run:
            run.finish(result)
        return result

    def _system(self, run: SystemRun, corpus: Corpus, invocation: Invocation) -> SeedResult:
        spec = run.spec
        params: dict[str, Any] = {"kind": "dictionary" if spec.dictionary else "subject", **run.subject.config}
        if run.dictionary:
            params |= {f"dictionary.{key}": value for key, value in run.dictionary.config.items()}
        record: DictionaryRecord | None = None
        with invocation.system(spec.name, run.seed, params) as tracked:
            if run.dictionary is None:
                # While it trains, the curve is followed where it is written, then where it is kept.
                subject = self._subjects(corpus).trained(run.trained, follow=tracked.curve)
                tracked.curve(subject / CURVE_FILE)
            else:
                dictionaries = self._dictionaries(run, corpus)
                record = DictionaryRecord.load(dictionaries)
                for site in record.curves():
                    tracked.curve(dictionaries / site / CURVE_FILE, prefix=site)
            measurements, kernels, folders = self._measure(run, corpus)
            for name, folder in folders.items():
                tracked.details(folder, name)
                _copy_readable(folder, details_folder(self.out, spec.name, run.seed) / name)
            if record is not None:
                measurements += record.measurements()
            stages = {stage.kind if stage.kind != "metric" else stage.label.split()[0]: stage for stage in run.stages()}
            stages |= {f"trial x {scale:g}": stage for scale, stage in run.trained.trials.items()}
            if isinstance(run.trained.teacher, SubjectStages):
                stages["teacher"] = run.trained.teacher.stage
            if run.trained.origins:
                stages["upcycled from"] = run.trained.origins[run.seed].stage
            kept = RowProvenance(
                kernels=kernels,
                stages={"corpus": self.plan.corpus.key, **{name: stage.key for name, stage in stages.items()}},
            )
            result = SeedResult(
                spec.name,
                "dictionary" if spec.dictionary else "subject",
                run.seed,
                measurements,
                kept,
                notes=[
                    *self.plan.matching.notes(spec.name),
                    *self._how_trained(run),
                    *(record.notes() if record else []),
                ],
                not_applicable={} if spec.dictionary else dict(_BY_CONSTRUCTION),
            )
            tracked.finish(result)
        return result

    def _how_trained(self, run: SystemRun) -> list[str]:
        """What a reader of the table should know of how the row's subject came to be."""
        spec = run.spec.subject
        if spec.untrained:
            return ["untrained"]
        folder, target, notes = self.store.root / run.subject.folder, spec.training.target, []
        if spec.origin is not None:
            notes.append(f"upcycled from {spec.origin.name}, whose training is counted")
        if spec.training.teacher is not None:
            notes.append(f"target {target.kind}, teacher {spec.training.teacher}")
        if (record := TrainingRecord.load(folder)).floor is not None:
            notes.append(f"floor {record.floor:.3f} nat/token, last training loss {record.final_loss:.3f}")
        if isinstance(spec.teacher, Path):
            notes.append("the teacher's own training is not counted: nobody here knows what it took")
        if (trials := Trials.load(folder)) is not None:
            notes.append(trials.note())
        return notes

    def _subjects(self, corpus: Corpus) -> Subjects:
        return Subjects(
            self.store, corpus, self.experiment.learning_rate_trials, self.experiment.seeds[0], self.device, self.dtype
        )

    def _dictionaries(self, run: SystemRun, corpus: Corpus) -> Path:
        """Trains, in one pass of the subject, this row's dictionaries and those of all other rows like it."""
        assert run.dictionary is not None
        if (stored := self.store.finished(run.dictionary)) is not None:
            return stored
        assert run.spec.dictionary is not None
        if isinstance(source := run.spec.dictionary.config, Pretrained):
            sites = run.spec.dictionary.sites
            return self._stage(
                run.dictionary,
                lambda work: import_dictionaries(
                    source, sites, work, self._subjects(corpus).model(run.trained), corpus.dev
                ),
            )
        settings = run.spec.dictionary.settings
        together = [
            other
            for other in self.plan.runs
            if other.dictionary is not None
            and other.subject.key == run.subject.key
            and not isinstance(cast(Any, other.spec.dictionary).config, Pretrained)
            and cast(Any, other.spec.dictionary).settings == settings
        ]
        stages = list({cast(Stage, other.dictionary).key: other for other in together}.values())

        def produce(work: dict[str, Path]) -> None:
            missing = {
                key: other for other in stages if (key := cast(Stage, other.dictionary).key) in work
            }  # fmt: skip
            names = ", ".join(other.spec.name for other in missing.values())
            log.info("dictionaries of %s, seed %d: %s", run.spec.subject.name, run.seed, names)
            # One folder of checkpoints for the pass, named by who takes part: another set is another pass.
            scratch = work[min(work)] / "checkpoint" / digest(sorted(work))[:16]
            jobs = {
                key: Job(cast(Any, other.spec.dictionary).config, cast(Any, other.spec.dictionary).sites, work[key])
                for key, other in missing.items()
            }
            seeded = cast(Any, settings).__class__(**{**asdict(settings), "seed": run.seed})
            model = self._subjects(corpus).model(run.trained)
            with stage_progress(f"dictionaries of {run.spec.subject.name}, seed {run.seed}") as report:
                train_dictionaries(
                    jobs,
                    model,
                    corpus.train,
                    corpus.dev,
                    seeded,
                    scratch=scratch,
                    report=report,
                )

        self.store.run_together([cast(Stage, other.dictionary) for other in stages], produce)
        stop_if_asked()
        return self.store.root / run.dictionary.folder

    def _measure(self, run: SystemRun, corpus: Corpus) -> tuple[list[Measurement], dict[str, str], dict[str, Path]]:
        """The row's figures, every kernel that ran for them or for what they were measured on, and by metric the
        folder with what else it left."""
        evaluation: Evaluation | None = None

        def prepared(artifacts: Path) -> Evaluation:
            nonlocal evaluation
            if evaluation is None:
                evaluation = self._evaluation(run, corpus)
            evaluation.artifacts = artifacts
            return evaluation

        def encode(work: Path) -> None:
            with stage_progress(run.codes.label) as report, dispatch.recording() as ran:
                encode_split(prepared(work), work, report)
            (work / KERNELS).write_text(json.dumps(ran))

        kernels = dict(TrainingRecord.load(self._subjects(corpus).trained(run.trained)).kernels)
        if run.dictionary:
            kernels |= DictionaryRecord.load(self._dictionaries(run, corpus)).kernels
        found: list[Measurement] = []
        folders: dict[str, Path] = {}
        for name, stage in run.metrics.items():

            def produce(work: Path, name: str = name, label: str = stage.label) -> None:
                codes = self._stage(run.codes, encode)
                with stage_progress(label), dispatch.recording() as ran:
                    subject = prepared(work)
                    subject.load_codes = lambda site: read_codes(codes, site)
                    measured = metrics.module_of(name).measure(subject, self.plan.metric_options[name])
                save_measurements(work, measured, {**json.loads((codes / KERNELS).read_text()), **ran})

            folders[name] = self._stage(stage, produce)
            measured, ran = load_measurements(folders[name])
            found += measured
            kernels |= ran
        return found, kernels, folders

    def _evaluation(self, run: SystemRun, corpus: Corpus) -> Evaluation:
        config = self.experiment.evaluation
        training = TrainingRecord.load(self._subjects(corpus).trained(run.trained))
        trials = Trials.load(self._subjects(corpus).trained(run.trained))
        cost = Cost(
            parameters=training.parameters,
            active_parameters=training.active_parameters,
            forward_flops_per_token=training.forward_flops_per_token,
            training_flops=training.training_flops,
            training_tokens=training.tokens,
            training_seconds=training.seconds,
            peak_memory_bytes=training.peak_memory_bytes,
            trial_flops=trials.flops if trials else 0.0,
        )
        grafts = None
        if run.spec.dictionary is not None:
            folder = self._dictionaries(run, corpus)
            grafts = load_dictionaries(folder, run.spec.dictionary.sites, self.device)
            cost = DictionaryRecord.load(folder).added_to(cost)
        return Evaluation(
            system=System(run.spec.name, self._subjects(corpus).model(run.trained), grafts),
            split=corpus.eval,
            dev=corpus.dev,
            sequences=config.sequences,
            codes_sequences=config.codes_sequences,
            batch_sequences=config.batch_sequences,
            resamples=config.resamples,
            load_codes=lambda site: read_codes(self.store.root / run.codes.folder, site),
            cost=cost,
            tokenizer=corpus.tokenizer(),
            document=corpus.documents.__getitem__,
        )

    def _write(self, table: Table) -> None:
        from harness.report import figures

        text = yaml.safe_dump(self.experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_atomically(self.out / "experiment.yaml", text.encode())
        curves: dict[tuple[str, int], Path] = {}
        for run in self.plan.runs:
            if run.dictionary is None:
                curves[run.spec.name, run.seed] = self.store.root / run.subject.folder / CURVE_FILE
        figures.write(table, self.out / "figures", curves)
        write_table(table, self.out)


# What a native system cannot have, and why.
_BY_CONSTRUCTION = {
    f"{name}": "by construction: the units are the model"
    for name in (
        "loss/spliced_kl",
        "loss/recovered",
        "reconstruction/explained_variance",
        "reconstruction/normalised_mse",
        "reconstruction/cosine",
        "reconstruction/norm_ratio",
    )
}


def _copy_readable(stage: Path, details: Path) -> None:
    """What a metric left for people, from its stage into the results folder."""
    for file in sorted(path for path in stage.iterdir() if path.suffix in (".md", ".html", ".parquet")):
        details.mkdir(parents=True, exist_ok=True)
        write_atomically(details / file.name, file.read_bytes())


def save_measurements(folder: Path, measurements: Sequence[Measurement], kernels: dict[str, str]) -> None:
    """measurements.json and, for those that were resampled, replicates.npz in a stage folder."""
    rows = [{k: v for k, v in vars(m).items() if k != "replicates"} for m in measurements]
    (folder / "measurements.json").write_text(json.dumps({"measurements": rows, "kernels": kernels}, indent=1))
    arrays = {str(i): m.replicates for i, m in enumerate(measurements) if m.replicates is not None}
    np.savez(folder / "replicates.npz", **cast(Any, arrays))


def load_measurements(folder: Path) -> tuple[list[Measurement], dict[str, str]]:
    stored = json.loads((folder / "measurements.json").read_text())
    with np.load(folder / "replicates.npz", allow_pickle=False) as arrays:
        found = [Measurement(**row, replicates=arrays.get(str(i))) for i, row in enumerate(stored["measurements"])]
    return found, stored["kernels"]


def _measure_reference(name: str, corpus: Corpus, experiment: Experiment) -> list[Measurement]:
    """Loss of an n-gram model on the same targets that systems are measured on."""
    log_p = references.log_probabilities(name, corpus)  # [sequences, length], nats
    total = min(experiment.evaluation.sequences, len(corpus.eval))
    batch = corpus.eval.batch(torch.arange(total))
    targets = slice(1, None)
    document = batch.document[:, targets].reshape(-1)
    ids, rows = document.unique(return_inverse=True)

    def by_document(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(ids), dtype=torch.float64).index_add_(0, rows, values.reshape(-1).double())

    nats = -torch.as_tensor(log_p[:total])[:, targets]
    return loss_metric.summaries(
        by_document(nats),
        by_document(batch.n_bytes[:, targets]),
        by_document(torch.ones_like(batch.n_bytes[:, targets])),
        experiment.evaluation.resamples,
    )
