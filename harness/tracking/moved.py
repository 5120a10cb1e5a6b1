"""Artifacts of a store that was moved: MLflow writes where they are into its tables, as absolute addresses."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

_OURS = """
    select e.experiment_id, e.name, e.artifact_location from experiments e
    join experiment_tags t on t.experiment_id = e.experiment_id and t.key = 'harness.comparison'
"""


def follow_move(database: Path) -> None:
    """The artifacts of our experiments lie beside the database, in `artifacts/<name>`. Those that the tables look for
    elsewhere, and that are here or no longer there, are looked for here from now on: all of them or, at an error, none.

    A copy is a move too: else what runs on the copy would write among the artifacts of the original.
    """
    here = (database.parent / "artifacts").resolve()
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for experiment, name, location in connection.execute(_OURS).fetchall():
            place = here / name
            before = _path(location)
            if before is None or before == place or (before.exists() and not place.exists()):
                continue
            connection.execute(
                "update experiments set artifact_location = ? where experiment_id = ?", (place.as_uri(), experiment)
            )
            connection.execute(
                "update runs set artifact_uri = ? || substr(artifact_uri, ?) "
                "where experiment_id = ? and substr(artifact_uri, 1, ?) = ?",
                (place.as_uri(), len(location) + 1, experiment, len(location) + 1, f"{location}/"),
            )


def _path(location: str) -> Path | None:
    """Of an address on this machine's disk."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") and parts.path else None
