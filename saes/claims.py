"""What a published dictionary says of the model that it was trained on, held against the subject of a row.

A dictionary means something on the activations that it has learnt: of this model, at this site, made in this way. Read
elsewhere it still gives numbers. SAELens writes down where it was trained, so a row with another place is told both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from saes.hooks import Place, place_of_autoencoder, place_of_transcoder

# TransformerLens' changes of a model's weights, as SAELens notes them. Others (values' biases folded, the unembedding
# centred) leave the residual stream and what feed-forward layers read and write as they are.
CENTRED, FOLDED = "center_writing_weights", "fold_ln"
_ALSO_KNOWN_AS = {"gpt2-small": "gpt2", "mistral-7b": "mistral-7b-v0.1"}  # TransformerLens' names of its own
_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")
BEHIND_GAIN = "reads_behind_gain"  # of a copy that a row made, into whose encoder the gain went already
TRAINED_HERE = "trained_on"  # what this project writes into its own (harness/training/trained_on.py)
_WEIGHTS_IN = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Host:
    """What a row offers. name: of its subject; length: of its sequences; dtype: that the subject runs in, None where
    that is said elsewhere; centres: whether its norms take the mean away (LayerNorm), so that nobody reads it."""

    name: str
    width: int
    layers: int
    length: int
    dtype: str | None = None
    centres: bool = False


@dataclass(frozen=True)
class Claims:
    """None: it does not say. processed: TransformerLens' changes that the model had when it was trained. dtype: what
    its weights are kept in; subject_dtype: what the model ran in. begun: whether a token began every sequence.
    behind_gain: whether the norm's gain is in its encoder already. site: of a dictionary that was trained here, whose
    subject is known by its weights and not by name."""

    model: str | None = None
    hook: str | None = None
    hook_out: str | None = None
    hf_hook: str | None = None
    head: int | None = None
    transcoder: bool = False
    processed: frozenset[str] = frozenset()
    dtype: str = "float32"
    subject_dtype: str | None = None
    begun: bool | None = None
    context: int | None = None
    behind_gain: bool = False
    site: str | None = None

    @staticmethod
    def of(config: Mapping[str, Any]) -> Claims:
        """Of a `cfg.json`. From SAELens 6 on it keeps these under `metadata`, before that beside the rest; what its
        list of releases puts right stands there, too, and counts."""
        said = {**(config.get("metadata") or {}), **config}
        options = said.get("model_from_pretrained_kwargs") or {}
        here = said.get(TRAINED_HERE)
        return Claims(
            model=_text(said.get("model_name")),
            hook=_text(said.get("hook_name") or said.get("hook_point")),
            hook_out=_text(said.get("hook_name_out")),
            hf_hook=_text(said.get("hf_hook_name")),
            head=said.get("hook_head_index", said.get("hook_point_head_index")),
            transcoder="transcoder" in str(said.get("architecture")),
            processed=frozenset(name for name in (CENTRED, FOLDED) if options.get(name)),
            dtype=_dtype(said.get("dtype")) or "float32",
            subject_dtype=_dtype(options.get("dtype") or options.get("torch_dtype")),
            begun=said.get("prepend_bos"),
            context=said.get("context_size"),
            behind_gain=bool(said.get(BEHIND_GAIN)),
            site=str(here["site"]) if isinstance(here, Mapping) and "site" in here else None,
        )

    def place(self) -> Place | None:
        """Where it was trained; None where it does not say. Raises ValueError where that is no site here."""
        if self.site is not None:
            point, _, layer = self.site.rpartition(".")
            return Place(point, int(layer))
        if self.hook is None:
            return None
        if self.head is not None:
            raise ValueError(f"it was trained on head {self.head} of {self.hook}, and no site here is a head's")
        if self.transcoder:
            place = place_of_transcoder(self.hook, self.hook_out, self.hf_hook, FOLDED in self.processed)
            return replace(place, before_gain=place.before_gain and not self.behind_gain)
        return place_of_autoencoder(self.hook)

    def centred(self, centres: bool) -> bool:
        """Whether what it learnt lacks the mean over dimensions, which the model itself has. TransformerLens takes it
        out of what is written where nobody reads it, in models whose norms are LayerNorms (`centres`), and only there.
        """
        return CENTRED in self.processed and centres

    def check(self, host: Host, layer: int, point: str, trust: bool) -> None:
        """Raises ValueError, which says both sides, where it was not trained on what this site of the row gives. trust:
        whatever name the model has."""
        self._check_place(host, layer, point)
        if not trust:
            self.check_name(host)
        if point == "mlp":
            self._check_input(host)
        if self.dtype not in _WEIGHTS_IN:
            raise ValueError(f"its weights are kept in {self.dtype}, and those of {', '.join(_WEIGHTS_IN)} are read")
        if self.subject_dtype and host.dtype and self.subject_dtype != host.dtype:
            raise ValueError(
                f"its model ran in {self.subject_dtype}, and the row's runs in {host.dtype}: "
                f"hf:...[dtype={self.subject_dtype}] runs it alike"
            )
        if self.begun is False:
            raise ValueError(
                "it was trained on text that no token begins (prepend_bos false), and the row's sequences have one"
            )
        if self.context and host.length > self.context:
            raise ValueError(
                f"it was trained on contexts of {self.context} tokens, and corpus.sequence_length = {host.length}"
            )

    def _check_place(self, host: Host, layer: int, point: str) -> None:
        place = self.place()
        if place is None:
            return
        if place.layer >= host.layers:
            raise ValueError(
                f"it was trained at {self.hook or self.site}, and {host.name} has layers 0 to {host.layers - 1}"
            )
        if (place.point, place.layer) != (point, layer):
            hook = "" if self.hook is None else f"{self.hook}, which is "
            raise ValueError(f"it was trained at {hook}{place}, and the row puts it at {point} of layer {layer}")

    def check_name(self, host: Host) -> None:
        """Raises ValueError where it was trained on a model of another name, or does not say of which."""
        if self.site is not None:
            return
        if self.model is None:
            raise ValueError(
                f"it does not say which model it was trained on (trust=true attaches it to {host.name} all the same)"
            )
        if not _same_model(self.model, host.name):
            raise ValueError(
                f"it was trained on {self.model}, and the row's subject is {host.name} "
                "(trust=true if that is the same model by another name)"
            )

    def _check_input(self, host: Host) -> None:
        """Of a transcoder: what it reads and learns to write."""
        place = self.place()
        if self.centred(host.centres):
            raise ValueError(
                f"it learnt outputs whose mean TransformerLens had taken away ({CENTRED}), which it cannot know, and "
                f"{host.name} writes it"
            )
        if place is not None and place.before_gain and host.centres and FOLDED not in self.processed:
            raise ValueError(
                f"it reads {self.hook} of a LayerNorm whose gain was not folded, and whether that is before or behind "
                "the gain differs between versions of TransformerLens"
            )


def _same_model(one: str, other: str) -> bool:
    names = one.casefold().rstrip("/"), other.casefold().rstrip("/")
    if all(map(_ON_THE_HUB.fullmatch, names)) and names[0].split("/")[0] != names[1].split("/")[0]:
        return False
    last = [name.rpartition("/")[2].removeprefix("meta-") for name in names]
    return _ALSO_KNOWN_AS.get(last[0], last[0]) == _ALSO_KNOWN_AS.get(last[1], last[1])


def _text(value: object) -> str | None:
    return str(value) if value else None


def _dtype(value: object) -> str | None:
    return str(value).removeprefix("torch.") if value else None
