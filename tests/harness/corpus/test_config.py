import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import BadInput
from harness.base.settings import validated
from harness.corpus.chess import ChessCorpus
from harness.corpus.config import CorpusConfig
from harness.corpus.files import FilesCorpus
from harness.corpus.installed import InstalledCorpus
from harness.experiment.schema import Experiment


def corpus_of(**options: Any) -> CorpusConfig:
    raw = {"name": "x", "systems": ["dense"], "metrics": ["loss"], "corpus": options}
    return validated(Experiment, raw, where="").corpus


def test_a_kind_has_options_of_its_own_and_installed_is_meant_where_none_is_named():
    assert corpus_of() == InstalledCorpus()
    assert corpus_of(kind="chess", plies=30) == ChessCorpus(plies=30)
    assert corpus_of(kind="files", path="here") == FilesCorpus(path=Path("here"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "web"}, r"^corpus\.kind = 'web': \(allowed: chess, files, hub, installed, othello6, planted\)$"),
        ({"domain": ["prose"]}, r"^corpus\.domain: unknown key; did you mean domains\? \(allowed: bytes_per_domain, "),
        ({"domains": ("proze",)}, "no domain 'proze'; did you mean prose"),
        ({"kind": "chess", "domains": ("prose",)}, r"no domain 'prose'; \(allowed: chess\)"),
        ({"domains": ()}, r"^corpus\.domains = \(\): .*at least 1 item"),
        ({"domains": ("prose", "prose")}, "named twice"),
        ({"kind": "files"}, r"^corpus\.path: field required$"),
        ({"path": "x"}, r"^corpus\.path: unknown key"),
        ({"shares": (0.9, 0.0, 0.1)}, "three positive numbers that sum to 1"),
        ({"shares": (0.9, 0.2, 0.1)}, "three positive numbers that sum to 1"),
        ({"vocab_size": 100}, r"^corpus\.vocab_size = 100: .*greater than or equal to 257"),
        ({"kind": "chess", "plies": 2}, r"^corpus\.plies = 2: .*greater than or equal to 20"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        corpus_of(**options)


def test_checking_a_configuration_imports_nothing_heavy():
    code = (
        "import sys; from harness.corpus.config import CORPORA; CORPORA['installed'](); CORPORA['files'];"
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
