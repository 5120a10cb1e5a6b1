import pytest

from harness.base.errors import BadInput
from harness.base.settings import validated
from harness.corpus.hub import HubCorpus
from harness.corpus.hub.recipes import RECIPES, Origin


def refused(**settings):
    with pytest.raises(BadInput) as caught:
        validated(HubCorpus, {"kind": "hub", **settings}, where="corpus")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_names_the_datasets_that_people_ask_for():
    assert set(RECIPES) == {"pile", "fineweb_edu", "tinystories", "wikitext", "lichess", "common_pile"}
    for name in RECIPES:
        HubCorpus(recipe=name)


def test_what_is_said_beside_a_recipe_wins_and_the_usual_fills_the_rest():
    origin = Origin(recipe="fineweb_edu", config="sample-100BT").whole()
    assert (origin.dataset, origin.config, origin.split) == ("HuggingFaceFW/fineweb-edu", "sample-100BT", "train")
    assert (origin.text_column, origin.revision) == ("text", "main")


def test_a_recipe_with_a_path_reads_a_local_copy_of_that_shape(tmp_path):
    origin = Origin(recipe="pile", path=tmp_path).whole()
    assert (origin.path, origin.dataset, origin.revision) == (tmp_path, None, None)
    assert origin.domain_column == "meta.pile_set_name"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "a recipe (pile, fineweb_edu, tinystories, wikitext, lichess, common_pile), a dataset, a path or parts"),
        ({"recipe": "tinystory"}, "no recipe 'tinystory'; did you mean tinystories? (allowed: common_pile, "),
        ({"dataset": "a/b", "path": "x"}, "dataset is for datasets of the Hub, path for local files: give one of them"),
        ({"dataset": "./texts/a"}, "is no id of the Hub (OWNER/NAME); local files are given by path"),
        ({"dataset": "a/b", "parts": {"x": {"dataset": "c/d"}}}, "parts and dataset: parts say for each domain"),
        ({"parts": {"x": {"split": "train"}}}, "parts.x: must name one dataset"),
        ({"parts": {"x": {"recipe": "common_pile"}}}, "parts.x: must name one dataset"),
        ({"parts": {"x": {"dataset": "a/b", "domain_column": "c"}}}, "parts.x.domain_column: a part is one domain"),
        ({"recipe": "common_pile", "split": "test"}, "is several datasets: split cannot be said of all of them"),
        ({"dataset": "a/b", "begins": "("}, "begins '(' is no pattern"),
        ({"dataset": "a/b", "textcolumn": "t"}, "corpus.textcolumn: unknown key; did you mean text_column?"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(settings, message):
    assert message in refused(**settings)


def test_a_part_may_itself_be_a_recipe():
    corpus = HubCorpus(parts={"stories": Origin(recipe="tinystories"), "games": Origin(recipe="lichess")})
    assert corpus.parts["games"].whole().text_column == "movetext"
