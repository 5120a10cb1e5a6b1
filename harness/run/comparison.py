"""Runs a plan: every stage that is not stored, in order; then the table, the figures and the tracking of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.utils.logging import disable_progress_bar

from harness import metrics
from harness.base.errors import BadInput, HarnessError
from harness.base.files import check_writable, digest, write_atomically
from harness.base.progress import stage_progress
from harness.corpus import Corpus, references
from harness.corpus.build import build, load
from harness.experiment.schema import Experiment
from harness.run import dictionaries, measuring
from harness.run.plan import Plan, SubjectStages, SystemRun
from harness.run.subjects import Subjects, computed, stop_if_asked
from harness.store.stages import Stage, Store
from harness.systems.evaluation import Evaluation
from harness.tables import provenance
from harness.tables.measurement import Measurement, load_measurements
from harness.tables.scaling import with_dense_equivalent
from harness.tables.table import RowProvenance, SeedResult, Table, details_folder
from harness.tables.table import build as build_table
from harness.tables.table import read as read_table
from harness.tables.table import write as write_table
from harness.tracking.runs import Invocation, tracker
from harness.training import teachers
from harness.training.dictionaries import load_dictionaries
from harness.training.dictionary_record import DictionaryRecord
from harness.training.record import TrainingRecord
from harness.training.trials import Trials
from saes.trainer import CURVE_FILE

log = logging.getLogger(__name__)


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
        if (gpu := torch.device(self.device)).index is not None:
            torch.cuda.set_device(gpu)  # Triton starts kernels on the current device, wherever tensors are
        check_writable(self.out)
        with self.store.in_use(self.plan.stages()):
            return self._run()

    def check_replaces_nothing(self) -> None:
        """Raises BadInput when `out` holds a table that was made with other settings."""
        if not (self.out / "table.json").is_file():
            return
        there = read_table(self.out).provenance.config_hash
        if there != self._config_hash():
            raise BadInput(
                f"{self.out} holds results made with other settings: --replace writes over them, --out names another"
            )

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
            references.measure(name, corpus, self.experiment.evaluation, work)

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
                    *self._how_much_text(corpus),
                    *(spec.dictionary.config.notes() if spec.dictionary else []),
                    *(record.notes() if record else []),
                ],
                not_applicable={} if spec.dictionary else self._by_construction(),
            )
            tracked.finish(result)
        return result

    def _by_construction(self) -> dict[str, str]:
        """What a native row cannot have, of the metrics that were asked for."""
        return {name: why for name, why in _BY_CONSTRUCTION.items() if name.split("/")[0] in self.experiment.metrics}

    def _how_much_text(self, corpus: Corpus) -> list[str]:
        """Where fewer evaluation sequences exist than were asked for."""
        asked, there = self.experiment.evaluation.sequences, len(corpus.eval)
        return [f"evaluation: {asked:,} sequences asked for, {there:,} exist"] if asked > there else []

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
        mine = run.spec.dictionary
        together = {
            other.dictionary.key: other
            for other in self.plan.runs
            if other.dictionary is not None
            and other.spec.dictionary is not None
            and (
                other.dictionary.key == run.dictionary.key
                or (other.subject.key == run.subject.key and dictionaries.learnt_together(mine, other.spec.dictionary))
            )
        }

        def produce(work: dict[str, Path]) -> None:
            wanted = {
                key: dictionaries.Wanted(other.spec.dictionary, work[key])
                for key, other in together.items()
                if key in work and other.spec.dictionary is not None
            }
            label = f"dictionaries of {run.spec.subject.name}, seed {run.seed}"
            log.info("%s: %s", label, ", ".join(together[key].spec.name for key in wanted))
            with stage_progress(label) as report:
                dictionaries.produce(wanted, self._subjects(corpus).model(run.trained), corpus, run.seed, report)

        stages = [stage for other in together.values() if (stage := other.dictionary) is not None]
        self.store.run_together(stages, produce)
        stop_if_asked()
        return self.store.root / run.dictionary.folder

    def _measure(self, run: SystemRun, corpus: Corpus) -> tuple[list[Measurement], dict[str, str], dict[str, Path]]:
        """The row's figures, every kernel that ran for them or for what they were measured on, and by metric the
        folder with what else it left."""
        evaluation: Evaluation | None = None

        def prepared() -> Evaluation:
            nonlocal evaluation
            if evaluation is None:
                evaluation = self._evaluation(run, corpus)
            return evaluation

        def encode(work: Path) -> None:
            with stage_progress(run.codes.label) as report:
                measuring.encode(prepared(), work, report)

        kernels = dict(TrainingRecord.load(self._subjects(corpus).trained(run.trained)).kernels)
        if run.dictionary:
            kernels |= DictionaryRecord.load(self._dictionaries(run, corpus)).kernels
        found: list[Measurement] = []
        folders: dict[str, Path] = {}
        for name, stage in run.metrics.items():
            if self.store.finished(stage) is None:  # here, so that a fault in these is not taken for the metric's
                prepared()
                self._stage(run.codes, encode)

            def produce(work: Path, name: str = name, label: str = stage.label) -> None:
                with stage_progress(label):
                    codes = self.store.root / run.codes.folder
                    measuring.measure(name, self.plan.metric_options[name], prepared(), codes, work)

            try:
                folder = self._stage(stage, produce)
                measured, ran = load_measurements(folder)
                if twice := {one.name for one in found} & {one.name for one in measured}:
                    raise ValueError(f"another metric gives {min(twice)!r} already")
            except HarnessError:
                raise
            except Exception as error:  # a metric's own fault costs its own figures, and is asked again next time
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                log.error("%s failed: %s", stage.label, reason, exc_info=log.isEnabledFor(logging.DEBUG))
                version = metrics.module_of(name).VERSION
                found.append(Measurement(f"{name}/failed", math.nan, "", "none", version, reason=reason))
                continue
            folders[name] = folder
            found += measured
            kernels |= ran
        return found, kernels, folders

    def _evaluation(self, run: SystemRun, corpus: Corpus) -> Evaluation:
        folder = self._subjects(corpus).trained(run.trained)
        trials = Trials.load(folder)
        cost = TrainingRecord.load(folder).cost(trial_flops=trials.flops if trials else 0.0)
        grafts = None
        if run.spec.dictionary is not None:
            trained = self._dictionaries(run, corpus)
            grafts = load_dictionaries(trained, run.spec.dictionary.sites, self.device)
            cost = DictionaryRecord.load(trained).added_to(cost)
        model = self._subjects(corpus).model(run.trained)
        codes = self.store.root / run.codes.folder
        return measuring.evaluation_of(run.spec.name, model, grafts, corpus, self.experiment.evaluation, cost, codes)

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
