"""The table of a comparison: the schema of table.json.

table.json keeps full precision and is the record; table.md, details.md and table.csv are made from it
(harness/tables/markdown.py, folder.py). How it is built from measurements: harness/tables/build.py.
`python -m harness.tables.table` rewrites table.schema.json beside it after a change of the models here; a change that
an older reader would misread raises SCHEMA_VERSION.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.base.files import write_atomically
from harness.tables.measurement import Direction

SCHEMA_VERSION = 1
SCHEMA_PATH = Path(__file__).with_name("table.schema.json")
Kind = Literal["reference", "subject", "dictionary"]
Elsewhere = Literal["dense", "experts"]
# How a dictionary is paid for: out of the row's budget, so that its subject trains on less; or on top of its subject's.
Accounting = Literal["equal total", "same subject"]
# Of a figure that has its control taken off or is divided by it: what three or more seeds say of the rest.
AgainstControl = Literal["above", "below", "unresolved"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Figure(_Model):
    """One metric of one system. `seeds` is in the order of the row's `seeds`, null where that seed has no value.

    against_control: of headline figures that are real minus control, or a ratio of the two, with several seeds.
    """

    value: float
    low: float | None
    high: float | None
    unit: str
    direction: Direction
    version: int
    seeds: list[float | None]
    timing: bool = False
    saw: str | None = None  # the text it was measured on; None where its metric does not say
    against_control: AgainstControl | None = None


class RowProvenance(_Model):
    """`kernels`: op -> implementation that ran. `stages`: stage -> hash of the stored result; in a row "stage/seed"."""

    kernels: dict[str, str] = {}
    stages: dict[str, str] = {}


class Row(_Model):
    """One system. `not_applicable`: metric -> why there is no figure. `accounting`: of dictionary rows. `unmatched`:
    why it takes no part in what the table matches. `elsewhere`: what a subject that nobody trained here is."""

    system: str
    kind: Kind
    seeds: list[int]
    metrics: dict[str, Figure]
    not_applicable: dict[str, str] = {}
    provenance: RowProvenance
    notes: list[str] = []
    accounting: Accounting | None = None
    unmatched: str | None = None
    elsewhere: Elsewhere | None = None


Verdict = Literal["better", "worse", "unresolved"]


class Difference(_Model):
    """a − b on the same documents, mean over seeds. p: of no difference, over seeds; None with one seed. verdict: of
    headline figures alone, at a false discovery rate of 5% over all of them together (harness/tables/build.py)."""

    a: str
    b: str
    metric: str
    value: float
    low: float | None
    high: float | None
    p: float | None = None
    verdict: Verdict | None = None


class Hardware(_Model):
    cpu: str
    cores: int
    memory_gib: float
    gpu: str | None = None


class Provenance(_Model):
    """Where the figures come from. No path, user or host name of the machine."""

    commit: str | None
    dirty: bool | None
    config_hash: str
    corpus_hash: str
    packages: dict[str, str]
    hardware: Hardware
    threads: int
    python: str
    os: str
    dtype: str
    device: str
    created: str | None = None
    matched: str | None = None  # what is equal in the systems compared; None in tables older than the statement


class Table(_Model):
    """results/<comparison>/table.json."""

    schema_version: Literal[1] = SCHEMA_VERSION
    comparison: str
    question: str = ""  # the experiment's description
    headline: list[str] = []  # the figures that carry verdicts
    provenance: Provenance
    rows: list[Row]
    differences: list[Difference] = []

    def without_timing(self) -> Table:
        """What two runs of one experiment on one machine must agree on to the last digit."""
        rows = [
            row.model_copy(update={"metrics": {name: f for name, f in row.metrics.items() if not f.timing}})
            for row in self.rows
        ]
        return self.model_copy(
            update={"rows": rows, "provenance": self.provenance.model_copy(update={"created": None})}, deep=True
        )

    def metric_names(self) -> list[str]:
        """Every metric that some row has or says it cannot have; families together, first seen first."""
        names = dict.fromkeys(name for row in self.rows for name in (*row.metrics, *row.not_applicable))
        families = list(dict.fromkeys(name.split("/")[0] for name in names))
        return sorted(names, key=lambda name: families.index(name.split("/")[0]))


def schema_text() -> str:
    """What harness/tables/table.schema.json must hold."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Table.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_atomically(SCHEMA_PATH, schema_text().encode())
