"""Does the joint metric find pairs of concepts that mean something else together? Asked where the answer is planted.

On a corpus whose labels name pairs of concepts with a relation (planted conjunctions, mixtures, additive pairs), the
units that tell the two concepts of a pair stand for it, and the joint metric's edits are made on them where both
concepts hold. What it says is counted against what was planted. `choosing.py` finds units and contexts, `edited.py`
runs the edits, `telling.py` counts. [U: ours]
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from pydantic import Field

from harness.base.settings import Strict
from harness.metrics.concepts.detection import detect
from harness.metrics.concepts.tellers import activity_of, concepts_of, tellers
from harness.metrics.concepts.tokens import Wanted
from harness.metrics.joint.pairs import Fired, fired
from harness.metrics.metric import register
from harness.metrics.planted_pairs.choosing import (
    Choosing,
    ConceptPair,
    Tested,
    by_stratum,
    only_parts,
    planted,
    unplanted,
)
from harness.metrics.planted_pairs.edited import edit
from harness.metrics.planted_pairs.telling import VERSION, Telling, count
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import Measurement, not_applicable


class Options(Strict):
    """How much is asked. Units are chosen on dev, contexts are of eval."""

    contexts: int = Field(default=24, ge=2, description="Contexts of every pair, the same number in every system.")
    active: int = Field(default=16, ge=2, description="Strongest units of a token at a site that count as firing.")
    least_f1: float = Field(default=0.3, ge=0, le=1, description="Dev F1 from which a unit tells a concept.")
    tried: int = Field(default=4, ge=1, description="Units of a concept, the best first, of which one stands for it.")
    last_layer: bool = Field(default=False, description="Units of the last layer too, after which little can combine.")
    least: int = Field(default=30, ge=1, description="Tokens of either split on which a concept must hold.")
    documents: int = Field(default=3, ge=1, description="Documents of either split in which it must hold.")
    least_pairs: int = Field(default=4, ge=2, description="With fewer pairs of a relation a figure is underpowered.")
    seed: int = Field(default=0, ge=0, description="Draws contexts, strangers and the pairs that are not planted.")


@dataclass(frozen=True)
class _Counts:
    """Planted pairs by relation, those with a part that no unit tells, and those without enough contexts."""

    planted: Counter[str]
    untold: int
    apart: int

    def why(self, options: Options) -> str:
        return (
            f"of {self.planted.total()} planted pairs {self.untold} have a part that no unit tells with dev F1 "
            f"{options.least_f1:g}, {self.apart} fewer than {options.contexts} eval tokens with both concepts and two "
            "such units"
        )


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """For each planted pair the two units that tell its concepts best on dev, where they are among the `active`
    strongest of their site (of the `tried` best of each, the best two that fire together often enough), edited in
    `contexts` tokens of eval on which both concepts hold and both fire. A and B may be at any two sites before the last
    layer (in the last where there is no other): after it only a norm and the head follow, so nothing can combine.

    By relation (of_conjunctions, of_mixtures, of_additive; of_unplanted: the control, concepts that are no pair of the
    language and hold together now and then, as many as there are tested planted pairs, units found the same way):

    - excess_bits, conjunction_bits: means over pairs, as in the joint metric; effect_bits: what the two say at all, of
      which little can be said together where it is little; floor_bits: the excess of random directions;
    - excess_over_strangers, conjunction_over_strangers: per bit of B alone over the same of strangers in B's place,
      trimmed mean of log ratios, as a ratio; excess_flagged, conjunction_flagged: share of pairs above strangers at 5%;
    - tested, with_strangers: how many pairs ran, and how many have strangers like B, without which none is flagged.

    Over all, for excess and conjunction each:

    - precision: of the flagged planted pairs the share that are conjunctions; precision_chance: of all that could be
      flagged. A mixture counts as no conjunction, though in logits it is no sum either: see its own share;
    - recall: flagged conjunctions as a share of all that are planted, untested ones among them;
    - auroc: P(a conjunction has more over strangers than an additive pair), auroc_unplanted: than an unplanted pair;
      auroc_share: of the figure per bit that both say, over all tested pairs, strangers or not.

    untold, apart: planted pairs that were not tested: no unit tells a part; no two units that tell the parts fire
    together in enough contexts. part_f1: mean eval F1 of the units that stand for the parts of tested pairs;
    last_layer: share of tested planted pairs with both units in the last layer.

    No figure has a better direction: they say what the joint metric sees, and a system in which the conjunction has a
    unit of its own has nothing there to see. Intervals resample pairs.
    """
    assert evaluation.load_labels is not None, "registered as reading labels"
    concepts = evaluation.load_labels("dev").concepts
    total = Counter(concept.kind for concept in concepts if len(concept.parts) == 2)
    if not total:
        reason = "the corpus names no pairs of concepts"
        return [
            count("pairs", 0, "pairs"),
            *not_applicable(["planted_pairs/excess_auroc", "planted_pairs/conjunction_auroc"], VERSION, reason),
        ]
    every = Wanted(options.least, options.documents, most=len(concepts), seed=0)
    asking = concepts_of(evaluation, every, only_parts)
    pairs, rare = planted(concepts, asking)
    dev, test = (_fired(evaluation, options, dev=dev) for dev in (True, False))
    detection = detect(activity_of(dev), asking.dev, activity_of(test), asking.eval)
    told = tellers(detection, test, options.least_f1, options.tried)
    rng = np.random.default_rng(options.seed)
    choosing = Choosing(asking, told, test, options.contexts, rng)
    tested = list(choosing.all_tested(pairs))
    untold = len(rare) + sum(not choosing.is_told(pair) for pair in pairs)
    counts = _Counts(total, untold, total.total() - untold - len(tested))
    control = _control(choosing, unplanted(concepts, asking, options.contexts), len(tested), rng)
    ordered, chosen = by_stratum([*tested, *control], test)
    edited = edit(evaluation, chosen, dev, test, rng) if ordered else None
    relation = np.array([one.pair.relation for one in ordered])
    telling = Telling(edited, relation, total, counts.why(options), options.least_pairs, evaluation.resamples)
    saw = f"{len(tested)} of {total.total()} planted pairs and {len(control)} others, {options.contexts} contexts each"
    found = [*_about(tested, counts, len(evaluation.system.layers)), *telling.measurements()]
    return [replace(one, saw=saw) for one in found]


def _fired(evaluation: Evaluation, options: Options, *, dev: bool) -> dict[Site, Fired]:
    """What fires at the sites that units are chosen from."""
    found = fired(evaluation, evaluation.batches(evaluation.codes_sequences, dev=dev), options.active)
    last = len(evaluation.system.layers) - 1
    early = {site: firing for site, firing in found.items() if site.layer < last}
    # A system read only in the last layer has nothing else; its row says what that means.
    return early if early and not options.last_layer else found


def _control(choosing: Choosing, pairs: list[ConceptPair], most: int, rng: np.random.Generator) -> list[Tested]:
    """Up to `most` pairs that are not planted, in random order."""
    shuffled = [pairs[at] for at in rng.permutation(len(pairs))]
    return list(islice(choosing.all_tested(shuffled), most))


def _about(tested: list[Tested], counts: _Counts, layers: int) -> list[Measurement]:
    """What was planted, and what of it was tested."""
    f1 = [unit.scored for one in tested for unit in (one.a, one.b)]
    late = [one.a.site.layer == layers - 1 for one in tested]  # then B is there too
    nothing = "underpowered: no planted pair can be tested"
    return [
        count("pairs", counts.planted.total(), "pairs"),
        count("untold", counts.untold, "pairs"),
        count("apart", counts.apart, "pairs"),
        *(
            [count("part_f1", float(np.mean(f1)), "F1"), count("last_layer", float(np.mean(late)), "share of pairs")]
            if tested
            else not_applicable(["planted_pairs/part_f1", "planted_pairs/last_layer"], VERSION, nothing)
        ),
    ]


register("planted_pairs", measure, Options, VERSION, labels=True)
