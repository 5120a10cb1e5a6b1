from pathlib import Path

import pytest

from harness.config import experiment_names, load
from harness.errors import BadInput
from harness.plan import Numerics, make_plan
from harness.systems import system_specs


def problem(*overrides: str, experiment: str = "smoke") -> str:
    """What the person reads who runs this."""
    with pytest.raises(BadInput) as caught:
        make_plan(load(experiment, list(overrides)), Numerics("cpu", "float32", 1))
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", experiment_names())
def test_every_shipped_experiment_can_run(name: str) -> None:
    plan = make_plan(load(name), Numerics("cpu", "float32", 2))
    assert plan.runs
    assert plan.experiment.description


def test_an_override_reaches_the_row_whose_name_has_a_plus() -> None:
    specs = system_specs(load("smoke", ["systems.dense+topk.k=4", "systems.peer.n_experts=100"]))
    assert {spec.name: spec for spec in specs}["dense+topk"].dictionary.config.k == 4  # pyright: ignore
    assert {spec.name: spec for spec in specs}["peer"].subject.settings["n_experts"] == 100


def test_settings_in_brackets_are_settings(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("systems: {'dense[d_ff=64]': {}, 'dense[d_ff=64]+topk[k=16]': {n_latents: 256}}\nmetrics: [loss]\n")
    plain, grafted = system_specs(load(str(file)))
    assert plain.subject.settings == {"d_ff": 64}
    assert grafted.subject == plain.subject
    assert grafted.dictionary is not None
    assert (grafted.dictionary.config.k, grafted.dictionary.config.n_latents) == (16, 256)


def test_a_dictionary_row_shares_the_subject_of_the_row_without_one() -> None:
    plan = make_plan(load("smoke"), Numerics("cpu", "float32", 1))
    by_name = {run.spec.name: run for run in plan.runs}
    assert by_name["dense"].subject.key == by_name["dense+topk"].subject.key
    assert by_name["dense"].subject.key != by_name["peer"].subject.key


def test_a_changed_setting_changes_the_stages_that_depend_on_it_and_no_others() -> None:
    numerics = Numerics("cpu", "float32", 1)
    before = {run.spec.name: run for run in make_plan(load("smoke"), numerics).runs}
    changed = {run.spec.name: run for run in make_plan(load("smoke", ["systems.dense+topk.k=4"]), numerics).runs}
    assert changed["dense+topk"].subject.key == before["dense+topk"].subject.key
    assert changed["dense+topk"].dictionary.key != before["dense+topk"].dictionary.key  # pyright: ignore
    assert changed["dense+topk"].metrics["loss"].key != before["dense+topk"].metrics["loss"].key
    assert changed["peer"].metrics == before["peer"].metrics


def test_numbers_in_overrides_may_have_exponents() -> None:
    assert load("smoke", ["training.learning_rate=1e-3"]).training.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainnig.tokens=5", "trainnig: unknown key; did you mean training?"),
        ("training.token=5", "training.token: unknown key; did you mean tokens?"),
        ("training.tokens=many", "training.tokens = 'many': input should be a valid integer"),
        ("training.tokens=0", "training.tokens = 0: input should be greater than or equal to 1"),
        ("systems.pear.k=3", "systems.pear is not in this experiment: did you mean peer?"),
        ("systems.peer.n_expert=64", "systems.peer.n_expert: unknown key; did you mean n_experts?"),
        ("systems.peer.n_experts=1000", "systems.peer: n_experts=1000 is not a square; nearest: 961 or 1024"),
        ("systems.peer.k=200", "systems.peer: k=200 exceeds"),
        ("systems.peer.k=abc", "systems.peer: k='abc' is not a whole number"),
        ("systems.dense+topk.k=65", "systems.dense+topk: k 65"),
        ("systems.dense+topk.layers=[7]", "systems.dense+topk.layers = 7: dense has layers 0 to 1"),
        ("systems.dense+topk.point=mlp_in", "systems.dense+topk.point = 'mlp_in': input should be 'mlp_out'"),
        ("systems.dense+topk.kk=1", "systems.dense+topk.kk: unknown key; did you mean k?"),
        ("metrics.los.x=1", "metrics.los is not in this experiment: did you mean loss?"),
        ("metrics.usage.rarely=1", "metrics.usage.rarely: unknown key; did you mean rare?"),
        ("references=[trigram]", "references: no reference 'trigram'; did you mean bigram?"),
        ("baseline=dence", "baseline = 'dence': did you mean dense?"),
        ("seeds=[0,0]", "seeds = [0, 0]: a seed stands twice"),
        ("corpus.domains=[poetry]", "poetry"),
        ("corpus.kind=instaled", "corpus.kind = 'instaled'"),
        ("dictionary_training.train_token=3", "unknown key; did you mean train_tokens?"),
        ("training", "write key.subkey=value"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(override: str, says: str) -> None:
    assert says in problem(override)


def test_an_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean quickstart"):
        load("quickstrat")


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("systems: [")
    with pytest.raises(BadInput, match=r"broken\.yaml is not YAML"):
        load(str(file))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("dence", "no subject 'dence'; did you mean dense?"),
        ("dense+topkk", "no dictionary 'topkk'; did you mean topk?"),
        ("dense+topk[k=4", "the bracket is not closed"),
        ("dense+topk[k]", "is not key=value"),
    ],
)
def test_a_wrong_row_name_says_what_is_wrong_with_it(tmp_path: Path, row: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"systems: ['{row}']\nmetrics: [loss]\n")
    assert says in problem(experiment=str(file))
