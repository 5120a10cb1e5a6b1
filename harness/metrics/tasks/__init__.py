"""Task scores by lm-eval: on the model as it is, and with its units spliced in.

Local tasks need no network: bits per byte of whole documents by domain, the next word of a passage among four, a
grammatical sentence against an ungrammatical one, a legal chess move among four (the *.yaml beside this file;
`examples.py` makes the examples from the run's own evaluation documents). Any task of lm-eval's own can be named where
there is network. Of Othello every legal move is known, so it needs neither examples nor lm-eval (`othello_legal.py`).
`harness lm-eval` gives a saved model to lm-eval's command line; the scores are the
same to the last digit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, computed_field, field_validator

from harness.base.errors import BadInput, HarnessError
from harness.base.settings import Strict
from harness.metrics.metric import register
from harness.metrics.tasks import examples, othello_legal
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Measurement
from harness.tables.statistics import document_bootstrap, unit_bootstrap
from kernels.codes import Codes

VERSION = 3
log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent
PREFIX = "harness_"
_PER_DOMAIN = "bits_per_byte"


class Options(Strict):
    """Which tasks, and how many examples of each."""

    tasks: tuple[str, ...] = Field(default=(), description="Of lm-eval's own, by name, beside the local ones.")
    limit: int = Field(default=200, ge=10, description="Examples of a local task; a tenth as many documents a domain.")
    limit_others: int | None = Field(default=None, ge=1, description="Examples of every other task; None: all.")
    spliced: bool = Field(default=True, description="Also with the dictionaries in place of what they explain.")
    batch_size: int = Field(default=16, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        """Here, because options are read before anything is trained."""
        if tasks:
            from lm_eval.tasks import TaskManager

            known = set(TaskManager().all_tasks)  # takes seconds: it reads thousands of files
            for task in tasks:
                if task not in known:
                    raise ValueError(f"lm-eval has no task {task!r}; its tasks: lm-eval ls tasks")
        return tasks

    @computed_field
    @property
    def made_by(self) -> str:
        """Part of the stage's key: results of other task files, or of another lm-eval, are other results."""
        files = sorted(TEMPLATES.glob("*.yaml"))
        contents = hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files))
        return f"lm-eval {version('lm-eval')}, {contents.hexdigest()[:16]}"


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """`tasks/<task>` on the model, `tasks/<task>_spliced` through its units (a built-in model runs through them anyway,
    so it has the first alone). Accuracies are higher-is-better, bits per byte lower.

    Intervals resample the evaluation documents that examples come from (examples of minimal pairs, which come from
    none, by themselves); other tasks have none. The examples are left in `data/`, for `harness lm-eval --data`.
    Raises HarnessError where the data of one of lm-eval's own tasks cannot be had.
    """
    if evaluation.tokenizer is None or evaluation.document is None:
        raise BadInput("the tasks metric needs the corpus's tokenizer and documents")
    data = evaluation.artifacts / "data"
    data.mkdir(exist_ok=True)
    documents = {int(row): evaluation.document(int(row)) for row in evaluation.documents}
    names = examples.write(documents, data, options.limit, options.seed)
    games = othello_legal.games_of(documents)
    with local_tasks(data, names) as folder:
        found = _scores(evaluation, options, names, folder, "")
        found += othello_legal.scores(evaluation, games, VERSION, "")
        if options.spliced and not evaluation.system.native:
            edits = dict.fromkeys(evaluation.system.sites, _unchanged)
            with evaluation.system.running(edits, error="drop"):
                found += _scores(evaluation, options, names, folder, "_spliced")
                found += othello_legal.scores(evaluation, games, VERSION, "_spliced")
    return found


def _unchanged(codes: Codes) -> Codes:
    return codes


@contextlib.contextmanager
def local_tasks(data: Path, names: list[str]) -> Iterator[Path]:
    """During the block: a folder for lm-eval's `include_path`, with the local tasks `names` on the files in `data`."""
    with tempfile.TemporaryDirectory(prefix="harness-tasks-") as folder:
        for name in names:
            domain = name.removeprefix(f"{_PER_DOMAIN}_") if name.startswith(_PER_DOMAIN) else ""
            text = (TEMPLATES / f"{_PER_DOMAIN if domain else name}.yaml").read_text()
            text = text.replace("{data}", str(data.resolve())).replace("{domain}", domain).replace("{cache}", folder)
            (Path(folder) / f"{name}.yaml").write_text(text)
        yield Path(folder)


def local_names(data: Path) -> list[str]:
    """The local tasks that have examples in `data`. Raises BadInput where there are none."""
    names = sorted(file.stem for file in data.glob("*.jsonl"))
    if not names:
        raise BadInput(f"{data} holds no examples (*.jsonl): name the data/ folder that the tasks metric left")
    return names


def _scores(evaluation: Evaluation, options: Options, names: list[str], folder: Path, suffix: str) -> list[Measurement]:
    found = _local_scores(evaluation, options, names, folder, suffix)
    return found + _other_scores(evaluation, options, folder, suffix) if options.tasks else found


def _local_scores(
    evaluation: Evaluation, options: Options, names: list[str], folder: Path, suffix: str
) -> list[Measurement]:
    results = _run(evaluation, [f"{PREFIX}{name}" for name in names], folder, options.batch_size, None, defaults=False)
    return [_measurement(evaluation, name, results["samples"][f"{PREFIX}{name}"], suffix) for name in names]


def _other_scores(evaluation: Evaluation, options: Options, folder: Path, suffix: str) -> list[Measurement]:
    wanted = list(options.tasks)
    try:
        results = _run(evaluation, wanted, folder, options.batch_size, options.limit_others, defaults=True)
    except OSError as error:  # what datasets raises without network
        raise HarnessError(f"lm-eval could not load the data of {', '.join(wanted)}: {error}") from error
    found: list[Measurement] = []
    for task, figures in results["results"].items():
        for key, value in figures.items():
            name, _, chosen_filter = key.partition(",")
            if chosen_filter and not name.endswith("_stderr") and isinstance(value, int | float):
                higher = results["higher_is_better"].get(task, {}).get(name)
                direction = "none" if higher is None else "higher" if higher else "lower"
                found.append(Measurement(f"tasks/{task}/{name}{suffix}", float(value), "", direction, VERSION))
    return found


def _measurement(evaluation: Evaluation, name: str, samples: list[dict[str, Any]], suffix: str) -> Measurement:
    """One local task; examples are weighed equally, bits per byte by bytes."""
    rolling = name.startswith(_PER_DOMAIN)
    if rolling:  # lm-eval keeps (log-likelihood in nats, bytes)
        pairs = np.array([sample["bits_per_byte"] for sample in samples], np.float64)
        numerator, denominator = -pairs[:, 0] / math.log(2), pairs[:, 1]
    else:
        numerator = np.array([sample["acc"] for sample in samples], np.float64)
        denominator = np.ones_like(numerator)
    rows = np.array([sample["doc"]["document"] for sample in samples])
    if (rows >= 0).all():
        at = np.searchsorted(evaluation.documents, rows)
        size = len(evaluation.documents)
        by_document = (np.bincount(at, each, size) for each in (numerator, denominator))
        replicates, resampled = document_bootstrap(*by_document, n_resamples=evaluation.resamples), "documents"
    else:
        replicates, resampled = unit_bootstrap(numerator, n_resamples=evaluation.resamples), "examples"
    value = float(numerator.sum() / denominator.sum())
    unit, direction = ("bits/byte", "lower") if rolling else ("accuracy", "higher")
    saw = f"{len(samples):,} {'documents' if rolling else 'examples'}"
    return Measurement(f"tasks/{name}{suffix}", value, unit, direction, VERSION, replicates, resampled, saw=saw)  # pyright: ignore[reportArgumentType]


def _run(
    evaluation: Evaluation, tasks: list[str], folder: Path, batch_size: int, limit: int | None, *, defaults: bool
) -> dict[str, Any]:
    import datasets
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    manager = TaskManager(include_path=str(folder), include_defaults=defaults)
    make: Any = HFLM  # its decorator hides the arguments from type checkers
    model = make(
        pretrained=evaluation.system.model,
        tokenizer=evaluation.tokenizer,
        backend="causal",
        batch_size=batch_size,
        max_length=evaluation.split.length,
        device=str(evaluation.system.device),
    )
    log.info("tasks: lm-eval begins every text with %r", model.tokenizer.decode([model.prefix_token_id]))
    # Its progress bars go to standard error: ours say more. No cache of requests: its key does not name the model.
    with contextlib.redirect_stderr(io.StringIO()):
        found = evaluator.simple_evaluate(
            model=model, tasks=[*tasks], task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=True
        )
    assert found is not None
    return dict(found)


register("tasks", measure, Options, VERSION)
