"""Dictionaries trained on a subject: end to end, brought in from elsewhere, and what a row says of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import saes
from harness.base.errors import BadInput, HarnessError
from harness.base.progress import silent
from harness.experiment.rows import system_specs
from harness.experiment.schema import Experiment
from harness.systems.collecting import collect
from harness.systems.system import Site, System
from harness.training.dictionaries import Job, import_dictionaries, load_dictionaries, train_dictionaries
from harness.training.dictionary_record import DictionaryRecord, SiteOutcome
from harness.training.end_to_end import EndToEnd, NativeStream
from saes.dictionary import Weights
from saes.learner import Learner
from saes.pretrained import Pretrained
from saes.quality import NOT_CONVERGED_ABOVE, Quality
from saes.stored import load
from saes.topk import TopK
from saes.trainer import CURVE_FILE, TrainSettings
from saes.training_dictionary import Shape, Standardisation

from ..conftest import subject

LENGTH = 12
ALL = (Site(0, "mlp_out"), Site(1, "mlp_out"))
ALL_MLP = (Site(0, "mlp"), Site(1, "mlp"))


class Split:
    """Random sequences in the place of a corpus."""

    length = LENGTH

    def __init__(self, sequences: int, seed: int) -> None:
        self.ids = torch.randint(0, 31, (sequences, LENGTH), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Tensor) -> Any:
        found = SimpleNamespace(input_ids=self.ids[indices])
        found.to = lambda _device: found
        return found


TRAIN, DEV = cast(Any, Split(96, 0)), cast(Any, Split(40, 1))
SETTINGS = TrainSettings(train_tokens=9_216, batch_tokens=96, buffer_tokens=480, log_every=8, checkpoint_every=1000)
END_TO_END = dataclasses.replace(SETTINGS, objective="end_to_end")
OPTIONS = {"n_latents": 48, "k": 4, "dead_after_tokens": 2_000}


def model() -> Any:
    return subject("dense", torch.float32)


def trained(folder: Path, settings: TrainSettings, **rows: tuple[str, tuple[Site, ...]]) -> dict[str, Job]:
    jobs = {}
    for name, (kind, sites) in rows.items():
        (folder / name).mkdir(parents=True)
        jobs[name] = Job(saes.DICTIONARIES[kind](**cast(Any, OPTIONS)), sites, folder / name)
    train_dictionaries(jobs, model(), TRAIN, DEV, settings, scratch=folder / "scratch", report=silent)
    return jobs


def spliced_kl(system: System, ids: Tensor) -> float:
    """Mean KL(native ‖ spliced) over tokens, the slow way."""
    with torch.no_grad():
        native = system.model(ids).logits.log_softmax(-1)
        with system.running(dict.fromkeys(system.sites, lambda codes: codes), error="drop"):
            ours = system.model(ids).logits.log_softmax(-1)
    return float((native.exp() * (native - ours)).sum(-1).mean())


@pytest.mark.parametrize(("kind", "sites"), [("topk", ALL), ("skip_transcoder", ALL_MLP), ("topk", ALL[1:])])
def test_the_loss_end_to_end_is_the_kl_of_the_spliced_system(kind: str, sites: tuple[Site, ...]) -> None:
    subject_model, indices = model(), torch.arange(8)
    activations = collect(subject_model, TRAIN, indices, sites)
    learners, dictionaries = {}, {}
    for site in sites:
        x, y = activations.sites[site]
        reads = Standardisation.of(x)
        wants = reads if y is x else Standardisation.of(y)
        config = saes.DICTIONARIES[kind](**cast(Any, OPTIONS))
        module = config.build(Shape(16, 16, transcoder=config.transcodes), torch.Generator().manual_seed(site.layer))
        learners[str(site)] = Learner(site, module, torch.optim.SGD(module.parameters(), 0.1), 0.1, reads, wants)
        dictionaries[site] = module.inference(reads, wants, x)
    stream = NativeStream(SETTINGS.stream(cast(Any, None), 96, LENGTH), subject_model, TRAIN, frozenset(sites))
    (first, result), *others = EndToEnd(subject_model, [list(learners)])(learners, stream._run(indices))
    expected = spliced_kl(System("", subject_model, dictionaries), TRAIN.ids[:8])
    assert expected > 0.001
    assert result.loss.item() == pytest.approx(expected, rel=1e-4)
    assert first == str(sites[0])
    assert all(not other.loss.requires_grad for _, other in others)
    result.loss.backward()
    for learner in learners.values():  # all of them learn from it, and the subject does not
        assert all(bool(p.grad is not None and p.grad.any()) for p in (learner.module.W_dec, learner.module.W_enc))  # pyright: ignore[reportAttributeAccessIssue]
    assert all(p.grad is None for p in subject_model.parameters())


def test_end_to_end_brings_the_spliced_model_closer_than_reconstruction_does(tmp_path: Path) -> None:
    ours = trained(tmp_path / "end", END_TO_END, row=("topk", ALL))["row"]
    other = trained(tmp_path / "reconstruct", SETTINGS, row=("topk", ALL))["row"]
    kl = {
        job.folder: spliced_kl(System("", model(), load_dictionaries(job.folder, ALL, "cpu")), DEV.ids)
        for job in (ours, other)
    }
    assert kl[ours.folder] < 0.9 * kl[other.folder]
    end, reconstruct = DictionaryRecord.load(ours.folder), DictionaryRecord.load(other.folder)
    assert (end.objective, reconstruct.objective) == ("end_to_end", "reconstruction")
    for metric in ("as_trained", "at_inference"):
        assert getattr(end.sites["mlp_out.0"], metric).l0 == pytest.approx(4, rel=0.05)


def test_its_cost_counts_a_native_a_spliced_and_a_backward_pass(tmp_path: Path) -> None:
    end = DictionaryRecord.load(trained(tmp_path / "end", END_TO_END, row=("topk", ALL))["row"].folder)
    other = DictionaryRecord.load(trained(tmp_path / "reconstruct", SETTINGS, row=("topk", ALL))["row"].folder)
    per_token = model().forward_flops_per_token(LENGTH)
    assert other.collecting_flops == pytest.approx(per_token * other.tokens)
    assert end.collecting_flops == pytest.approx(3 * per_token * end.tokens)
    assert end.tokens == other.tokens == 9_216


def test_rows_trained_end_to_end_beside_each_other_do_not_meet(tmp_path: Path) -> None:
    alone = trained(tmp_path / "alone", END_TO_END, one=("topk", ALL))["one"]
    beside = trained(tmp_path / "beside", END_TO_END, one=("topk", ALL), two=("transcoder", ALL_MLP[1:]))
    for site in ALL:
        a, b = (load(job.folder / str(site)).state_dict() for job in (alone, beside["one"]))
        assert all(torch.equal(a[key], b[key]) for key in a)
    rows = [json.loads(line) for line in (beside["two"].folder / "mlp.1" / CURVE_FILE).read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_batches_end_to_end_are_whole_sequences_and_can_be_resumed() -> None:
    stream = NativeStream(SETTINGS.stream(cast(Any, None), 96, LENGTH), model(), TRAIN, frozenset(ALL))
    batches = stream.batches()
    first = [next(batches) for _ in range(7)]
    assert {batch.batch.input_ids.shape for _, _, batch in first} == {(8, LENGTH)}
    again = stream.batches(first[5][0], first[5][1])
    assert torch.equal(next(again)[2].batch.input_ids, first[5][2].batch.input_ids)


@pytest.mark.parametrize("settings", [SETTINGS, END_TO_END], ids=["reconstruction", "end_to_end"])
def test_a_subject_that_gives_nan_is_stopped_at_the_token(tmp_path: Path, settings: TrainSettings) -> None:
    """A token that comes once, after training has begun."""
    broken, split = model(), cast(Any, Split(96, 0))
    sequence = int(settings.stream(cast(Any, None), 96, LENGTH).sequences(1)[0])
    split.ids[split.ids == 30] = 0
    split.ids[sequence, 3] = 30
    # In the output of the last MLP, at that token alone: a bad embedding would spread through attention and the head.
    seen: list[torch.Tensor] = []
    broken.model.embed_tokens.register_forward_hook(lambda _m, args, _y: seen.append(args[0] == 30))
    spoil = lambda _m, _a, y: y.masked_fill(seen.pop()[..., None], float("nan"))  # noqa: E731
    broken.model.layers[-1].feed_forward.register_forward_hook(spoil)
    job = Job(saes.DICTIONARIES["topk"](**cast(Any, OPTIONS)), ALL, tmp_path)
    dev = cast(Any, Split(40, 1))
    dev.ids[dev.ids == 30] = 0
    says = rf"site mlp_out\.\d is not finite on token \(sequence {sequence}, position 3\)"
    with pytest.raises(HarnessError, match=says):
        train_dictionaries({"a": job}, broken, split, dev, settings, scratch=tmp_path / "scratch", report=silent)


def quality(explained_variance: float, l0: float = 4.0) -> Quality:
    return Quality(explained_variance, l0, dead_share=0.25, under_used_share=0.5, width=48, tokens=480)


def record(**sites: SiteOutcome) -> DictionaryRecord:
    return DictionaryRecord("reconstruction", 4.0, sites, 1000, 10, 5, 2.0, 3.0, 4.0, 5.0, 6.0, {})


def test_a_row_says_what_was_measured_as_trained_and_at_inference() -> None:
    found = record(
        a=SiteOutcome(quality(0.5), quality(0.6), quality(0.58, l0=5.0)),
        b=SiteOutcome(quality(0.7), quality(0.8), quality(0.78, l0=4.0)),
    )
    figures = {m.name: m.value for m in found.measurements()}
    assert figures == pytest.approx(
        {
            "dictionary/half_budget_explained_variance": 0.6,
            "dictionary/as_trained_explained_variance": 0.7,
            "dictionary/inference_explained_variance": 0.68,
            "dictionary/target_l0": 4.0,
            "dictionary/as_trained_l0": 4.0,
            "dictionary/inference_l0": 4.5,
            "dictionary/inference_dead": 0.25,
            "dictionary/inference_under_used": 0.5,
            "dictionary/width": 48,
            "dictionary/held_out_tokens": 480,
        }
    )


def test_a_row_that_still_rises_is_called_not_converged_and_one_that_does_not_is_not() -> None:
    flat = SiteOutcome(quality(0.6), quality(0.6 + 0.9 * NOT_CONVERGED_ABOVE), quality(0.6))
    rising = SiteOutcome(quality(0.6), quality(0.65), quality(0.6))
    assert record(a=flat).notes() == []
    assert record(a=rising).notes() == ["not converged: explained variance +0.050 in the second half at a"]
    assert "at 1 of 2 sites, most b" in record(a=flat, b=rising).notes()[0]


def test_a_row_says_where_its_target_l0_was_not_reached() -> None:
    near = SiteOutcome(quality(0.6), quality(0.6), quality(0.6, l0=4.8))
    few = SiteOutcome(quality(0.6), quality(0.6), quality(0.6, l0=1.21))
    silent_one = SiteOutcome(quality(0.6), quality(0.6), quality(0.6, l0=0.0))
    assert record(a=near).notes() == []
    assert record(a=few).notes() == ["target L0 4 not reached: 1.21 at inference at a"]
    assert record(a=near, b=few).notes() == ["target L0 4 not reached: 1.21 at inference at 1 of 2 sites, furthest b"]
    assert "0 at inference at 2 of 2 sites, furthest b" in record(a=few, b=silent_one).notes()[0]


def test_a_row_names_the_sites_where_its_dictionary_is_worse_than_writing_the_mean() -> None:
    fine = SiteOutcome(quality(0.6), quality(0.6), quality(0.6))
    bad = SiteOutcome(quality(0.6), quality(0.6), quality(-0.25))
    assert record(a=fine).notes() == []
    assert record(a=fine, b=bad).notes() == ["worse than writing the mean: explained variance -0.250 at inference at b"]


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = record(a=SiteOutcome(None, None, quality(0.6)), b=SiteOutcome(quality(0.1), quality(0.2), quality(0.3)))
    written.save(tmp_path)
    assert DictionaryRecord.load(tmp_path) == written


def dictionary(folder: Path, d: int = 16, seed: int = 0) -> TopK:
    g = torch.Generator().manual_seed(seed)
    weights = Weights(torch.randn(d, 24, generator=g), torch.zeros(24), torch.randn(24, d, generator=g), torch.zeros(d))
    made = TopK(weights, 3)
    made.save(folder)
    return made


def test_a_folder_becomes_a_row_with_its_figures_and_no_training(tmp_path: Path) -> None:
    theirs = [dictionary(tmp_path / f"theirs.{layer}", seed=layer) for layer in (0, 1)]
    source = Pretrained(path=str(tmp_path / "theirs.{layer}"), trust=True)
    import_dictionaries(source, ALL, tmp_path / "row", model(), DEV)
    found = DictionaryRecord.load(tmp_path / "row")
    loaded = load_dictionaries(tmp_path / "row", ALL, "cpu")
    for site, made in zip(ALL, theirs, strict=True):
        assert torch.equal(cast(TopK, loaded[site]).W_enc, made.W_enc)
        assert found.sites[str(site)].at_inference.l0 <= 3
    assert (found.tokens, found.training_flops, found.target_l0) == (0, 0.0, None)
    assert found.curves() == []
    worse, uncounted = found.notes()  # its weights are random
    assert worse.startswith("worse than writing the mean")
    assert uncounted == "pretrained: what training the dictionary took is not counted"
    assert "dictionary/as_trained_l0" not in {m.name for m in found.measurements()}


def test_dictionaries_of_another_width_are_not_imported(tmp_path: Path) -> None:
    dictionary(tmp_path / "theirs", d=12)
    with pytest.raises(HarnessError, match="reads width 12 and writes 12, the subject has width 16"):
        import_dictionaries(Pretrained(path=str(tmp_path / "theirs")), ALL[:1], tmp_path / "row", model(), DEV)


def specs(row: str, options: dict[str, Any]) -> Any:
    subject_options = {"d_model": 16, "n_layers": 2, "n_heads": 2}
    raw = {"name": "x", "systems": {"dense": subject_options, row: options}, "metrics": {"loss": {}}}
    return system_specs(Experiment.model_validate(raw))[1]


def test_a_pretrained_row_knows_its_files(tmp_path: Path) -> None:
    dictionary(tmp_path / "theirs")
    options = {"path": str(tmp_path / "theirs"), "layers": [1], "trust": True}
    spec = specs("dense+pretrained", options).dictionary
    assert spec.sites == (Site(1, "mlp_out"),)
    dictionary(tmp_path / "theirs", seed=5)
    assert specs("dense+pretrained", options).dictionary.config != spec.config  # other files, other results


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "narrow", "layers": [0], "trust": True}, "reads width 12 and writes 12, the subject has width 16"),
        ({"path": "nothing", "layers": [0]}, "nothing holds no dictionary"),
        ({"path": "theirs", "trust": True}, "one dictionary for 2 layers"),
        ({"path": "theirs", "layers": [0], "point": "mlp"}, "an autoencoder has no output to learn at 'mlp'"),
        (
            {"path": "theirs", "layers": [0]},
            "does not say which model it was trained on (trust=true attaches it to dense",
        ),
        ({"path": "theirs", "layers": [2], "trust": True}, "the subject has layers 0 to 1"),
        ({"layers": [0]}, "name a folder in path, or a release"),
        ({"release": "gpt2", "layers": [0]}, "a release needs the id"),
        ({"release": "gpt2-smal-res-jb", "id": "x"}, "did you mean gpt2-small-res-jb"),
        ({"release": "gpt2-small-res-jb", "id": "blocks.1.hook_resid_post"}, "did you mean blocks."),
        (
            {"release": "gpt2-small-res-jb", "id": "blocks.1.hook_resid_pre"},
            "gpt2-small-res-jb: it was trained on gpt2-small, and the row's subject is dense",
        ),
        ({"path": "theirs", "layers": [0], "k": 3}, "systems.dense+pretrained.k: unknown key"),
    ],
)
def test_a_pretrained_row_that_cannot_be_is_refused_before_anything_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    dictionary(tmp_path / "theirs")
    dictionary(tmp_path / "narrow", d=12)
    with pytest.raises(BadInput) as caught:
        specs("dense+pretrained", options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_objective_can_stand_in_brackets(tmp_path: Path) -> None:
    spec = specs("dense+transcoder[layers=[1],objective=end_to_end]", {"k": 4, "n_latents": 32}).dictionary
    assert spec.settings.objective == "end_to_end"
    assert spec.sites == (Site(1, "mlp"),)
    with pytest.raises(BadInput, match="objective"):
        specs("dense+topk", {"objective": "end"})
