"""Dictionaries that somebody else trained: folders in SAELens' format, or releases of its list."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saes import catalogue, cross_layer, stored
from saes.claims import Claims, Host
from saes.dictionary import CONFIG_FILE, WEIGHTS_FILE, Dictionary
from saes.hooks import Place

# In a path or id: the layer's number, or the next one's, as in the name of a hook before the next layer.
LAYER = re.compile(r"\{layer(\+1)?\}")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Where dictionaries come from: `path`, a folder, or `release` and `id` of SAELens' list (fetched from the hub).

    `{layer}` in path or id stands for the layer's number, `{layer+1}` for the next. Raises ValueError when neither or
    both are given, and where the list has no such release or id.
    """

    path: str | None = field(default=None, metadata={"doc": "Folder in SAELens' format; {layer}: the layer's number."})
    release: str | None = field(default=None, metadata={"doc": "Release in SAELens' list (harness list saes)."})
    id: str | None = field(default=None, metadata={"doc": "Dictionary of that release; {layer}: the layer's number."})
    trust: bool = field(default=False, metadata={"doc": "Whatever name the model has that it was trained on."})
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

    @property
    def by_layer(self) -> bool:
        """Whether each layer has a dictionary of its own, as far as the name tells."""
        return LAYER.search(self.name) is not None

    def notes(self) -> list[str]:
        return []

    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose code runs it, whatever the folder turns out to hold."""
        return (type(self).__module__, *stored.modules())

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raises ValueError when several layers would get one and the same dictionary."""
        if len(layers) > 1 and not self.by_layer and not self._cross_layer(layers[0]):
            raise ValueError(
                f"{self.name} is one dictionary for {len(layers)} layers: name one layer, or write {{layer}} in it"
            )

    def folder(self, layer: int) -> Path | None:
        """Where the dictionary of a layer lies, None for a release."""
        return None if self.path is None else Path(_at(self.path, layer)).expanduser()

    def claims(self, layer: int) -> Claims:
        """What the dictionary of a layer says of where it was trained; of a release its configuration alone is fetched.

        Raises ValueError where there is none, or where it cannot be had.
        """
        folder = self.folder(layer)
        if folder is None:
            found = Claims.of(self._release_config(layer))
        elif cross_layer.is_folder(folder):
            found = Claims.of(cross_layer.config_of(folder, layer))
        else:
            found = Claims.of(stored.config_of(folder))
        return found

    def check_listed(self, host: Host) -> None:
        """Raises ValueError where SAELens' list alone tells that it cannot be, before anything is fetched."""
        listed = None if self.release is None else catalogue.release(self.release)
        if listed is None:
            return
        if not self.by_layer:
            listed.check_id(self.id or "")
        if not self.trust:
            with _naming(listed.name):
                Claims(model=listed.model).check_name(host)

    def said_place(self) -> Place | None:
        """Where it was trained, for a row that does not say; None where that depends on the layer, or is not said."""
        if self.by_layer or self._cross_layer(0):
            return None
        with _naming(self.name):
            return self.claims(0).place()

    def check(self, layer: int, point: str, host: Host) -> None:
        """Raises ValueError, which says both sides, where the dictionary of a layer was not trained on what the row
        gives it; of a folder, also where it does not hold a usable one of the subject's width."""
        name = _at(self.name, layer)
        with _naming(name):
            self.claims(layer).check(host, layer, point, self.trust)
        if self.path is not None:  # all of it, so that nothing is found out after a subject was trained
            self.load(layer, host.width)

    def is_transcoder(self, layer: int) -> bool:
        return self.claims(layer).transcoder

    def with_contents(self, layers: Sequence[int]) -> Pretrained:
        """The same, knowing what the folders of these layers hold now."""
        sha = hashlib.sha256()
        for layer in layers:
            folder = self.folder(layer)
            if folder is None:
                continue
            across = cross_layer.is_folder(folder)
            names = (cross_layer.CONFIG, *cross_layer.files(layer)) if across else (CONFIG_FILE, WEIGHTS_FILE)
            for name in names:
                sha.update((folder / name).read_bytes())
        known = copy.copy(self)
        object.__setattr__(known, "contents", sha.hexdigest())
        return known

    def load(self, layer: int, width: int) -> Dictionary:
        """The dictionary for a layer of a subject of this width. Raises ValueError where they do not fit."""
        folder = self.folder(layer)
        if folder is not None:
            across = cross_layer.is_folder(folder)
            dictionary = cross_layer.load(folder, layer) if across else stored.load(folder)
        else:
            assert self.release is not None
            assert self.id is not None
            sae_id = _at(self.id, layer)
            if self._cross_layer(layer):
                there = self._fetched_layer(layer, weights=True)
                dictionary = cross_layer.load(*there)
            else:
                dictionary = stored.load_release(self.release, sae_id)
        _check_widths(_at(self.name, layer), dictionary.d_in, dictionary.d_out, width)
        return dictionary

    def notes_on(self, layer: int) -> list[str]:
        """What a reader of the row must know of what was read."""
        return [cross_layer.NOTE] if self._cross_layer(layer) else []

    def _cross_layer(self, layer: int) -> bool:
        folder = self.folder(layer)
        if folder is not None:
            return cross_layer.is_folder(folder)
        listed = catalogue.release(self.release or "")
        return listed is not None and listed.conversion == catalogue.CROSS_LAYER

    def _release_config(self, layer: int) -> dict[str, Any]:
        assert self.release is not None
        assert self.id is not None
        sae_id = _at(self.id, layer)
        listed = catalogue.release(self.release)
        if listed is not None:
            listed.check_id(sae_id)
        if self._cross_layer(layer):
            return cross_layer.config_of(*self._fetched_layer(layer, weights=False))
        return stored.release_config(self.release, sae_id)

    def _fetched_layer(self, layer: int, weights: bool) -> tuple[Path, int]:
        """Folder and layer of a release of a cross-layer transcoder, of which SAELens would sum the decoders."""
        listed = catalogue.release(self.release or "")
        assert listed is not None
        theirs = int(listed.ids[_at(self.id or "", layer)])
        return cross_layer.fetched(listed.repo, theirs, weights), theirs


def _at(name: str, layer: int) -> str:
    return LAYER.sub(lambda found: str(layer + (found[1] is not None)), name)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """What is wrong within is said of this dictionary."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error) if name in str(error) else f"{name}: {error}") from error


def _check_widths(name: str, d_in: int, d_out: int, width: int) -> None:
    if (d_in, d_out) != (width, width):
        raise ValueError(f"the dictionary {name} reads width {d_in} and writes {d_out}, the subject has width {width}")
