from pathlib import Path

import pytest

from harness.base import foreign
from harness.base.errors import BadInput
from harness.experiment.rows import system_specs
from harness.experiment.schema import experiment_names, load
from harness.run.numerics import Numerics
from harness.run.plan import PlannedRow, make_plan


def problem(*overrides: str, experiment: str = "smoke") -> str:
    """What the person reads who runs this."""
    with pytest.raises(BadInput) as caught:
        make_plan(load(experiment, list(overrides)), Numerics("cpu", "float32", 1))
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", experiment_names())
def test_every_shipped_experiment_can_run(name: str) -> None:
    if name == "smollm2" and foreign.packaged(name) is None:
        with pytest.raises(BadInput, match="make smollm"):  # the one that wants a package more
            make_plan(load(name), Numerics("cpu", "float32", 2))
        return
    plan = make_plan(load(name), Numerics("cpu", "float32", 2))
    assert plan.rows
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
    assert (grafted.dictionary.config.k, grafted.dictionary.config.n_latents) == (16, 256)  # pyright: ignore


def test_a_frozen_half_and_nested_prefixes_can_stand_in_brackets(tmp_path: Path) -> None:
    file = tmp_path / "controls.yaml"
    nested = "dense+matryoshka[widths=[8,32],frozen=encoder]"
    file.write_text(f"systems: [dense+topk, 'dense+topk[frozen=decoder]', '{nested}']\nmetrics: [loss]\n")
    specs = system_specs(load(str(file)))
    configs = [spec.dictionary.config for spec in specs if spec.dictionary is not None]
    assert [config.frozen for config in configs] == ["none", "decoder", "encoder"]  # pyright: ignore
    assert configs[2].prefixes() == (8, 32, configs[2].n_latents)  # pyright: ignore


def test_a_dictionary_row_shares_the_subject_of_the_row_without_one() -> None:
    plan = make_plan(load("smoke"), Numerics("cpu", "float32", 1))
    by_name = {run.spec.name: run for run in plan.rows}
    assert by_name["dense"].subject.key == by_name["dense+topk"].subject.key
    assert by_name["dense"].subject.key != by_name["peer"].subject.key


def test_a_changed_setting_changes_the_stages_that_depend_on_it_and_no_others() -> None:
    numerics = Numerics("cpu", "float32", 1)
    before = {run.spec.name: run for run in make_plan(load("smoke"), numerics).rows}
    changed = {run.spec.name: run for run in make_plan(load("smoke", ["systems.dense+topk.k=4"]), numerics).rows}
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
        ("systems.dense+topk.layers=[7]", "systems.dense+topk.layers = 7: the subject has layers 0 to 1"),
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
        ("training.target={kind: klx}", "training.target.kind = 'klx': did you mean kl?"),
        ("training.target={teacher: dense}", "training.target = {'teacher': 'dense'}: must be a mapping that names a"),
        (
            "training.target={kind: kl, teacher: dense, temprature: 2}",
            "training.target.temprature: unknown key; did you",
        ),
        (
            "training.target={kind: kl, teacher: dense, alpha: 2}",
            "training.target.alpha = 2: input should be less than",
        ),
        ("training.target={kind: kl}", "training.target.teacher: field required"),
        ("training.target={kind: floor, cross_entropy: 3}", "'floor' minimises a sparsity loss: give sparsity"),
        (
            "training.target={kind: floor, cross_entropy: 3, teacher: dense}",
            "either teacher (with delta) or cross_entr",
        ),
        ("training.sparsity={kind: l2, weight: 1}", "training.sparsity.kind = 'l2': did you mean l1?"),
        ("training.sparsity={kind: l1, weigth: 1}", "training.sparsity.weigth: unknown key; did you mean weight?"),
        (
            "systems.peer.training={target: {kind: kl, teacher: dens}}",
            "no subject row of this experiment; did you mean",
        ),
        (
            "systems.peer.training={target: {kind: kl, teacher: peer}}",
            "it would teach itself; give peer a training.targ",
        ),
        (
            "systems.peer.training={target: {kind: kl, teacher: dense+topk}}",
            "target.teacher = 'dense+topk': no subject",
        ),
        ("systems.peer.training={target: {kind: kl, teacher: 'hf:/nowhere'}}", "no such folder"),
        ("systems.peer.untrained=1", "systems.peer.untrained = 1: must be true or false"),
        ("systems.peer.untraned=true", "systems.peer.untraned: unknown key; did you mean untrained?"),
        ("seeds=[-1]", "seeds.0 = -1: input should be greater than or equal to 0"),
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
        ("dence", "no architecture 'dence'; did you mean dense?"),
        ("dense+topkk", "no dictionary 'topkk'; did you mean topk?"),
        ("dense+topk[frozen=decodr]", "frozen = 'decodr': input should be 'none', 'encoder' or 'decoder'"),
        ("dense+topk[k=4", "the bracket is not closed"),
        ("dense+topk[k]", "is not key=value"),
    ],
)
def test_a_wrong_row_name_says_what_is_wrong_with_it(tmp_path: Path, row: str, says: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"systems: ['{row}']\nmetrics: [loss]\n")
    assert says in problem(experiment=str(file))


def runs_of(*overrides: str) -> dict[str, PlannedRow]:
    plan = make_plan(load("smoke", list(overrides)), Numerics("cpu", "float32", 1))
    return {run.spec.name: run for run in plan.rows}


KL = "systems.peer.training={target: {kind: kl, teacher: dense}}"


def test_a_student_depends_on_its_teacher_and_the_teacher_on_nothing_of_the_student() -> None:
    taught, changed = runs_of(KL), runs_of(KL, "systems.dense.d_ff=40")
    assert taught["peer"].subject.upstream[1] == taught["dense"].subject.key
    assert taught["dense"].subject.key == runs_of()["dense"].subject.key
    assert changed["peer"].subject.config == taught["peer"].subject.config
    assert changed["peer"].subject.key != taught["peer"].subject.key
    assert [stage.key for stage in taught["peer"].trained.before()] == [taught["dense"].subject.key]


def test_two_subjects_that_teach_each_other_are_refused() -> None:
    says = problem(KL, "systems.dense.training={target: {kind: kl, teacher: peer}}")
    assert "they would teach each other" in says


def test_an_untrained_control_does_not_depend_on_how_others_are_trained() -> None:
    control = "systems.peer.untrained=true"
    plain, more = runs_of(control), runs_of(control, "training.tokens=20000")
    assert plain["peer"].subject.key == more["peer"].subject.key
    assert plain["dense"].subject.key != more["dense"].subject.key
    assert runs_of()["peer"].subject.key != plain["peer"].subject.key


def test_codes_of_more_sequences_than_are_read_are_refused() -> None:
    with pytest.raises(BadInput, match="codes_sequences 65 exceeds sequences 64"):
        load("smoke", ["evaluation.codes_sequences=65"])
