import ast
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from harness.experiment.schema import Experiment
from harness.run.numerics import Numerics
from harness.run.plan import make_plan
from harness.store import source
from harness.store.source import PACKAGES, closure, source_digest


@pytest.fixture
def forget():
    source._module_code.cache_clear()
    yield
    source._module_code.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None) -> Path:
    """A project of its own in place of ours."""
    monkeypatch.setattr(source, "ROOT", tmp_path)
    (tmp_path / "harness").mkdir()
    return tmp_path / "harness"


def digest_of(*modules: str) -> str:
    source._module_code.cache_clear()
    return source_digest(modules)


def test_the_digest_follows_imports_and_ignores_comments(package: Path) -> None:
    (package / "outer.py").write_text("from harness.inner import one\n")
    (package / "inner.py").write_text("one = 1\n")
    before = digest_of("harness.outer")
    (package / "inner.py").write_text('"""What one is."""\n\none = 1  # the first\n')
    assert digest_of("harness.outer") == before
    (package / "inner.py").write_text("one = 2\n")
    assert digest_of("harness.outer") != before


def test_a_function_docstring_is_no_part_of_the_source_but_its_body_is(package: Path) -> None:
    seen = []
    for text in ('def f():\n    "a"\n    return 1\n', 'def f():\n    "b"\n    return 1\n', "def f():\n    return 2\n"):
        (package / "m.py").write_text(text)
        seen.append(digest_of("harness.m"))
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ('log.info("one %d", 1)', 'log.warning("two")', True),
        ("f(label='a', config=1)", "f(label='b', config=1)", True),
        ("f(label='a', config=1)", "f(label='a', config=2)", False),
        ("x: int = Field(default=1, description='a')", "x: int = Field(default=1, description='b')", True),
        ("x: int = Field(default=1, description='a')", "x: int = Field(default=2, description='a')", False),
        ("g.info(1)", "g.info(2)", False),
        ("if TYPE_CHECKING:\n    import a", "if TYPE_CHECKING:\n    import b", True),
        ("if a:\n    log.info(1)\nelse:\n    f()", "if a:\n    log.info(2)\nelse:\n    f()", True),
    ],
)
def test_what_only_people_read_is_no_part_of_the_source(package: Path, before: str, after: str, same: bool) -> None:
    seen = []
    for text in (before, after):
        (package / "m.py").write_text(text + "\n")
        seen.append(digest_of("harness.m"))
    assert (seen[0] == seen[1]) is same


def test_another_version_of_a_package_that_computes_changes_the_digest_and_one_that_shows_does_not(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "m.py").write_text("import numba, rich\nfrom transformers.utils import logging\n")
    versions = {"numba": "1", "transformers": "1", "rich": "1"}
    monkeypatch.setattr(source, "version_of", lambda name: versions[name])
    before = digest_of("harness.m")
    versions["rich"] = "2"
    assert digest_of("harness.m") == before
    for name in ("numba", "transformers"):
        versions[name] = "2"
        assert digest_of("harness.m") != before
        versions[name] = "1"


def test_a_registered_package_of_another_project_is_followed_within_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    (tmp_path / "toy_plugin").mkdir()
    (tmp_path / "toy_plugin/__init__.py").write_text("")
    (tmp_path / "toy_plugin/layer.py").write_text("from toy_plugin.parts import width\n")
    (tmp_path / "toy_plugin/parts.py").write_text("width = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = digest_of("toy_plugin.layer")
    (tmp_path / "toy_plugin/parts.py").write_text("width = 2\n")
    assert digest_of("toy_plugin.layer") != before


def test_no_other_module_imports_by_name_what_a_key_would_then_miss() -> None:
    known = {
        "kernels.dispatch",  # implementations: `closure` adds every one of an op
        "kernels.registry",  # entries: the stage names the module of the one that it uses
        "models",  # every architecture, for transformers' Auto classes; the stage names the one that it trains
        "harness.store.source",  # looks files up, runs none of them
        "harness.base.foreign",  # the folder of a model that comes as a package
        "harness.corpus",  # its own `stored`, which every producer imports
        "harness.corpus.installed",  # texts of packages, whose versions are in the corpus's key
        "saes.catalogue",  # where SAELens lies, whose list it reads
        "harness.tracking.server",  # whether MLflow's extra for passwords is installed
    }
    found = set()
    for path in sorted(source.ROOT.glob("*/**/*.py")):
        name = ".".join(path.relative_to(source.ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name.split(".")[0] in PACKAGES and ".bench" not in name:
            called = {
                n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "")
                for n in ast.walk(ast.parse(path.read_bytes()))
            }
            if called & {"import_module", "__import__", "find_spec"}:
                found.add(name)
    assert found == known


def test_all_implementations_of_an_op_are_reached_though_they_are_chosen_by_name() -> None:
    reached = closure(["models.peer"])
    assert {f"kernels.rank1_experts.{each}" for each in ("reference", "cpu", "gpu")} <= set(reached)
    assert "kernels.selection.cpu" in reached


EXPERIMENT = {
    "name": "keys",
    "budget": {"matched": "none"},
    "systems": [
        "dense-relu",
        "peer",
        "dense-relu+topk",
        "dense-relu+transcoder[selection=mutual_choice]",
        "dense-relu+saelens:gated",
        "moex[upcycle=dense-relu]",
    ],
    "references": ["bigram"],
    "metrics": ["loss", "sparsity", "joint", "autointerp", "tasks", "concepts"],
    "search": {"rates": [1]},
}
# What a change of a file makes anew: the stages that compute with it (what reads those comes after, by their keys).
# First match from above.
SUBJECTS = {"dense-relu", "peer", "moex"}
TRIALS = {f"{name} trial" for name in SUBJECTS}
SUBJECTS |= TRIALS
TOPK, TRANSCODER, SAELENS = "dense-relu+topk", "dense-relu+transcoder", "dense-relu+saelens:gated"
DICTIONARIES = {TOPK, TRANSCODER, SAELENS}
METRICS = {"loss", "sparsity", "joint", "autointerp", "tasks", "concepts"}
MEASURED = {"reference", "codes", "units", *METRICS}
EVERYTHING = {"corpus", *MEASURED, *SUBJECTS, *DICTIONARIES}
NOTHING: set[str] = set()
MOVES: list[tuple[str, set[str]]] = [
    ("harness/corpus/__init__.py", EVERYTHING | {"labels"}),
    ("harness/corpus/stored.py", (EVERYTHING - {"units"}) | {"labels"}),  # which come after, by the codes' key
    ("harness/corpus/config.py", NOTHING),
    ("harness/corpus/chess.py", {"corpus", "joint", "tasks"}),  # both score moves
    ("harness/corpus/excerpts.py", {"corpus", "joint", "tasks"}),
    ("harness/corpus/files.py", {"corpus", "joint", "tasks"}),
    ("harness/corpus/folder.py", {"corpus", "joint", "tasks"}),
    ("harness/corpus/tokenizer.py", {"corpus", "autointerp", "units"}),  # how a token is shown
    ("harness/corpus/references.py", {"reference"}),
    ("harness/corpus/chess_labels.py", NOTHING),  # of other corpora
    ("harness/corpus/othello_labels.py", NOTHING),
    ("harness/corpus/othello*.py", {"tasks"}),  # legal half-moves
    ("harness/corpus/planted_labels.py", NOTHING),
    ("harness/corpus/planted/*", NOTHING),
    ("harness/corpus/hub/*", NOTHING),
    ("harness/corpus/floor.py", {"reference"}),
    (
        "harness/corpus/labels.py",
        {"labels", "reference", "concepts"},
    ),  # and what runs through a split, document by document
    ("harness/corpus/*labels.py", {"labels"}),
    ("harness/corpus/*", {"corpus"}),
    ("harness/training/trials.py", TRIALS),
    ("harness/training/upcycling.py", {"moex", "moex trial"}),
    *(
        (f"harness/training/{name}.py", DICTIONARIES)
        for name in ("attaching", "dictionaries", "dictionary_record", "end_to_end", "trained_on")
    ),
    ("harness/training/teachers.py", NOTHING),
    ("harness/training/*", SUBJECTS),
    ("harness/run/stages/corpus.py", {"corpus"}),
    ("harness/run/stages/reference.py", {"reference"}),
    ("harness/run/stages/pretrained.py", SUBJECTS),
    ("harness/run/stages/subject.py", SUBJECTS),
    ("harness/run/stages/trial.py", TRIALS),
    ("harness/run/stages/dictionary.py", DICTIONARIES),
    ("harness/run/stages/codes.py", {"codes", *METRICS}),
    ("harness/run/stages/labels.py", {"labels"}),
    ("harness/run/stages/metric.py", METRICS),
    ("harness/run/stages/units.py", {"units"}),
    ("harness/systems/collecting.py", DICTIONARIES),
    ("harness/systems/prefix.py", {"joint", "autointerp"}),
    ("harness/systems/directions.py", {"autointerp", "concepts"}),
    ("harness/systems/cost.py", EVERYTHING - {"corpus"}),
    ("harness/systems/system.py", MEASURED | DICTIONARIES),
    ("harness/systems/evaluation.py", MEASURED),
    ("harness/tables/measurement.py", (MEASURED | DICTIONARIES) - {"codes", "units"}),
    ("harness/tables/statistics.py", MEASURED - {"codes", "units"}),
    ("harness/metrics/loss.py", {"loss", "reference"}),
    ("harness/metrics/sparsity.py", {"sparsity"}),
    ("harness/bench/joint_controls.py", NOTHING),
    ("harness/bench/joint_worlds.py", NOTHING),
    ("harness/metrics/joint/*", {"joint"}),
    ("harness/metrics/autointerp/openai_judge.py", NOTHING),  # a rule is the judge here
    ("harness/metrics/autointerp/local_judge.py", NOTHING),
    ("harness/metrics/autointerp/limits.py", NOTHING),
    ("harness/metrics/autointerp/embedding.py", NOTHING),  # a scorer that is not asked for
    ("harness/metrics/autointerp/firings.py", {"autointerp", "units"}),
    ("harness/metrics/autointerp/writes.py", {"autointerp", "units"}),
    ("harness/metrics/autointerp/*", {"autointerp"}),
    ("harness/metrics/units/markdown.py", NOTHING),
    ("harness/metrics/units/*", {"units"}),
    ("harness/metrics/concepts/tellers.py", NOTHING),  # for metrics that do something to units
    ("harness/metrics/concepts/*", {"concepts"}),
    ("harness/metrics/tasks/command.py", NOTHING),
    ("harness/metrics/tasks/*", {"tasks"}),
    ("harness/*", NOTHING),  # commands, plans, tables, figures, tracking, the store, benches, metrics not asked for
    ("kernels/bench/*", NOTHING),
    ("kernels/registry.py", NOTHING),
    ("kernels/product_keys/*", {"peer", "peer trial"}),
    ("kernels/rank1_experts/*", {"peer", "peer trial"}),
    ("kernels/row_sparse_adam/*", SUBJECTS),
    ("kernels/*", EVERYTHING - {"corpus"}),
    ("models/__init__.py", SUBJECTS),
    ("models/bilinear.py", NOTHING),  # no such row here
    ("models/conformance.py", NOTHING),  # asked by a command and by tests
    ("models/monet.py", NOTHING),
    ("models/mxd.py", NOTHING),
    ("models/peer.py", {"peer", "peer trial"}),
    ("models/pools.py", NOTHING),
    ("models/dense.py", SUBJECTS - {"peer", "peer trial"}),  # from which moex is upcycled
    ("models/grouped.py", SUBJECTS),  # by the experts of other people's models, which a subject's stage may read
    ("models/moex.py", {"moex", "moex trial"}),
    ("models/monet_release.py", SUBJECTS),
    ("models/norms.py", SUBJECTS | DICTIONARIES | {"autointerp", "units"}),
    ("models/pretrained*.py", SUBJECTS),
    ("models/registry.py", SUBJECTS),
    ("models/rules.py", NOTHING),  # asked of a model, and changes none
    ("models/subject.py", SUBJECTS),
    ("models/trunk.py", SUBJECTS),
    ("models/wrapped.py", SUBJECTS),
    ("models/*", EVERYTHING - {"corpus"}),
    ("saes/__init__.py", DICTIONARIES),
    ("saes/catalogue.py", NOTHING),
    ("saes/feature_choice.py", NOTHING),  # no such row here
    ("saes/jumprelu.py", NOTHING),
    ("saes/matryoshka.py", NOTHING),
    ("saes/planted.py", NOTHING),
    ("saes/stored.py", NOTHING),
    ("saes/synthetic.py", NOTHING),
    ("saes/topk.py", {TOPK, SAELENS}),
    ("saes/transcoder.py", {TRANSCODER}),
    ("saes/mutual_choice.py", {TRANSCODER}),
    ("saes/batchtopk.py", {TRANSCODER}),
    ("saes/thresholds.py", {TRANSCODER, SAELENS}),
    ("saes/relu.py", {SAELENS}),
    ("saes/saelens.py", {SAELENS}),
    ("saes/sparsity.py", {SAELENS}),
    ("saes/*", DICTIONARIES),
]


def stages() -> dict[str, tuple[str, ...]]:
    """Name of a stage -> the modules that compute it."""
    experiment = Experiment.model_validate(EXPERIMENT)
    plan = make_plan(experiment, Numerics("cpu", "float32", 2))
    assert plan.text.labels is not None
    found = {
        "corpus": plan.text.stage.modules,
        "labels": plan.text.labels.modules,
        "reference": plan.references["bigram"].modules,
    }
    for run in plan.rows:
        name = run.spec.name.split("[")[0]
        if run.dictionary is None:
            found[name] = run.subject.modules
        else:
            found[name] = run.dictionary.modules
        found["codes"] = run.codes.modules
        found |= {metric: stage.modules for metric, stage in run.metrics.items()}
        if run.units is not None:
            found["units"] = run.units.modules
    for trial in plan.trials:
        if trial.dictionary is None:  # one of dictionaries computes little, and moves with nearly everything
            found[f"{trial.spec.name.split('[')[0]} trial"] = trial.stage.modules
    return found


def test_a_change_of_a_file_changes_the_keys_of_what_it_computes_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = stages()
    for name in PACKAGES:
        shutil.copytree(source.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source, "ROOT", tmp_path)
    known: dict[str, source._Code] = {}

    def code(name: str) -> source._Code:
        if name not in known:
            path = source.module_path(name)
            assert path is not None
            known[name] = source._Code(name, path)
        return known[name]

    monkeypatch.setattr(source, "_module_code", code)
    before = {stage: source_digest(named) for stage, named in modules.items()}
    wrong, unused = {}, {pattern for pattern, _ in MOVES}
    for file in sorted(tmp_path.glob("*/**/*.py")):
        shown = str(file.relative_to(tmp_path))
        name = ".".join(file.relative_to(tmp_path).with_suffix("").parts).removesuffix(".__init__")
        text = file.read_text()
        known.pop(name, None)
        file.write_text(text + "\nADDED = 1\n")
        moved = {stage for stage, named in modules.items() if source_digest(named) != before[stage]}
        file.write_text(text)
        known.pop(name, None)
        pattern, declared = next(rule for rule in MOVES if fnmatch(shown, rule[0]))
        unused.discard(pattern)
        if moved != declared:
            wrong[shown] = f"moves {sorted(moved)}, declared {sorted(declared)}"
    assert not wrong, "\n".join(f"{a}: {b}" for a, b in wrong.items())
    assert not unused
