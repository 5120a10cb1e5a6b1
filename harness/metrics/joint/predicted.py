"""What units predict together on held-out text: the A·B term of a pair, and products of units in a readout of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from harness.metrics.joint import board, null, readout, sampling
from harness.metrics.joint.firing import Firing
from harness.metrics.joint.interaction import PaddedContexts, interaction
from harness.metrics.joint.work import DOCUMENTS, Work
from harness.systems.system import Site
from harness.tables.measurement import Direction, Measurement

_AT_ONCE = 24  # pairs whose A·B terms are fitted together: they hold pairs × contexts × outcomes


def interactions(work: Work) -> Iterator[Measurement]:
    names = "interaction_gain", "interaction_gain_shuffled"
    if not any(len(pairs) for pairs in work.pairs.values()):
        for name in names:
            yield work.figure(name, np.nan, "bit/meeting", work.none_drawn())
        return
    if few := work.few_documents():
        for name in names:
            yield work.figure(name, np.nan, "bit/meeting", few)
        return
    common = sampling.outcomes_of(work.dev_text, work.options.outcomes)
    y_dev, y_test = (sampling.as_outcomes(text, common) for text in (work.dev_text, work.text))
    fold = work.folds(2)
    offset_dev, offset_test = _offsets(work, y_dev, fold, len(common) + 1)
    sums = np.zeros((2, len(work.evaluation.documents), 2))
    for site, pairs in work.pairs.items():
        for start in range(0, len(pairs), _AT_ONCE):
            some = pairs[start : start + _AT_ONCE]
            dev, _ = _contexts(work, work.dev, site, some, y_dev, offset_dev, fold, work.dev_text)
            nowhere = np.zeros(len(y_test), np.int64)
            test, tokens = _contexts(work, work.test, site, some, y_test, offset_test, nowhere, work.text)
            for kind in (0, 1):
                if kind:
                    dev, test = (replace(part, b=_permuted(work, part.b, part.weight)) for part in (dev, test))
                gain = interaction(dev, test).gain.double().numpy()
                real = tokens >= 0
                row = work.document_rows(work.text.document[tokens[real]])
                np.add.at(sums[kind, :, 0], row, gain[real])
                np.add.at(sums[kind, :, 1], row, test.both.numpy()[real])
    for name, (gain, n) in zip(names, sums.transpose(0, 2, 1), strict=True):
        yield work.by_documents(name, gain, n, "bit/meeting", "lower" if name == "interaction_gain" else "none")


@dataclass(frozen=True)
class _Target:
    """Something that a readout predicts: y of dev and of eval, `[tokens]` or `[tokens, questions]`, which tokens it is
    asked on, how many outcomes a question has; lacking: why it cannot be asked."""

    name: str
    outcomes: int
    y: tuple[np.ndarray, np.ndarray]
    asked: tuple[np.ndarray, np.ndarray]
    unit: str = "bit/token"
    lacking: str | None = None

    @property
    def figures(self) -> list[str]:
        names = [f"additive_gain_{self.name}", f"products_gain_{self.name}"]
        return [*names, "products_gain_next_shuffled"] if self.name == "next" else names


def products(work: Work) -> Iterator[Measurement]:
    layout = sampling.Layout.of(work.dev)
    held_out = work.folds(3) == 0
    for target in _targets(work, held_out):
        if target.lacking:
            for figure in target.figures:
                yield work.figure(figure, np.nan, target.unit, target.lacking)
            continue
        kinds = [(work.dev, work.test)]
        if target.name == "next":
            shuffle = lambda sites: {  # noqa: E731
                site: null.curveball(firing, work.rng, within_documents=True) for site, firing in sites.items()
            }
            kinds.append((shuffle(work.dev), shuffle(work.test)))
        for kind, (dev, test) in enumerate(kinds):
            at_dev, at_test = (torch.from_numpy(np.flatnonzero(part)) for part in target.asked)
            y_dev, y_test = (torch.from_numpy(part) for part in target.y)
            found = readout.gain(
                layout.codes(dev).at(at_dev),
                y_dev[at_dev],
                torch.from_numpy(held_out)[at_dev],
                layout.codes(test).at(at_test),
                y_test[at_test],
                outcomes=target.outcomes,
                rank=work.options.rank,
                epochs=work.options.epochs,
                generator=torch.Generator().manual_seed(int(work.rng.integers(2**31))),
            )
            row = work.document_rows(work.text.document[target.asked[1]])
            n = np.bincount(row, minlength=len(work.evaluation.documents))
            additive, gain, *shuffled = target.figures
            gained = {gain: found.gain, additive: found.nothing - found.additive}
            if kind:
                gained = {shuffled[0]: found.gain}
            for figure, bits in gained.items():
                direction: Direction = "lower" if figure == gain else "none"
                sums = np.bincount(row, bits, minlength=len(n))
                yield work.by_documents(figure, sums, n.astype(float), target.unit, direction)


def _targets(work: Work, held_out: np.ndarray) -> Iterator[_Target]:
    few = work.few_documents()
    dev, test = work.dev_text, work.text
    common = sampling.outcomes_of(dev, work.options.outcomes)
    following = sampling.as_outcomes(dev, common), sampling.as_outcomes(test, common)
    yield _Target("next", len(common) + 1, following, (dev.next >= 0, test.next >= 0), lacking=few)
    domains = _domains(work)
    everywhere = np.ones(len(dev.ids), bool), np.ones(len(test.ids), bool)
    one = "the corpus has one domain" if domains == 1 else None
    yield _Target("domain", domains, (dev.domain, test.domain), everywhere, lacking=few or one)
    yield _board(work, held_out)


def _board(work: Work, held_out: np.ndarray) -> _Target:
    dev, test, document = work.dev_text, work.text, work.evaluation.document
    games = [len(np.unique(text.document[text.ply >= 0])) for text in (dev, test)]
    asked = dev.ply >= 0, test.ply >= 0
    lacking = None
    if document is None or not any(games):
        lacking = "the corpus has no games"
    elif games[0] < DOCUMENTS or games[1] < 2 or len(np.unique(held_out[asked[0]])) < 2:
        lacking = f"underpowered: {games[0]} games of dev and {games[1]} of eval; at least {DOCUMENTS} and 2 are needed"
    if document is None or lacking:
        return _Target("board", board.HOLDERS, (dev.ply, test.ply), asked, "bit/square", lacking)
    held = board.holders(dev, document), board.holders(test, document)
    return _Target("board", board.HOLDERS, held, asked, "bit/square")


def _offsets(work: Work, y: np.ndarray, fold: np.ndarray, outcomes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities `[tokens, outcomes]` on dev and eval by a readout of all units, current token and domain: on
    dev each half of the documents by what was fitted on the other, on eval the mean of both."""
    layout = sampling.Layout.of(work.dev)
    classes = (int(max(text.ids.max() for text in (work.dev_text, work.text))) + 1, _domains(work))
    dev = layout.codes(work.dev, (work.dev_text.ids, work.dev_text.domain), classes)
    test = layout.codes(work.test, (work.text.ids, work.text.domain), classes)
    ended = work.dev_text.next < 0
    at = torch.from_numpy(np.flatnonzero(~ended))
    on_dev = torch.zeros(dev.n_tokens, outcomes)
    on_test = torch.zeros(test.n_tokens, outcomes)
    for half in (0, 1):
        there = torch.from_numpy(fold == half)
        model = readout.additive_readout(
            dev.at(at),
            torch.from_numpy(y)[at],
            there[at],
            outcomes=outcomes,
            epochs=work.options.epochs,
            generator=torch.Generator().manual_seed(int(work.rng.integers(2**31))),
        )
        with torch.no_grad():
            on_dev[there] = model(dev.at(there.nonzero()[:, 0])).log_softmax(-1)
            on_test += model(test).log_softmax(-1) / 2
    return on_dev, on_test


def _contexts(
    work: Work,
    sites: dict[Site, Firing],
    site: Site,
    pairs: np.ndarray,
    y: np.ndarray,
    offset: torch.Tensor,
    fold: np.ndarray,
    text: sampling.Positions,
) -> tuple[PaddedContexts, np.ndarray]:
    firing = sites[site]
    values = sampling.Layout.of({site: work.dev[site]}).values(site, firing)
    return sampling.contexts_of(firing, values, pairs, y, offset, fold, text.next >= 0, work.options.contexts, work.rng)


def _permuted(work: Work, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Each row's values among its contexts, padding left where it is."""
    noise = torch.from_numpy(work.rng.random(values.shape, np.float32))
    order = torch.where(weight > 0, noise, 2.0).argsort(1)  # padding stands at the end
    return values.gather(1, order)


def _domains(work: Work) -> int:
    return int(max(text.domain.max() for text in (work.dev_text, work.text))) + 1
