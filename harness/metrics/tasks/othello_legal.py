"""Does a model keep to the rules of Othello? Asked at every half-move, without examples: all legal moves are known.

Only where a half-move is due (a pass that is forced is one) and the sequence shows the game from its beginning: of a
game that the sequence cuts, nobody can know the board.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.corpus import Document
from harness.corpus.othello import PASS, SQUARES, legal_after
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Measurement, not_applicable
from harness.tables.statistics import document_bootstrap

if TYPE_CHECKING:
    from harness.corpus.stored import Batch

DOMAIN = "othello6"
_WORDS = 257  # of a vocabulary without merges: the bytes and the end of text
# By row of the documents table: which half-moves may follow each beginning of the game `[half-moves + 1, 37]`.
Games = Mapping[int, NDArray[np.bool_]]


def games_of(documents: Mapping[int, Document]) -> Games:
    return {row: legal_after(document.text) for row, document in documents.items() if document.domain == DOMAIN}


def scores(evaluation: Evaluation, games: Games, version: int, suffix: str) -> list[Measurement]:
    """`tasks/othello_legal`: how often the likeliest token is a legal half-move; `tasks/othello_legal_mass`: the
    probability that all legal ones have together. Nothing where there are no games."""
    names = [f"tasks/othello_legal{suffix}", f"tasks/othello_legal_mass{suffix}"]
    assert evaluation.tokenizer is not None, "the metric asked for it"
    if not games:
        return []
    if len(evaluation.tokenizer) > _WORDS:
        return not_applicable(names, version, f"a token may be several half-moves (vocab_size above {_WORDS})")
    tokens = torch.tensor(evaluation.tokenizer.convert_tokens_to_ids([*SQUARES, PASS]))
    likeliest, mass, asked = (evaluation.document_sums() for _ in range(3))
    for batch in evaluation.batches():
        sequence, place, legal = due(batch, games)
        if not len(legal):
            continue
        with torch.no_grad():
            logits = evaluation.system.model(batch.input_ids, use_cache=False).logits[sequence, place]
        of_token = _by_token(legal, tokens, logits.shape[-1]).to(logits.device)
        document = batch.document[sequence, place]
        evaluation.by_document(document, of_token.gather(1, logits.argmax(1, keepdim=True))[:, 0], likeliest)
        evaluation.by_document(document, (logits.float().softmax(1) * of_token).sum(1), mass)
        evaluation.by_document(document, torch.ones(len(legal)), asked)
    saw = f"{int(asked.sum()):,} half-moves of games that begin in their sequence"
    found = []
    for name, sums, unit in zip(names, (likeliest, mass), ("accuracy", "share of probability"), strict=True):
        replicates = document_bootstrap(sums.numpy(), asked.numpy(), evaluation.resamples)
        value = float(sums.sum() / asked.sum())
        found.append(Measurement(name, value, unit, "higher", version, replicates, "documents", saw=saw))
    return found


def due(batch: Batch, games: Games) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens after which a half-move is due, in games that begin in their sequence: sequence and place `[n]`, and
    which half-moves are legal `[n, 37]`."""
    sequences, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    legal = [np.zeros((0, len(SQUARES) + 1), bool)]
    rows, n_bytes = batch.document.cpu().numpy(), batch.n_bytes.cpu().numpy()
    for sequence, (documents, sizes) in enumerate(zip(rows, n_bytes, strict=True)):
        starts = np.flatnonzero(sizes == 0)  # an end of text begins a document
        for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True):
            ways = games.get(int(documents[start]))
            if ways is None:
                continue
            shown = ways[: stop - start]
            to_play = np.flatnonzero(shown.any(1))  # all but the end of a game
            sequences.append(np.full(len(to_play), sequence))
            places.append(start + to_play)
            legal.append(shown[to_play])
    return (
        torch.from_numpy(np.concatenate(sequences)),
        torch.from_numpy(np.concatenate(places)),
        torch.from_numpy(np.concatenate(legal)),
    )


def _by_token(legal: Tensor, tokens: Tensor, n_tokens: int) -> Tensor:
    """`[n, 37]` → `[n, n_tokens]`"""
    found = torch.zeros(len(legal), n_tokens, dtype=torch.bool)
    found[:, tokens] = legal
    return found
