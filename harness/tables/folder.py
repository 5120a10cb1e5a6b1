"""The folder of a comparison's results: the table in three forms, and details by row and seed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from pydantic import ValidationError

from harness.base.errors import BadInput
from harness.base.files import write_atomically
from harness.tables.columns import families
from harness.tables.markdown import details, markdown
from harness.tables.table import SCHEMA_VERSION, Table


def details_folder(results: Path, row: str, seed: int) -> Path:
    """Where a results folder keeps what metrics leave for people to read about a row and seed, by metric."""
    return results / "details" / f"{row.replace('/', '_').replace(':', '_')} seed {seed}"


def write(table: Table, folder: Path) -> None:
    """The texts, and table.json last: a folder that has it is whole."""
    write_texts(table, folder)
    write_atomically(folder / "table.json", (table.model_dump_json(indent=2) + "\n").encode())


def write_texts(table: Table, folder: Path) -> None:
    """table.csv, details.md and table.md: all that they say is in the table, so they can be made again from it."""
    write_atomically(folder / "table.csv", csv_text(table).encode())
    write_atomically(folder / "details.md", details(table).encode())
    write_atomically(folder / "table.md", markdown(table, folder).encode())


def read(folder: Path) -> Table:
    """The table of a results folder. Raises BadInput, which says what is wrong and what to do."""
    path = folder / "table.json"
    if not folder.is_dir():
        near = sorted(p.parent.name for p in folder.parent.glob("*/table.json")) if folder.parent.is_dir() else []
        raise BadInput(f"no results folder {folder}" + (f"; there is: {', '.join(near)}" if near else ""))
    if not path.is_file():
        inside = sorted(p.parent.name for p in folder.glob("*/table.json"))
        hint = f"; name one in it: {', '.join(inside)}" if inside else "; `harness run EXPERIMENT` makes one"
        raise BadInput(f"{folder} has no table.json, so it is no results folder{hint}")
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        what = "update this checkout" if newer else "run the experiment again to rewrite it"
        raise BadInput(f"{path} has schema_version {version}, this harness reads {SCHEMA_VERSION}: {what}")
    try:
        return Table.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path} is not a table: {where}: {first['msg']}") from error


def csv_text(table: Table) -> str:
    """One line a system; for each metric its value, low and high (12 significant digits), the timed ones last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = [m for _, family in families(table) for m in family]
    writer.writerow(["system", "kind", "n_seeds", *(c for m in metrics for c in (m, f"{m}_low", f"{m}_high"))])
    for row in table.rows:
        cells: list[str] = []
        for metric in metrics:
            f = row.metrics.get(metric)
            ends = (None, None, None) if f is None else (f.value, f.low, f.high)
            cells += ["" if end is None else f"{end:.12g}" for end in ends]
        writer.writerow([row.system, row.kind, len(row.seeds), *cells])
    return out.getvalue()
