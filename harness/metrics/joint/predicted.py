"""What units predict together on held-out text: the A·B term of a pair, and products of units in a readout of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from harness.decomposition import Site
from harness.measurement import Direction, Measurement
from harness.metrics.joint import null, readout, sampling
from harness.metrics.joint.firing import Firing
from harness.metrics.joint.interaction import Contexts, interaction
from harness.metrics.joint.work import Work

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


def products(work: Work) -> Iterator[Measurement]:
    few = work.few_documents()
    layout = sampling.Layout.of(work.dev)
    held_out = work.folds(3) == 0
    common = sampling.outcomes_of(work.dev_text, work.options.outcomes)
    targets = {
        "next": (len(common) + 1, *(sampling.as_outcomes(text, common) for text in (work.dev_text, work.text))),
        "domain": (_domains(work), work.dev_text.domain, work.text.domain),
    }
    for name, (outcomes, y_dev, y_test) in targets.items():
        lacking = few or (None if outcomes > 1 else "the corpus has one domain")
        names = [f"additive_gain_{name}", f"products_gain_{name}"]
        names += ["products_gain_next_shuffled"] * (name == "next")
        if lacking:
            for figure in names:
                yield work.figure(figure, np.nan, "bit/token", lacking)
            continue
        usable_dev = work.dev_text.next >= 0 if name == "next" else np.ones(len(y_dev), bool)
        usable_test = work.text.next >= 0 if name == "next" else np.ones(len(y_test), bool)
        kinds = [(work.dev, work.test)]
        if name == "next":
            shuffle = lambda sites: {  # noqa: E731
                site: null.curveball(firing, work.rng, within_documents=True) for site, firing in sites.items()
            }
            kinds.append((shuffle(work.dev), shuffle(work.test)))
        for kind, (dev, test) in enumerate(kinds):
            at_dev, at_test = (torch.from_numpy(np.flatnonzero(part)) for part in (usable_dev, usable_test))
            found = readout.gain(
                layout.codes(dev).at(at_dev),
                torch.from_numpy(y_dev)[at_dev],
                torch.from_numpy(held_out)[at_dev],
                layout.codes(test).at(at_test),
                torch.from_numpy(y_test)[at_test],
                outcomes=outcomes,
                rank=work.options.rank,
                epochs=work.options.epochs,
                generator=torch.Generator().manual_seed(int(work.rng.integers(2**31))),
            )
            row = work.document_rows(work.text.document[usable_test])
            n = np.bincount(row, minlength=len(work.evaluation.documents))
            gained = {f"products_gain_{name}": found.gain, f"additive_gain_{name}": found.nothing - found.additive}
            if kind:
                gained = {"products_gain_next_shuffled": found.gain}
            for figure, bits in gained.items():
                direction: Direction = "lower" if figure == f"products_gain_{name}" else "none"
                sums = np.bincount(row, bits, minlength=len(n))
                yield work.by_documents(figure, sums, n.astype(float), "bit/token", direction)


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
    text: sampling.Text,
) -> tuple[Contexts, np.ndarray]:
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
