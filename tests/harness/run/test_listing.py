import subprocess
import sys

import pytest

import models
import saes
from harness.base.errors import BadInput
from harness.metrics.metric import METRICS
from harness.run import listing


def test_every_name_that_a_row_can_have_is_listed() -> None:
    listed = {line.split()[0] for line in listing.lines("systems")}
    assert listed == {*models.ARCHITECTURES, *(f"SUBJECT+{name}" for name in saes.DICTIONARIES), "SUBJECT+pretrained"}
    assert {line.split()[0] for line in listing.lines("metrics")} == set(METRICS)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("By Gao et al. 2024. More.", "By Gao et al. 2024"),
        ("After Bloom et al. The rest.", "After Bloom et al. The rest"),
        ("One. Two.", "One"),
        ("As in e.g. TopK. Next.", "As in e.g. TopK"),
        ("L0 of 1.5 units.", "L0 of 1.5 units"),
    ],
)
def test_a_description_ends_with_its_sentence_and_not_with_an_abbreviation(text: str, first: str) -> None:
    assert listing.first_sentence(text) == first


@pytest.mark.parametrize("what", ["--help", *(f"list {kind}" for kind in listing.KINDS)])
def test_help_and_lists_import_no_heavy_library(what: str) -> None:
    code = (
        "import sys; from harness import cli\n"
        f"sys.argv = ['harness', *{what.split()!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'sae_lens', 'datasets', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_list_is_searched_by_words() -> None:
    (found,) = listing.lines("saes", "pythia MLP")
    assert found.split() == ["pythia-70m-deduped-mlp-sm", "pythia-70m-deduped,", "hook_mlp_out,", "6", "of", "them"]
    assert [line.split()[0] for line in listing.lines("systems", "skip")] == ["SUBJECT+skip_transcoder"]
    with pytest.raises(BadInput, match="did you mean pythia"):
        listing.lines("saes", "pyhtia")
    with pytest.raises(BadInput, match="did you mean loss"):
        listing.lines("metrics", "lsos")


def test_a_release_by_its_name_lists_what_is_in_it() -> None:
    lines = listing.lines("saes", "gpt2-small-res-jb")
    assert lines[0].startswith("gpt2-small-res-jb ")
    assert "  id=blocks.8.hook_resid_pre" in lines
