"""The power cut: real `harness run` processes, killed at random moments, must end in the table of an undisturbed run.

Nothing is patched. The undisturbed run says when each stage starts. A round begins with an empty store; its kills come
at moments drawn from those stages, earliest first, each on a fresh `harness run`; then one run is left alone and its
table is compared to the last digit, timing apart. After that SIGTERM, and two runs on one store at once.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.base import files
from harness.base.errors import HarnessError
from harness.base.files import ROOT
from harness.tables import folder as results

log = logging.getLogger(__name__)

_STAGE = re.compile(r"(corpus|reference|subject|dictionaries of|codes of) \S|\w+ of \S.*, seed \d+$")
_CONTINUED = re.compile(r"(?:continuing|going on) from step (\d+)")
_START = "start"  # from exec to the first stage: imports, the plan, reading what is stored
# A round hits each of these once, training twice; the rest of kills is drawn from them.
_ROUND = (_START, "corpus", "reference", "subject", "subject", "dictionary", "dictionary", "codes", "metric", "end")
_TOO_LONG = 600.0  # seconds


@dataclass(frozen=True)
class Moment:
    """From the log line of a stage (empty: from the start) for `seconds`, in the undisturbed run."""

    line: str
    kind: str
    seconds: float


@dataclass
class Fault:
    """What was done to one run, and what became of it."""

    number: int
    round: int
    signal: str
    stage: str  # the last stage that it had begun
    seconds: float  # after its start
    exit: int
    resumed_from: str = ""  # what the next run said it continues from, if it was training
    resumed: bool = False  # the next run went on, and the round ended in the same table


@dataclass(frozen=True)
class Together:
    """Two runs on one store at once."""

    exits: tuple[int, int]
    computed_twice: list[str]
    computed: int
    equal: bool

    @property
    def passed(self) -> bool:
        return self.exits == (0, 0) and not self.computed_twice and self.equal


@dataclass
class FaultReport:
    arguments: list[str]
    seconds: float  # of the undisturbed run
    faults: list[Fault] = field(default_factory=list)
    together: Together | None = None

    @property
    def passed(self) -> bool:
        stopped = all(fault.exit == (75 if fault.signal == "SIGTERM" else -9) for fault in self.faults)
        return stopped and all(f.resumed for f in self.faults) and (self.together is None or self.together.passed)

    def summary(self) -> str:
        counts = Counter(fault.signal for fault in self.faults)
        done = ", ".join(f"{count} {name}" for name, count in counts.items())
        good = sum(fault.resumed for fault in self.faults)
        return f"{done}: {good} of {len(self.faults)} ended in the table of an undisturbed run"


class Run:
    """A `harness run` process; its log goes to a file, so that it never waits for a reader."""

    def __init__(self, arguments: Sequence[str], store: Path, out: Path, said: Path) -> None:
        environment = {**os.environ, "HARNESS_STORE": str(store), "PYTHONUNBUFFERED": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        command = [sys.executable, "-m", "harness.cli", "run", *arguments, "--out", str(out)]
        self.said, self.started = said, time.monotonic()
        with said.open("w") as file:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=file, env=environment, cwd=ROOT, start_new_session=True
            )

    def lines(self) -> list[str]:
        return self.said.read_text(errors="replace").splitlines()

    def stages(self) -> list[str]:
        return [line for line in self.lines() if _STAGE.match(line)]

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def alive(self) -> bool:
        if self.seconds() > _TOO_LONG:
            self.stop(signal.SIGKILL)
            raise HarnessError(f"a run did not end within {_TOO_LONG:.0f} s: {' | '.join(self.lines()[-3:])}")
        return self.process.poll() is None

    def wait_for(self, line: str) -> bool:
        """Until it has said `line`; False when it ended without."""
        while line and line not in self.lines():
            if not self.alive():
                return line in self.lines()
            time.sleep(0.005)
        return True

    def stop(self, with_signal: signal.Signals) -> int:
        self.process.send_signal(with_signal)
        return self.wait()

    def wait(self) -> int:
        """Its exit status, negative for a signal."""
        try:
            return self.process.wait(max(1.0, _TOO_LONG - self.seconds()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise HarnessError(f"a run did not end within {_TOO_LONG:.0f} s: {' | '.join(self.lines()[-3:])}") from None


class Bench:
    """One experiment, its undisturbed run, and what is done to others of it. `folder` is for stores and results."""

    def __init__(self, arguments: Sequence[str], folder: Path, seed: int) -> None:
        self.arguments, self.folder = list(arguments), folder
        self.random = random.Random(seed)
        self.faults: list[Fault] = []
        self.rounds = self.runs = 0

    def start(self, store: Path, out: Path) -> Run:
        self.runs += 1
        return Run(self.arguments, store, out, self.folder / f"run-{self.runs}.log")

    def undisturbed(self) -> float:
        """Runs it once alone: the table to compare with and the moments to disturb at. Seconds it took."""
        run = self.start(self.folder / "store-0", self.folder / "reference")
        seen: list[tuple[str, float]] = []
        while run.alive():
            seen += [(line, run.seconds()) for line in run.stages()[len(seen) :]]
            time.sleep(0.005)
        took = run.seconds()
        if run.wait() != 0 or not seen:
            raise HarnessError(f"the undisturbed run failed: {' | '.join(run.lines()[-3:])}")
        self.expected = results.read(self.folder / "reference").without_timing()
        ends = [at for _, at in seen[1:]] + [took]
        self.moments = [Moment("", _START, seen[0][1])]
        self.moments += [Moment(line, _kind(line), end - at) for (line, at), end in zip(seen, ends, strict=True)]
        # What comes after the last stage has no line of its own: table, figures, tracking.
        self.moments[-1] = Moment(seen[-1][0], "end", ends[-1] - seen[-1][1])
        return took

    def of_kind(self, kind: str) -> Moment:
        return self.random.choice([moment for moment in self.moments if moment.kind == kind] or self.moments)

    def disturb(self, store: Path, out: Path, kinds: Sequence[str], with_signal: signal.Signals) -> list[Fault]:
        """Ends runs on `store` with a signal, each at a moment of one of the kinds, earliest first."""
        done: list[Fault] = []
        aims = [(self.moments.index(moment), self.random.random()) for moment in map(self.of_kind, kinds)]
        for index, share in sorted(aims):
            moment = self.moments[index]
            run = self.start(store, out)
            if run.wait_for(moment.line):
                time.sleep(share * moment.seconds)
            seconds, stage = run.seconds(), (run.stages() or [_START])[-1]
            code = run.stop(with_signal)
            _went_on(done, run)
            if code == 0:  # the run before had got further than it was to, and nothing was left to disturb
                break
            number = len(self.faults) + 1
            done.append(Fault(number, self.rounds, with_signal.name, stage, round(seconds, 2), code))
            self.faults.append(done[-1])
            log.info("fault %d: %s in %r after %.1f s: exit %d", number, with_signal.name, stage, seconds, code)
        return done

    def round(self, kinds: Sequence[str], with_signal: signal.Signals) -> None:
        """Disturbs runs on a new store, then leaves one alone and compares its table."""
        self.rounds += 1
        store, out = self.folder / f"store-{self.rounds}", self.folder / f"out-{self.rounds}"
        done = self.disturb(store, out, kinds, with_signal)
        run = self.start(store, out)
        code = run.wait()
        _went_on(done, run)
        equal = code == 0 and self.is_expected(out)
        log.info("round %d: %s", self.rounds, "the same table" if equal else f"exit {code}: {run.lines()[-1:]}")
        for fault in done:
            fault.resumed = equal
        if equal:
            shutil.rmtree(store)

    def is_expected(self, out: Path) -> bool:
        found = results.read(out).without_timing()
        return found.rows == self.expected.rows and found.differences == self.expected.differences

    def together(self, store: Path) -> Together:
        """Two runs at once on one store."""
        outs = [self.folder / "out-first", self.folder / "out-second"]
        runs = [self.start(store, out) for out in outs]
        exits = [run.wait() for run in runs]
        said = Counter(line for run in runs for line in run.stages())
        equal = exits == [0, 0] and all(self.is_expected(out) for out in outs)
        twice = [line for line, count in said.items() if count > 1]
        return Together((exits[0], exits[1]), twice, len(said), equal)


def measure(kills: int, out: Path, seed: int = 0, arguments: Sequence[str] = ("smoke",)) -> FaultReport:
    """Kills runs of `arguments` `kills` times, then tries SIGTERM and two runs at once; writes table.md, table.json.

    Raises HarnessError when the undisturbed run fails or a run hangs. What failed is kept in the temporary folder.
    """
    files.check_writable(out)
    folder = Path(tempfile.mkdtemp(prefix="harness-faults-"))
    bench = Bench(arguments, folder, seed)
    report = FaultReport(list(arguments), bench.undisturbed())
    log.info("undisturbed: %.1f s, %d stages", report.seconds, len(bench.moments) - 1)
    while (left := kills - len(bench.faults)) > 0:
        kinds = list(_ROUND) if left >= len(_ROUND) else bench.random.sample(_ROUND, left)
        bench.round(kinds, signal.SIGKILL)
    bench.round((_START, "corpus", "subject", "dictionary", "metric"), signal.SIGTERM)
    report.faults, report.together = bench.faults, bench.together(folder / "store-shared")
    _write(report, out)
    if report.passed:
        shutil.rmtree(folder)
    else:
        log.error("something failed; logs and stores are kept in %s", folder)
    return report


def _kind(line: str) -> str:
    first = line.split()[0]
    return {"dictionaries": "dictionary"}.get(first, first if first in _ROUND else "metric")


def _went_on(faults: list[Fault], run: Run) -> None:
    """Notes on the fault before what this run says it continues from."""
    if faults and (found := _CONTINUED.search("\n".join(run.lines()))):
        faults[-1].resumed_from = f"step {found[1]}"


def _write(report: FaultReport, out: Path) -> None:
    data = {**asdict(report), "passed": report.passed}
    files.write_atomically(out / "table.md", ("\n".join(_markdown(report)) + "\n").encode())
    files.write_atomically(out / "table.json", (json.dumps(data, indent=1) + "\n").encode())


def _markdown(report: FaultReport) -> Iterator[str]:
    yield "# Killed runs\n"
    yield f"`harness run {' '.join(report.arguments)}`, undisturbed {report.seconds:.1f} s. {report.summary()}.\n"
    yield "| | round | signal | seconds after start | in | exit | training continued from | same table |"
    yield "|--:|--:|---|--:|---|--:|---|---|"
    for fault in report.faults:
        yield (
            f"| {fault.number} | {fault.round} | {fault.signal} | {fault.seconds:.2f} | {fault.stage} | {fault.exit} "
            f"| {fault.resumed_from or '–'} | {'yes' if fault.resumed else 'NO'} |"
        )
    yield (
        "\nA round starts with an empty store and ends with a run that is left alone; its table must equal that of the "
        "undisturbed run to the last digit, timing apart."
    )
    if both := report.together:
        twice = ", ".join(both.computed_twice) or "none"
        same = "both tables are the same" if both.equal else "the tables DIFFER"
        yield (
            f"\nTwo runs on one store at once: exits {both.exits[0]} and {both.exits[1]}, {both.computed} stages "
            f"computed, twice: {twice}; {same}."
        )
