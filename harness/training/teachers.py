"""Teachers from elsewhere: a model of others (`foreign.py`) that reads the corpus's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


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
