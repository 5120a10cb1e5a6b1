"""Sentences about two people, one of whom is named twice: who is left is the answer (Wang et al., arXiv 2211.00593).

Each has a twin in which three other people stand, so that nothing says who the answer is. Names are those that the
subject's tokenizer writes as one token, so that twins are of one length and an answer is one token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# A, B: the two; S: the one who is named again. Twins have C, D and E in their places.
TEMPLATES = (
    "When{A} and{B} went to the {place},{S} gave a {thing} to",
    "Then,{A} and{B} had a long day at the {place}.{S} decided to give a {thing} to",
    "After{A} and{B} left the {place},{S} handed a {thing} to",
    "While{A} and{B} were working at the {place},{S} passed a {thing} to",
    "The local {place} was where{A} and{B} met, and{S} offered a {thing} to",
)
PLACES = ("store", "garden", "restaurant", "school", "hospital", "office", "house", "station")
THINGS = ("ring", "kiss", "bone", "basketball", "computer", "necklace", "drink", "snack")
# fmt: off
NAMES = (
    "Michael", "Christopher", "Jessica", "Matthew", "Ashley", "Jennifer", "Joshua", "Amanda", "Daniel", "David",
    "James", "Robert", "John", "Joseph", "Andrew", "Ryan", "Brandon", "Jason", "Justin", "Sarah", "William",
    "Jonathan", "Stephanie", "Brian", "Nicole", "Nicholas", "Anthony", "Heather", "Eric", "Elizabeth", "Adam",
    "Megan", "Melissa", "Kevin", "Steven", "Thomas", "Timothy", "Christina", "Kyle", "Rachel", "Laura", "Lauren",
    "Amber", "Danielle", "Richard", "Kimberly", "Jeffrey", "Amy", "Crystal", "Michelle", "Tiffany", "Jeremy",
    "Benjamin", "Mark", "Emily", "Aaron", "Charles", "Rebecca", "Jacob", "Stephen", "Patrick", "Sean", "Erin",
    "Kelly", "Paul", "Mary", "Alice", "Anna", "Peter", "George", "Simon", "Martin", "Lucy", "Jane", "Kate", "Helen",
    "Tom", "Sam", "Max", "Rose", "Emma",
)
# fmt: on
LEAST = 8  # names of one token


@dataclass(frozen=True)
class Prompts:
    """Of one length: sentences and their twins `[n, T]`, the answer (who is named once) and the wrong name `[n]`."""

    clean: Tensor
    twin: Tensor
    answer: Tensor
    wrong: Tensor

    def __len__(self) -> int:
        return len(self.clean)


def names_of(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The names that are one token behind a space, each with its space."""
    return [f" {name}" for name in NAMES if len(tokenizer.encode(f" {name}", add_special_tokens=False)) == 1]


def prompts(
    tokenizer: PreTrainedTokenizerFast, begin: int, each: int, rng: np.random.Generator, names: list[str]
) -> list[Prompts]:
    """`each` sentences of every template, half of them with the names the other way round. Every one begins with the
    token that begins a document."""
    found = []
    for template in TEMPLATES:
        rows: dict[int, list[tuple[list[int], list[int], int, int]]] = {}
        for number in range(each):
            a, b, c, d, e = (names[place] for place in rng.choice(len(names), 5, replace=False))
            place, thing = PLACES[rng.integers(len(PLACES))], THINGS[rng.integers(len(THINGS))]
            subject, answer = (a, b) if number % 2 else (b, a)
            clean = template.format(A=a, B=b, S=subject, place=place, thing=thing)
            twin = template.format(A=c, B=d, S=e, place=place, thing=thing)
            ids = [[begin, *tokenizer.encode(text, add_special_tokens=False)] for text in (clean, twin)]
            right, wrong = (tokenizer.encode(name, add_special_tokens=False)[0] for name in (answer, subject))
            if len(ids[0]) == len(ids[1]):
                rows.setdefault(len(ids[0]), []).append((ids[0], ids[1], right, wrong))
        for of_length in rows.values():
            columns = [torch.tensor(column) for column in zip(*of_length, strict=True)]
            found.append(Prompts(*columns))
    return found
