"""What the tokens of installed text mean: the labels of any text, and of Python where the domain is code."""

from __future__ import annotations

from harness.corpus.config import CorpusConfig, register_labeller
from harness.corpus.python_labels import PYTHON
from harness.corpus.text_labels import TextLabeller


def installed_labeller(config: CorpusConfig, domains: tuple[str, ...]) -> TextLabeller:
    return TextLabeller(domains, {"code": PYTHON})


register_labeller("installed", installed_labeller)
