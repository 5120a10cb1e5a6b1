"""Dictionaries that somebody else trained: folders in SAELens' format, or releases of its list."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from saes import stored
from saes.dictionary import CONFIG_FILE, WEIGHTS_FILE, Dictionary

LAYER = "{layer}"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Where dictionaries come from: `path`, a folder, or `release` and `id` of SAELens' list (fetched from the hub).

    `{layer}` in path or id stands for the layer's number. Raises ValueError when neither or both are given.
    """

    path: str | None = field(default=None, metadata={"doc": "Folder in SAELens' format; {layer}: the layer's number."})
    release: str | None = field(default=None, metadata={"doc": "Release in SAELens' list of pretrained dictionaries."})
    id: str | None = field(default=None, metadata={"doc": "Dictionary of that release; {layer}: the layer's number."})
    # Digest of what the folders hold, so that a result made from other files is not taken for this one's.
    contents: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if (self.path is None) == (self.release is None):
            raise ValueError("path None: name a folder in path, or a release and its id (one of the two)")
        if (self.release is None) != (self.id is None):
            raise ValueError(f"id {self.id!r}: a release needs the id of a dictionary in it, a path needs none")

    @property
    def name(self) -> str:
        return self.path or f"{self.release}/{self.id}"

    def notes(self) -> list[str]:
        return []

    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose code runs it, whatever the folder turns out to hold."""
        return (type(self).__module__, *stored.modules())

    def check_layers(self, layers: int) -> None:
        """Raises ValueError when several layers would get one and the same dictionary."""
        if layers > 1 and LAYER not in self.name:
            raise ValueError(
                f"{self.name} is one dictionary for {layers} layers: name one layer, or write {LAYER} in it"
            )

    def folder(self, layer: int) -> Path | None:
        """Where the dictionary of a layer lies, None for a release."""
        return None if self.path is None else Path(self.path.replace(LAYER, str(layer))).expanduser()

    def check_folder(self, layer: int, width: int) -> bool:
        """Whether its config says that it is a transcoder. Raises ValueError when the folder holds no usable dictionary
        or one of another width; for releases this is found out when they are loaded, and the answer is False."""
        folder = self.folder(layer)
        if folder is None:
            return False
        dictionary = stored.load(folder)  # all of it, so that nothing is found out after a subject was trained
        _check_widths(str(folder), dictionary.d_in, dictionary.d_out, width)
        return "transcoder" in str(json.loads((folder / CONFIG_FILE).read_text())["architecture"])

    def with_contents(self, layers: Sequence[int]) -> Pretrained:
        """The same, knowing what the folders of these layers hold now."""
        sha = hashlib.sha256()
        for folder in map(self.folder, layers):
            if folder is not None:
                sha.update((folder / CONFIG_FILE).read_bytes())
                sha.update((folder / WEIGHTS_FILE).read_bytes())
        known = copy.copy(self)
        object.__setattr__(known, "contents", sha.hexdigest())
        return known

    def load(self, layer: int, width: int) -> Dictionary:
        """The dictionary for a layer of a subject of this width. Raises ValueError where they do not fit."""
        folder = self.folder(layer)
        if folder is not None:
            dictionary = stored.load(folder)
        else:
            assert self.release is not None
            assert self.id is not None
            dictionary = stored.load_release(self.release, self.id.replace(LAYER, str(layer)))
        _check_widths(self.name, dictionary.d_in, dictionary.d_out, width)
        return dictionary


def _check_widths(name: str, d_in: int, d_out: int, width: int) -> None:
    if (d_in, d_out) != (width, width):
        raise ValueError(f"the dictionary {name} reads width {d_in} and writes {d_out}, the subject has width {width}")
