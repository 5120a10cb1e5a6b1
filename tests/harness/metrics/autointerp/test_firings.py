from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from harness.base.errors import HarnessError
from harness.metrics.autointerp.firings import Firings, Text, explaining_documents
from harness.systems.system import Encoded
from kernels.codes import Codes


def words(name: Callable[[int], str]) -> Any:
    """A tokenizer of whole words: `name(token)` each, and no end-of-text token."""
    return SimpleNamespace(
        convert_ids_to_tokens=name, decode=lambda ids: name(ids[0]), all_special_ids=[], eos_token_id=None
    )


def encoded(strengths: torch.Tensor) -> Encoded:
    codes = Codes.from_dense(strengths, torch.zeros(len(strengths), 2, dtype=torch.long))
    return Encoded(codes, codes.values.abs())


def test_a_unit_fires_where_it_is_among_the_strongest_of_a_token() -> None:
    made = encoded(torch.tensor([[1.0, -5.0, 2.0, 0.0], [0.0, 0.0, 3.0, 0.0], [4.0, 3.0, 2.0, 1.0]]))
    kept = made.strongest(2)
    assert list(zip(made.codes.token_of_entry()[kept].tolist(), made.codes.units[kept].tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 2), (2, 0), (2, 1),
    ]  # fmt: skip
    assert made.strongest(4).all()


def test_every_unit_has_its_tokens_and_strengths_whatever_its_number() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(50, 12, generator=generator) * (torch.rand(50, 12, generator=generator) < 0.3)
    dense[:, 5] = 0
    order = torch.randperm(12, generator=generator)
    one, two = (Firings.of("s", encoded(d), 12) for d in (dense, dense[:, order]))
    assert 5 not in one.units
    for column, unit in enumerate(one.units):
        tokens, strengths = one.of_column(column)
        assert tokens.tolist() == dense[:, unit].nonzero()[:, 0].tolist()
        assert strengths.tolist() == dense[:, unit][dense[:, unit] > 0].tolist()
        assert order[two.units[column]] == unit  # the same column stands for the same unit, under its other number
        assert one.generator(column, 3).random() == two.generator(column, 3).random()
    both = (dense > 0).float().T @ (dense > 0).float()
    assert one.together(2).tolist() == both[one.units[2]][torch.as_tensor(one.units)].tolist()


def test_documents_are_halved_by_tokens() -> None:
    document = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 50, 40))
    chosen = explaining_documents(document, np.random.default_rng(0))
    share = np.isin(document, chosen).mean()
    assert 0.45 < share < 0.55
    with pytest.raises(HarnessError, match="at least 2 documents"):
        explaining_documents(np.zeros(9), np.random.default_rng(0))


def test_windows_end_where_their_document_or_sequence_ends() -> None:
    ids = torch.arange(10).reshape(2, 5)
    batch = SimpleNamespace(input_ids=ids, document=torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 2, 2]]))
    evaluation = SimpleNamespace(tokenizer=words("t{}".format), codes_sequences=2, batches=lambda n: [batch])
    text = Text.of(cast(Any, evaluation), 3, 1, np.random.default_rng(0))
    assert text.low.tolist() == [0, 0, 2, 2, 2, 5, 5, 5, 8, 8]
    assert text.high.tolist() == [2, 2, 4, 5, 5, 7, 8, 8, 10, 10]
    assert text.pieces[7] == "t7"
    for document in range(3):
        assert len(set(text.explains[text.document == document])) == 1
