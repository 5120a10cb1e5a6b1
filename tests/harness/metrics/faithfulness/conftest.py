"""Hand-built models: what every unit reads and writes is set, attention is silent, and effects are known."""

from __future__ import annotations

from typing import cast

import torch

import models
from harness.corpus.stored import Batch
from harness.systems.system import System

WIDTH, WORDS = 8, 6


class Split:
    """Sequences of tokens drawn at random, two documents each."""

    length = 12

    def __init__(self, seed: int, sequences: int = 16) -> None:
        ids = torch.randint(0, WORDS, (sequences, 12), generator=torch.Generator().manual_seed(seed))
        document = torch.arange(sequences)[:, None] * 2 + (torch.arange(12) >= 6).long()
        self.all = Batch(ids, document, torch.zeros_like(ids), torch.full_like(ids, 2), torch.full_like(ids, -1))

    def __len__(self) -> int:
        return len(self.all.input_ids)

    def batch(self, indices: torch.Tensor) -> Batch:
        columns = ("input_ids", "document", "domain", "n_bytes", "ply")
        return Batch(*(getattr(self.all, name)[indices] for name in columns))


def silent(layers: int, units: int) -> models.TrunkForCausalLM:
    """Token w is embedded along axis w, attention writes nothing, no unit reads or writes anything yet."""
    torch.manual_seed(0)
    model = models.build(
        "dense-relu", d_model=WIDTH, n_layers=layers, n_heads=2, d_ff=units, vocab_size=WORDS,
        max_position_embeddings=16, tie_word_embeddings=False,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("attention.", "w_in", "w_out")):
                parameter.zero_()
        embedding = cast(torch.nn.Embedding, model.get_input_embeddings()).weight
        embedding.zero_()
        embedding[:, :WORDS] = torch.eye(WORDS)
        model.lm_head.weight.copy_(torch.randn(WORDS, WIDTH, generator=torch.Generator().manual_seed(1)))
    return model


def unit(model: models.TrunkForCausalLM, layer: int, number: int, reads: torch.Tensor, writes: torch.Tensor) -> None:
    """Sets one unit: relu(reads · normalised x) times `writes`."""
    with torch.no_grad():
        feed_forward = model.feed_forwards()[layer]
        feed_forward.w_in.weight[number] = reads  # pyright: ignore
        feed_forward.w_out.weight[:, number] = writes  # pyright: ignore


def axis(number: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.eye(WIDTH)[number]


def system(model: models.TrunkForCausalLM) -> System:
    return System("built", model, None)
