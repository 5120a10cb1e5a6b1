import subprocess
import sys

import pytest
from pydantic import ValidationError

from harness.corpus.config import CorpusConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "hub"}, "'installed', 'chess' or 'files'"),
        ({"domain": ["prose"]}, "Extra inputs are not permitted"),
        ({"domains": ("proze",)}, "no domain 'proze'.*did you mean 'prose'"),
        ({"kind": "chess", "domains": ("prose",)}, "no domain 'prose'; it has: chess"),
        ({"domains": ()}, "at least 1 item"),
        ({"domains": ("prose", "prose")}, "named twice"),
        ({"kind": "files"}, "there is no path"),
        ({"path": "x"}, "kind 'installed' reads no path"),
        ({"shares": (0.9, 0.0, 0.1)}, "three positive numbers that sum to 1"),
        ({"shares": (0.9, 0.2, 0.1)}, "three positive numbers that sum to 1"),
        ({"vocab_size": 100}, "greater than or equal to 257"),
        ({"chess_plies": 2}, "greater than or equal to 20"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        CorpusConfig(**options)


def test_checking_a_configuration_imports_nothing_heavy():
    code = (
        "import sys; from harness.corpus.config import CorpusConfig; CorpusConfig();"
        "print([name for name in ('torch', 'numpy', 'datasets', 'transformers', 'chess') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_a_corpus_needs_datasets_only_when_one_is_opened():
    code = (
        "import sys; from harness.corpus import PackedSplit, Corpus; import harness.corpus.build;"
        "print([name for name in ('datasets', 'transformers', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
