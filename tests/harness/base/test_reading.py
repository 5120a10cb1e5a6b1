from pathlib import Path

import pytest

from harness.base.errors import BadInput
from harness.base.reading import from_yaml, split_outside_brackets
from harness.base.row_name import RowName
from harness.experiment.rows import system_specs
from harness.experiment.schema import load


def experiment_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("1e4", 1e4), ("-2.5E+2", -250.0), (".5e1", 5), ("3", 3)])
def test_a_number_is_a_number_however_it_is_written(text: str, value: float) -> None:
    assert from_yaml(text) == value
    assert from_yaml(f"a: [{text}]") == {"a": [value]}
    assert RowName.of(f"topk[lr={text}]").subject.settings == {"lr": value}


@pytest.mark.parametrize("text", ["e4", "1e", "1e4x", "abc", "1.2.3", "v1e3"])
def test_what_only_looks_like_a_number_stays_text(text: str) -> None:
    assert from_yaml(text) == text


def test_exponents_in_a_file_train_what_they_train_in_an_override(tmp_path: Path) -> None:
    text = "systems: [dense]\nmetrics: [loss]\ntraining: {tokens: 1e4, learning_rate: 1e-3}\n"
    written = load(experiment_file(tmp_path, text)).training
    plain = "systems: [dense]\nmetrics: [loss]\n"
    overridden = load(experiment_file(tmp_path, plain), ["training.tokens=1e4", "training.learning_rate=1e-3"]).training
    assert written == overridden
    assert (written.tokens, written.learning_rate) == (10_000, 1e-3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("systems: {dense: {d_ff: 8}, dense: {}}\nmetrics: [loss]\n", "'dense' stands twice"),
        ("systems: [dense]\nmetrics: [loss]\nseeds: [0]\nseeds: [1]\n", "'seeds' stands twice (lines 3 and 4)"),
        ("systems: [dense, dense]\nmetrics: [loss]\n", "'dense' stands twice"),
        ("systems: [dense]\nmetrics: [loss, loss]\n", "'loss' stands twice"),
    ],
)
def test_what_stands_twice_in_a_file_is_refused_and_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says.replace("(", r"\(").replace(")", r"\)")):
        load(experiment_file(tmp_path, text))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("dense+topk[k=4,k=8]", "k stands twice"),
        ("dense+topk[k=4", "not closed"),
        ("dense+topk[layers=[0,1]", "not closed"),
        ("dense+topk[k]", "not key=value"),
        ("dense+topk[k={]", "not YAML"),
    ],
)
def test_brackets_that_cannot_be_read_are_named_in_one_line(tmp_path: Path, row: str, says: str) -> None:
    experiment = load(experiment_file(tmp_path, f"systems: ['{row}']\nmetrics: [loss]\n"))
    with pytest.raises(BadInput, match=says) as caught:
        system_specs(experiment)
    assert "\n" not in str(caught.value)


def test_a_list_in_brackets_is_one_value(tmp_path: Path) -> None:
    row = "dense[n_layers=3]+topk[layers=[0, 2],k=4]"
    experiment = load(experiment_file(tmp_path, f"systems: ['{row}']\nmetrics: [loss]\n"))
    (spec,) = system_specs(experiment)
    assert spec.dictionary is not None
    assert [site.layer for site in spec.dictionary.sites] == [0, 2]


def test_separators_in_brackets_separate_nothing() -> None:
    assert split_outside_brackets("a[x=1.5,y=[2,3]].b", ".") == ["a[x=1.5,y=[2,3]]", "b"]
