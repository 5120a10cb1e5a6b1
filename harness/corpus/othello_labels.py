"""What the tokens of an Othello game mean: the board after the half-move, as the side to move sees it.

Mine and theirs, and not black and white: that is how a model of Othello was found to keep it (arXiv 2309.00941). Beside
each square's holder stand which moves are legal now, and which pieces the last half-move turned over (theirs now).
What can never be (a middle square empty, a corner turned over) is no concept.
"""

from __future__ import annotations

import numpy as np

from harness.corpus import Document
from harness.corpus.config import CorpusConfig, register_labeller
from harness.corpus.labels import Concept, Integers
from harness.corpus.othello import RULES, SQUARES, replay, squares

_MIDDLE, _CORNERS = ({RULES.name(place) for place in places} for places in ((14, 15, 20, 21), (0, 5, 30, 35)))
# What is said of a square, its kind, and of which squares it is never true.
_OF_A_SQUARE: tuple[tuple[str, str, set[str]], ...] = (
    ("mine", "square", set()),
    ("theirs", "square", set()),
    ("empty", "square", _MIDDLE),
    ("legal", "legal", _MIDDLE),
    ("turned", "turned", _CORNERS),
)
_ALL = [
    *(
        (Concept(f"{word} {name}", kind), name not in never)
        for word, kind, never in _OF_A_SQUARE
        for name in map(RULES.name, range(len(SQUARES)))
    ),
    (Concept("pass", "legal"), True),
]
CONCEPTS = tuple(concept for concept, possible in _ALL if possible)
_POSSIBLE = np.array([possible for _, possible in _ALL])


class OthelloLabeller:
    concepts = CONCEPTS
    from_beginning = True  # no half-move says what board it was played on

    def held(self, document: Document, ends: Integers) -> tuple[Integers, Integers]:
        game = replay(document.text)
        occupied = game.mine | game.theirs
        sets = (game.mine, game.theirs, ~occupied, game.legal, game.turned)
        holds = np.concatenate([*map(squares, sets), game.must_pass[:, None]], axis=1)[:, _POSSIBLE]
        token, concept = np.nonzero(holds[ends])  # a byte is a half-move
        return token, concept


def othello_labeller(config: CorpusConfig, domains: tuple[str, ...]) -> OthelloLabeller:
    return OthelloLabeller()


register_labeller("othello6", othello_labeller)
