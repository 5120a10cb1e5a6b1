from collections import Counter, defaultdict
from math import log
from types import SimpleNamespace

import numpy as np
import pytest

from harness.base.errors import BadInput
from harness.corpus.references import _discounts, bigram, kneser_ney, log_probabilities, unigram

START = -1  # what precedes a stream


def random_tokens(seed, sequences, length, vocab):
    """Tokens with some order in them: each depends on the one before."""
    chance = np.random.default_rng(seed)
    flat = [0]
    while len(flat) < sequences * length:
        flat.append(int((flat[-1] * 3 + chance.geometric(0.5) - 1) % vocab))
    return np.array(flat).reshape(sequences, length)


def naive_kneser_ney(train, evaluation, vocab, order):
    """By dictionaries, one token at a time."""
    stream = [START] * (order - 1) + train.reshape(-1).tolist()
    grams = {
        n: [tuple(stream[at - n + 1 : at + 1]) for at in range(order - 1, len(stream))] for n in range(1, order + 1)
    }
    counts = {order: Counter(grams[order])}
    for n in range(1, order):
        counts[n] = Counter(gram[1:] for gram in set(grams[n + 1]))
    total, following, taken = {}, {}, {}
    for n, found in counts.items():
        # Every gram seen in training has a count, whatever its order.
        taken[n] = _discounts(np.array(list(found.values())))
        total[n], following[n] = Counter(), defaultdict(list)
        for gram, count in found.items():
            total[n][gram[:-1]] += count
            following[n][gram[:-1]].append(count)

    def probability(context, token, n):
        if n == 0:
            return 1 / vocab
        context = context[len(context) - n + 1 :]
        lower = probability(context[1:], token, n - 1)
        if not total[n][context]:
            return lower
        count = counts[n][(*context, token)]
        freed = sum(taken[n][min(each, 3)] for each in following[n][context])
        return (max(count - taken[n][min(count, 3)], 0) + freed * lower) / total[n][context]

    scored = [START] * (order - 1) + evaluation.reshape(-1).tolist()
    found = [probability(tuple(scored[at - order + 1 : at]), scored[at], order) for at in range(order - 1, len(scored))]
    return np.array(found).reshape(evaluation.shape)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [4, 40])
def test_kneser_ney_is_the_naive_one(order, size):
    train, evaluation = random_tokens(0, size, 16, 11), random_tokens(1, 6, 16, 13)
    found = kneser_ney(train, train, evaluation, 13, order)
    np.testing.assert_allclose(found, naive_kneser_ney(train, evaluation, 13, order), rtol=1e-12)


def test_kneser_ney_by_hand():
    # Training a b a c, order 2. Bigrams: ^a, ab, ba, ac, each once, so every discount is 0.75.
    # Left neighbours: a 2 (^, b), b 1, c 1, of 4; each loses 0.75, and 3 · 0.75/4 goes to the uniform 1/3.
    train, scored = np.array([[0, 1, 0, 2]]), np.array([[0, 1, 1]])
    freed = 3 * 0.75 / 4 / 3
    a, b = (2 - 0.75) / 4 + freed, (1 - 0.75) / 4 + freed
    # After the start: a once. After a: b and c. After b: a alone, so b gets what is freed.
    wanted = [(1 - 0.75) / 1 + 0.75 * a, (1 - 0.75) / 2 + 2 * 0.75 / 2 * b, 0.75 * b]
    np.testing.assert_allclose(kneser_ney(train, train, scored, 3, order=2), [wanted], rtol=1e-12)


def test_discounts_follow_chen_and_goodman():
    counts = np.repeat([1, 2, 3, 4, 9], [50, 20, 10, 5, 7])
    y = 50 / (50 + 2 * 20)
    np.testing.assert_allclose(_discounts(counts), [0, 1 - 2 * y * 20 / 50, 2 - 3 * y * 10 / 20, 3 - 4 * y * 5 / 10])
    np.testing.assert_array_equal(_discounts(np.array([1, 1, 2])), [0, 0.75, 0.75, 0.75])


def test_unigram_by_hand():
    found = unigram(np.array([[0, 0, 1, 2]]), np.array([[0]]), np.array([[0, 1, 3]]), 4)
    np.testing.assert_allclose(found, [[3 / 8, 2 / 8, 1 / 8]])


def test_bigram_by_hand():
    # Training 0 1 0 1 0 2: c(0) is 3, of which two go to 1; c(1) is 2, both to 0. 3 was never seen.
    train = np.array([[0, 1, 0, 1, 0, 2]])
    single = np.array([4, 3, 2, 1]) / 10
    found = bigram(train, train, np.array([[3, 1, 0, 1]]), 4)[0]
    assert found[1] == single[1]  # after a token that training does not have

    def weight(ratio, back):
        """The fixed point of expectation maximisation for one λ, by search."""
        grid = np.linspace(0.0001, 0.9999, 9999)
        score = np.log(np.outer(grid, ratio) + np.outer(1 - grid, back)).sum(1) + np.log(grid) + np.log(1 - grid)
        return grid[score.argmax()]

    # c(0) = 3 and c(1) = 2 share ⌈log₂(1 + c)⌉ = 2; the five pairs of training serve as dev.
    λ = weight([2 / 3, 1, 2 / 3, 1, 1 / 3], single[[1, 0, 1, 0, 2]])
    np.testing.assert_allclose(found[2:], [λ * 1 + (1 - λ) * 0.4, λ * 2 / 3 + (1 - λ) * 0.3], atol=1e-3)


@pytest.mark.parametrize("model", [unigram, bigram, kneser_ney])
def test_probabilities_sum_to_one_over_the_vocabulary(model):
    vocab = 13
    train = random_tokens(0, 60, 16, 11)  # 11 and 12 never occur
    for context in ([1, 3, 9, 5], [5, 5, 5, 5], [12, 11, 12, 11], [12, 12, 0, 1]):
        scored = np.array([[*context, token] for token in range(vocab)])
        # Each row is a stream of its own, so that every token is scored after this very context.
        last = [model(train, train, row[None], vocab)[0, -1] for row in scored]
        assert sum(last) == pytest.approx(1, abs=1e-12)
        assert min(last) > 0


def test_a_longer_context_helps_where_there_is_one(corpus_of_words):
    losses = {name: -log_probabilities(name, corpus_of_words).mean() for name in ("unigram", "bigram", "kneser_ney")}
    assert losses["kneser_ney"] < losses["bigram"] < losses["unigram"] < log(60)


@pytest.fixture
def corpus_of_words():
    """Words of three tokens, each beginning alike: order 1 cannot tell them apart."""

    def split(seed, sequences):
        chance = np.random.default_rng(seed)
        dictionary = np.array([[1, 2 + w % 4, 10 + w] for w in range(40)])
        tokens = dictionary[chance.integers(0, 40, sequences * 8) // chance.integers(1, 9, sequences * 8)]
        return SimpleNamespace(column=lambda name: {"input_ids": tokens.reshape(sequences, 24)}[name])

    return SimpleNamespace(
        train=split(0, 200), dev=split(1, 10), eval=split(2, 20), info=SimpleNamespace(vocab_size=60)
    )


def test_the_shape_is_that_of_the_evaluation_split_and_the_unit_nats(corpus_of_words):
    found = log_probabilities("unigram", corpus_of_words)
    assert found.shape == (20, 24)
    assert found.dtype == np.float64
    counts = np.bincount(corpus_of_words.train.column("input_ids").reshape(-1), minlength=60)
    assert found[0, 0] == pytest.approx(log((counts[1] + 1) / (counts.sum() + 60)))


def test_an_unknown_reference_is_refused(corpus_of_words):
    with pytest.raises(BadInput, match="no reference 'trigram'; there are: unigram, bigram, kneser_ney"):
        log_probabilities("trigram", corpus_of_words)
