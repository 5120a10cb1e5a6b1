"""A system that is not what it says gets no row: one line, exit 2, before anything is spent on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.dense import Dense
from saes.dictionary import EncoderDecoder

EXPERIMENT = """
corpus: {kind: chess, bytes_per_domain: 40_000, vocab_size: 300, sequence_length: 32, plies: 30}
systems:
  dense: {d_model: 16, n_layers: 2, n_heads: 2, d_ff: 32}
  dense+topk: {k: 4, n_latents: 64}
metrics: [loss, sparsity]
training: {tokens: 512, batch_sequences: 8}
dictionary_training: {train_tokens: 1000}
evaluation: {sequences: 8, codes_sequences: 4, resamples: 100}
tracking: off
"""
Run = Callable[..., tuple[int, str]]


def run(in_process: Run, folder: Path) -> tuple[int, str, list[str]]:
    """Exit code, the error's line, and the kinds of stages that were finished."""
    (folder / "wrong.yaml").write_text(EXPERIMENT)
    code, said = in_process("run", str(folder / "wrong.yaml"), "--out", str(folder / "out"), store=folder / "store")
    errors = [line for line in said.splitlines() if "is not measured" in line]
    kinds = sorted({path.parent.parent.name for path in (folder / "store").glob("*/*/manifest.json")})
    return code, errors[0] if errors else said, kinds


def test_a_layer_that_sees_later_tokens_is_not_trained(
    in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Dense.forward

    def leaking(self: Dense, x: Tensor, position_ids: Tensor) -> Tensor:
        return true(self, x + 0.1 * x.roll(-1, 1), position_ids)

    monkeypatch.setattr(Dense, "forward", leaking)
    code, error, kinds = run(in_process, tmp_path)
    assert code == 2
    assert "dense is not measured: layer 0 (Dense): no token sees a later one" in error
    assert "subject" not in kinds
    assert not (tmp_path / "out" / "table.md").exists()


def test_a_dictionary_whose_codes_are_not_finite_is_not_read(
    in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true: Any = EncoderDecoder.read

    def wrong(self: EncoderDecoder, x: Tensor, rows: Tensor) -> Any:
        codes = true(self, x, rows)
        return codes.with_values(torch.full_like(codes.values, torch.nan))

    monkeypatch.setattr(EncoderDecoder, "read", wrong)
    code, error, kinds = run(in_process, tmp_path)
    assert code == 2
    assert "dense+topk is not measured: the dictionary at mlp_out.0: codes are finite" in error
    assert "subject" in kinds
    assert not (tmp_path / "out" / "table.md").exists()
