"""Rows whose subject was trained elsewhere: what `hf:<folder or Hub id>[dtype=bfloat16,...]` means."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.base import foreign
from harness.base.errors import BadInput
from harness.base.settings import Strict, validated
from harness.corpus.config import CorpusConfig, TokenizerFrom
from models import ARCHITECTURES, monet_release
from models.pretrained import EXPERT_COUNTS

_CACHED = "models--"  # how the Hub's cache calls the folder of a model


class PretrainedOptions(Strict):
    """What can stand in the brackets, or below the row."""

    revision: str | None = Field(default=None, description="Of the Hub's repository; main when left out.")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    gguf_file: str | None = Field(default=None, description="The GGUF file in it that is read.")
    names: dict[Literal["blocks", "final_norm", "mlp", "out", "norm_after"], str] | None = Field(
        default=None, description="Where an unknown family keeps its modules (models/pretrained.py)."
    )
    begin: str | None = Field(
        default=None, description="The token that begins a document; when left out, its tokenizer's beginning of text."
    )
    untrained: bool = Field(default=False, description="A control: the same shape, as it is initialised.")
    variant: str | None = None


@dataclass(frozen=True)
class PretrainedShape:
    """What a row asks of a subject's configuration. name: what the model is called; dtype: what it runs in; centres:
    whether its norms take the mean away, as LayerNorms do."""

    n_layers: int
    d_model: int
    vocab_size: int
    max_length: int | None
    name: str
    dtype: str
    centres: bool

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """None of them can be chosen."""
        return {}


@dataclass(frozen=True)
class PretrainedModel:
    """A model from elsewhere. folder: where it lies; name: what it is called; begin: see `PretrainedOptions`."""

    folder: Path
    name: str
    dtype: str
    gguf_file: str | None
    names: tuple[tuple[str, str], ...]
    begin: str | None = None

    @cached_property
    def digest(self) -> str:
        return foreign.digest_of(self.folder, self.gguf_file)

    @property
    def is_monet(self) -> bool:
        """Whether it is read into our own `monet`."""
        return self.gguf_file is None and monet_release.reads(self.folder)

    @cached_property
    def kind(self) -> Literal["dense", "experts"]:
        """Whether its feed-forward layers are pools of experts. Raises ValueError as `shape` does."""
        text: Any = None if self.is_monet else self._config().get_text_config()
        return "experts" if text is None or any(getattr(text, name, None) for name in EXPERT_COUNTS) else "dense"

    @property
    def modules(self) -> tuple[str, ...]:
        """What computes it, beside transformers. Raises ValueError where no architecture does."""
        if not self.is_monet:
            return ("models.pretrained",)
        return ("models.pretrained", ARCHITECTURES.modules()[monet_release.architecture(self.folder)])

    @cached_property
    def shape(self) -> PretrainedShape:
        """Raises ValueError where the configuration cannot be read."""
        text: Any = monet_release.config_of(self.folder) if self.is_monet else self._config().get_text_config()
        longest = [getattr(text, name, None) for name in ("max_position_embeddings", "sliding_window")]
        return PretrainedShape(
            text.num_hidden_layers,
            text.hidden_size,
            text.vocab_size,
            min(filter(None, longest), default=None),
            self.name,
            self.dtype,
            centres=not hasattr(text, "rms_norm_eps"),
        )

    def _config(self) -> Any:
        from transformers import AutoConfig

        more = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        try:
            return AutoConfig.from_pretrained(self.folder, trust_remote_code=False, **more)
        except (OSError, ValueError, KeyError, ImportError, struct.error) as error:
            raise ValueError(f"its configuration cannot be read ({' '.join(str(error).split())[:160]})") from error


def pretrained_model(
    name: str, settings: dict[str, Any], row: str, sequence_length: int
) -> tuple[PretrainedModel, bool]:
    """The model of a row, and whether it is asked for untrained. Raises BadInput."""
    where = f"systems.{row}"
    asked = validated(PretrainedOptions, settings, where=where)
    folder, gguf_file = _where(name, where, asked)
    foreign.check_tokenizer_files(folder, where, gguf_file)
    names = tuple(sorted((asked.names or {}).items()))
    model = PretrainedModel(folder, _called(name, folder), asked.dtype, gguf_file, names, asked.begin)
    try:
        shape = model.shape
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None
    if shape.max_length is not None and sequence_length > shape.max_length:
        raise BadInput(
            f"{where}: it attends to {shape.max_length} tokens at most, and corpus.sequence_length = {sequence_length}"
        )
    return model, asked.untrained


def _where(name: str, where: str, asked: PretrainedOptions) -> tuple[Path, str | None]:
    """Folder and GGUF file."""
    short = name.removeprefix(foreign.PREFIX)
    if short not in foreign.PACKAGED:
        return foreign.folder_of(name, where, asked.revision, asked.gguf_file), asked.gguf_file
    found = foreign.packaged(short)
    if found is None:
        raise BadInput(f"{where}: {short} comes as a package that is not installed: {foreign.INSTALL} (make smollm)")
    return found


def _called(name: str, folder: Path) -> str:
    """The Hub's id of a model; of a folder, what its configuration says, else what the folder is called."""
    named = name.removeprefix(foreign.PREFIX)
    if not Path(named).expanduser().is_dir():
        return named
    config = folder / "config.json"
    said = json.loads(config.read_text()).get("_name_or_path") if config.is_file() else None
    of_cache = next((part for part in folder.absolute().parts if part.startswith(_CACHED)), None)
    if of_cache is not None:
        return of_cache.removeprefix(_CACHED).replace("--", "/")
    return str(said) if said else folder.absolute().name


def is_pretrained(name: str) -> bool:
    return name.startswith(foreign.PREFIX)


def as_read_by(corpus: CorpusConfig, model: PretrainedModel) -> CorpusConfig:
    """The same documents in the model's own tokens."""
    return corpus.model_copy(
        update={"tokenizer": TokenizerFrom(folder=model.folder, gguf_file=model.gguf_file, begin=model.begin)}
    )
