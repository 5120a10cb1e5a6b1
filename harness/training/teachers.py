"""Teachers from elsewhere: a Hugging Face model, named `hf:<folder or Hub id>`, with the corpus's tokenizer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PREFIX = "hf:"
_WEIGHTS = "*.safetensors"


def folder_of(name: str, where: str) -> Path:
    """The folder of a teacher named `hf:...`; what is no folder is fetched from the Hub. Raises BadInput."""
    named = name.removeprefix(PREFIX)
    folder = Path(named)
    if not folder.is_dir():
        try:
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(named, allow_patterns=["*.json", "*.txt", "*.model", _WEIGHTS]))
        except Exception as error:
            reason = " ".join(str(error).split())[:120]
            raise BadInput(f"{where} = {name!r}: neither a folder nor to be had from the Hub ({reason})") from error
    if not (folder / "config.json").is_file() or not list(folder.glob(_WEIGHTS)):
        raise BadInput(
            f"{where} = {name!r}: the folder has no config.json with *.safetensors, as save_pretrained writes"
        )
    return folder


def digest_of(folder: Path) -> str:
    """SHA-256 over the model's configuration and weights."""
    total = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob(_WEIGHTS)):
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast, row: str) -> None:
    """Raises BadInput where teacher and student do not read the same tokens: KL compares them one by one."""
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise BadInput(f"systems.{row}: teacher {folder} has no tokenizer to compare with the corpus's") from error
    vocabulary = json.loads((folder / "config.json").read_text()).get("vocab_size")
    if theirs.get_vocab() != tokenizer.get_vocab():
        raise BadInput(
            f"systems.{row}: teacher {folder} has another tokenizer ({len(theirs)} tokens) than the corpus "
            f"({len(tokenizer)} tokens); name a teacher that was trained on this corpus"
        )
    if vocabulary != len(tokenizer):
        raise BadInput(
            f"systems.{row}: teacher {folder} predicts {vocabulary} tokens, the corpus has {len(tokenizer)}; they must "
            "be the same"
        )
