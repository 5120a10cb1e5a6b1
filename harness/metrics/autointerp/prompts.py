"""What a chat judge is asked, word for word, and how its answers are read.

Protocols: explain and simulate after Bills et al. (OpenAI, 2023, "Language models can explain neurons in language
models"), detection and fuzzing after Paulo et al. (arXiv 2410.13928); the wording is ours. A window stands on one line,
so that nothing in a document can pass for a part of the prompt's own layout.

The readers return None for what does not follow the asked form to the letter. They never repair.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence

from harness.metrics.autointerp.contexts import Context, UnitContexts
from harness.metrics.autointerp.judge import Message, Request

STRENGTHS = 10  # activations are shown in bins 0..10
MARKED_SHARE = 0.3  # of the window's largest activation: tokens at or above it are marked
MOST_WINDOWS = 20  # of firing contexts in an explanation prompt
MOST_SILENT = 6
LONGEST_EXPLANATION = 400  # characters


def plain(tokens: Sequence[str], marked: Collection[int] = ()) -> str:
    """The window on one line, the tokens at `marked` in <<double brackets>>; brackets of the text's own are taken for
    other characters, line breaks shown as ⏎."""
    shown = []
    for position, token in enumerate(tokens):
        token = token.replace("<<", "‹‹").replace(">>", "››").replace("\r\n", "⏎").replace("\t", " ")
        token = "".join("⏎" if c in "\n\r\v\f\x85\u2028\u2029" else c if ord(c) >= 32 else " " for c in token)
        shown.append(f"<<{token}>>" if position in marked else token)
    return "".join(shown)


def firing(context: Context) -> list[int]:
    """Positions whose activation is at least MARKED_SHARE of the window's largest; none where the unit is silent."""
    peak = max(context.activations, default=0.0)
    return [i for i, a in enumerate(context.activations) if a > 0 and a >= MARKED_SHARE * peak]


def bins(activations: Sequence[float], peak: float) -> list[int]:
    """⌈10·a/peak⌉, within 0..10: 0 only where the unit is silent."""
    return [min(STRENGTHS, math.ceil(STRENGTHS * a / peak)) if a > 0 else 0 for a in activations]


EXPLAIN = """You study one unit of a language model by looking at where it fires.
You get windows of text. A token on which the unit fires stands in <<double brackets>>, and behind the window is how \
strongly it fires there, from 1 to 10. Then come windows in which it does not fire at all.
Find the simplest rule that separates the firing tokens from all others: certain words, a kind of character, what \
comes before, a topic. Be specific. Do not mention the brackets or the strengths.
Answer with one line of this form and nothing else:
Explanation: fires on ..."""

EXPLAIN_EXAMPLE = (
    "Fires in:\n1. the shop sells << apples>> | apples 9\n2. a bowl of << pears>>,<< plums>> | pears 7, plums 8\n"
    "Silent in:\n1. he drove the car to the station",
    "Explanation: fires on plural names of fruit",
)


def explain(unit: UnitContexts, *, promoted: bool = False) -> Request:
    """Asks for one sentence about `unit` from its `explain` contexts, evenly from the strongest to the weakest, and
    a few silent ones.

    promoted: also show which tokens the unit's output makes more and less likely.
    """
    peak = max((max(context.activations) for context in unit.explain), default=0.0)
    shown = _spread(sorted(unit.explain, key=lambda context: -max(context.activations)), MOST_WINDOWS)
    lines = ["Fires in:"]
    for number, context in enumerate(shown, 1):
        marked = firing(context)
        strengths = bins(context.activations, peak)
        named = ", ".join(f"{plain([context.tokens[i]]).strip() or 'space'} {strengths[i]}" for i in marked)
        lines.append(f"{number}. {plain(context.tokens, marked)} | {named}")
    lines.append("Silent in:")
    silent = _spread(unit.explain_silent, MOST_SILENT)  # random ones stand first, near misses last
    lines += [f"{n}. {plain(context.tokens)}" for n, context in enumerate(silent, 1)]
    if promoted:
        lines.append(f"Its output makes these tokens more likely: {_listed(unit.promoted)}")
        lines.append(f"and these less likely: {_listed(unit.suppressed)}")
    return Request(_chat(EXPLAIN, [EXPLAIN_EXAMPLE], "\n".join(lines)), max_tokens=120)


def read_explanation(text: str) -> str | None:
    """What stands behind the last `Explanation:` at the start of a line; one line, cut at LONGEST_EXPLANATION."""
    found = re.findall(r"(?im)^[ \t*#>_-]*explanation[ \t*_]*:(.*)$", _said(text))
    if not found:
        return None
    one_line = " ".join(plain([found[-1]]).replace("⏎", " ").split())
    return one_line.strip(" *_")[:LONGEST_EXPLANATION] or None


DETECT = """A unit of a language model fires on some tokens, as described. You get numbered windows of text. Decide \
for each whether the unit fires on at least one of its tokens.
Answer with one JSON list and nothing else: 1 where it fires, 0 where it does not, in the order of the windows."""
DETECT_EXAMPLE = (
    "The unit: fires on plural names of fruit\n1. she cut the pears in half\n2. he drove the car\n"
    "3. an apple a day\nAnswer with a list of 3.",
    "[1, 0, 0]",
)
DETECT_ONE = "A unit of a language model fires on some tokens, as described. Does it fire in the text? Say Yes or No."
DETECT_ONE_EXAMPLES = [
    ("The unit: fires on plural names of fruit\nText: she cut the pears in half", "Yes"),
    ("The unit: fires on plural names of fruit\nText: he drove the car to the station", "No"),
]

FUZZ = """A unit of a language model fires on some tokens, as described. You get numbered windows of text with some \
tokens in <<double brackets>>. Decide for each whether the tokens in brackets are the ones on which the unit fires.
Answer with one JSON list and nothing else: 1 where the brackets are right, 0 where they stand around other tokens, in \
the order of the windows."""
FUZZ_EXAMPLE = (
    "The unit: fires on plural names of fruit\n1. she cut the << pears>> in half\n2. two << plums>> and a knife\n"
    "3. he << sold>> apples\nAnswer with a list of 3.",
    "[1, 1, 0]",
)
FUZZ_ONE = (
    "A unit of a language model fires on some tokens, as described. Are the tokens in <<double brackets>> the ones on "
    "which it fires? Say Yes or No."
)
FUZZ_ONE_EXAMPLES = [
    ("The unit: fires on plural names of fruit\nText: she cut the << pears>> in half", "Yes"),
    ("The unit: fires on plural names of fruit\nText: he << sold>> apples", "No"),
]
YES_NO = ("Yes", "No")


def judge_windows(name: str, explanation: str, windows: Sequence[str]) -> Request:
    """`name` detection or fuzzing; one answer for each window, as a list."""
    system, example = (DETECT, DETECT_EXAMPLE) if name == "detection" else (FUZZ, FUZZ_EXAMPLE)
    lines = [f"The unit: {explanation}", *(f"{n}. {window}" for n, window in enumerate(windows, 1))]
    lines.append(f"Answer with a list of {len(windows)}.")
    return Request(_chat(system, [example], "\n".join(lines)), max_tokens=16 + 4 * len(windows))


def judge_window(name: str, explanation: str, window: str) -> Request:
    """The same of one window, for a judge that weighs Yes against No."""
    system, examples = (DETECT_ONE, DETECT_ONE_EXAMPLES) if name == "detection" else (FUZZ_ONE, FUZZ_ONE_EXAMPLES)
    return Request(_chat(system, examples, f"The unit: {explanation}\nText: {window}"), options=YES_NO)


def read_list(text: str, length: int) -> list[int] | None:
    """The one list in `text`, of `length` zeros and ones; None if there is no list, another one, or another length."""
    inner = _between(_said(text), "[", "]")
    if inner is None or any(answer.strip() not in ("0", "1") for answer in inner.split(",")):
        return None
    answers = [int(answer) for answer in inner.split(",")]
    return answers if len(answers) == length else None


SIMULATE = """A unit of a language model fires on some tokens, as described. You get a window of text, one numbered \
token a line. Predict how strongly the unit fires on each token, from 0 (silent) to 10 (strongest).
Answer with one JSON object and nothing else: token number to strength, without tokens at 0. {} where it is silent."""
SIMULATE_EXAMPLE = (
    "The unit: fires on plural names of fruit\n1 two\n2  plums\n3  and\n4  a\n5  knife",
    '{"2": 8}',
)
SIMULATE_ONE = (
    "A unit of a language model fires on some tokens, as described. How strongly does it fire on the last token, in "
    "<<double brackets>>? Say a digit from 0 (silent) to 9 (strongest)."
)
SIMULATE_ONE_EXAMPLES = [
    ("The unit: fires on plural names of fruit\nText: two << plums>>", "8"),
    ("The unit: fires on plural names of fruit\nText: two plums<< and>>", "0"),
]
DIGITS = tuple("0123456789")


def simulate_window(explanation: str, tokens: Sequence[str]) -> Request:
    lines = [f"The unit: {explanation}", *(f"{n} {plain([token])}" for n, token in enumerate(tokens, 1))]
    return Request(_chat(SIMULATE, [SIMULATE_EXAMPLE], "\n".join(lines)), max_tokens=32 + 10 * len(tokens))


def simulate_token(explanation: str, tokens: Sequence[str], position: int) -> Request:
    """Of one token given what stands before it, for a judge that weighs digits."""
    window = plain(tokens[: position + 1], {position})
    return Request(
        _chat(SIMULATE_ONE, SIMULATE_ONE_EXAMPLES, f"The unit: {explanation}\nText: {window}"), options=DIGITS
    )


def read_strengths(text: str, length: int) -> list[float] | None:
    """Strengths 0..10 of `length` tokens from the one JSON object in `text`; None where a number is out of range."""
    inner = _between(_said(text), "{", "}")
    if inner is None:
        return None
    try:
        pairs = json.loads("{" + inner + "}", object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    strengths, seen = [0.0] * length, set()
    for number, strength in pairs:
        if not re.fullmatch(r"[1-9][0-9]{0,5}", number) or int(number) > length or number in seen:
            return None
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= STRENGTHS:
            return None
        seen.add(number)
        strengths[int(number) - 1] = float(strength)
    return strengths


def _chat(system: str, examples: Sequence[tuple[str, str]], question: str) -> tuple[Message, ...]:
    turns = [Message("system", system)]
    for asked, answered in examples:
        turns += [Message("user", asked), Message("assistant", answered)]
    return (*turns, Message("user", question))


def _said(text: str) -> str:
    """Without the thoughts that some local servers leave in front of the answer."""
    return text.rpartition("</think>")[2]


def _between(text: str, opening: str, closing: str) -> str | None:
    """What stands between the only `opening` and the only `closing` in `text`."""
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    return text.partition(opening)[2].partition(closing)[0] if text.index(opening) < text.index(closing) else None


def _spread(contexts: Sequence[Context], n: int) -> list[Context]:
    """At most `n` of them, evenly, the first and the last among them."""
    if len(contexts) <= n:
        return list(contexts)
    return [contexts[round(i * (len(contexts) - 1) / (n - 1))] for i in range(n)]


def _listed(tokens: Sequence[str]) -> str:
    return ", ".join(plain([token]).strip() or "space" for token in tokens) or "unknown"
