import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import saes
from saes.relu import DENSE_ABOVE
from saes.topk import TopKConfig
from saes.trainer import Assignment, TrainSettings, train
from saes.training_dictionary import Shape

SETTINGS = TrainSettings(
    train_tokens=6_000, batch_tokens=128, buffer_tokens=1024, log_every=5, checkpoint_every=7, seed=1
)
TWO = {
    "small": Assignment("sae", TopKConfig(n_latents=24, k=2, dead_after_tokens=300)),
    "wide": Assignment("sae", TopKConfig(n_latents=48, k=3, dead_after_tokens=300)),
}


def curve(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


def run(planted, work, dictionaries=TWO, settings=SETTINGS, **more):
    return train(dictionaries, settings.stream(planted, 60, 32), settings, work, **more)


def test_planted_features_are_recovered(planted, tmp_path, explained_variance):
    settings = TrainSettings(train_tokens=100_000, batch_tokens=256, buffer_tokens=2048)
    config = TopKConfig(n_latents=24, k=2, lr=2e-2, dead_after_tokens=5_000)
    trained = train({"a": Assignment("sae", config)}, settings.stream(planted, 400, 32), settings, tmp_path)["a"]
    cosine = (planted.features @ trained.dictionary.W_dec.T).max(1).values
    assert float(cosine.mean()) > 0.95
    x = planted(torch.arange(1000, 1030)).sites["sae"][0]
    assert explained_variance(x, trained.dictionary(x)) > 0.75


def test_a_killed_run_goes_on_to_the_same_bits(planted, tmp_path):
    run(planted, tmp_path / "whole")
    program = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from conftest import Planted\n"
        "from saes.topk import TopKConfig\n"
        "from saes.trainer import Assignment, TrainSettings, train\n"
        f"two = {{'small': Assignment('sae', {TWO['small'].config!r}),\n"
        f"       'wide': Assignment('sae', {TWO['wide'].config!r})}}\n"
        f"settings = {SETTINGS!r}\n"
        "from pathlib import Path\n"
        "kill = lambda name, row: os.kill(os.getpid(), signal.SIGKILL) if (name, row.step) == ('small', 25) else None\n"
        f"train(two, settings.stream(Planted(), 60, 32), settings, Path({str(tmp_path / 'killed')!r}), on_step=kill)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "small" / "cfg.json").exists()
    assert curve(tmp_path / "killed" / "small")[-1]["step"] == 25
    steps = []
    run(planted, tmp_path / "killed", on_step=lambda name, row: steps.append(row.step))
    assert min(steps) == 25  # the last checkpoint was at 21
    for name in TWO:
        whole, resumed = (load_file(tmp_path / w / name / "sae_weights.safetensors") for w in ("whole", "killed"))
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
        a, b = curve(tmp_path / "whole" / name), curve(tmp_path / "killed" / name)
        assert [{**row, "tokens_per_second": 0} for row in a] == [{**row, "tokens_per_second": 0} for row in b]


def test_a_finished_run_is_not_trained_again(planted, tmp_path):
    first, rows = run(planted, tmp_path), curve(tmp_path / "wide")
    again = run(lambda sequences: pytest.fail("the subject ran again"), tmp_path)
    assert torch.equal(first["wide"].dictionary.W_dec, again["wide"].dictionary.W_dec)
    assert first["wide"].training_flops == again["wide"].training_flops
    assert curve(tmp_path / "wide") == rows


def test_a_dictionary_does_not_depend_on_what_is_trained_beside_it(planted, tmp_path):
    together = run(planted, tmp_path / "together")["wide"].dictionary
    alone = run(planted, tmp_path / "alone", {"wide": TWO["wide"]})["wide"].dictionary
    assert torch.equal(together.W_enc, alone.W_enc)


def test_one_pass_of_the_subject_feeds_all_dictionaries(planted, tmp_path):
    calls = []

    def collect(sequences):
        calls.append(len(sequences))
        return planted(sequences)

    run(collect, tmp_path)
    # 6,000 tokens in chunks of 1,024, and the first chunk once more for mean and scale.
    assert sum(calls) * 32 <= 6_000 + 2 * 1024


def test_another_configuration_does_not_take_over_a_checkpoint(planted, tmp_path):
    run(planted, tmp_path)
    other = {**TWO, "small": Assignment("sae", TopKConfig(n_latents=24, k=3))}
    with pytest.raises(ValueError, match="made with other settings"):
        run(planted, tmp_path, other)


def test_a_site_that_is_not_in_the_stream_is_named_with_those_that_are(planted, tmp_path):
    with pytest.raises(ValueError, match="site nowhere is not in the stream, which has sae, mlp"):
        run(planted, tmp_path, {"a": Assignment("nowhere", TopKConfig())})


def test_a_site_with_an_input_and_an_output_needs_a_transcoder(planted, tmp_path):
    with pytest.raises(ValueError, match="site mlp has an input and an output: a must be a transcoder"):
        run(planted, tmp_path, {"a": Assignment("mlp", TopKConfig())})


def test_the_curve_and_the_costs_add_up(planted, tmp_path):
    trained = run(planted, tmp_path, subject_flops_per_token=10.0)["wide"]
    rows = curve(tmp_path / "wide")
    assert [row["step"] for row in rows[:3]] == [5, 10, 15]
    assert rows[-1]["tokens"] == trained.tokens >= 6_000
    assert trained.collecting_flops == 10.0 * trained.tokens
    # At least the encoder product and the decoding of k latents, at most with 8 auxiliary latents on every token.
    slot = 10 * 16
    assert 2 * 16 * 48 + 3 * slot <= trained.training_flops / trained.tokens <= 2 * 16 * 48 + 11 * slot
    assert rows[0]["l0"] <= 3
    assert rows[-1]["explained_variance"] > rows[0]["explained_variance"]


def test_the_learning_rate_warms_up_and_decays_to_zero():
    s = TrainSettings(warmup_share=0.1, decay_share=0.2)
    assert [round(s.lr_factor(p), 6) for p in (0.0, 0.05, 0.1, 0.5, 0.8, 0.9, 1.0)] == [0, 0.5, 1, 1, 1, 0.5, 0]


@pytest.mark.usefixtures("two_threads")  # side by side, as in use
@pytest.mark.parametrize("stop_at", [15, 30])  # Feature Choice turns from one phase to the other at step 24
def test_kinds_with_state_of_their_own_resume_to_the_same_bits(planted, tmp_path, stop_at):
    options = {"n_latents": 64, "k": 2, "dead_after_tokens": 300, "lr": 2e-2}
    kinds = {name: Assignment("sae", saes.DICTIONARIES[name](**options)) for name in ("relu", "feature_choice")}
    l0 = {}

    def stop(name, row):
        l0[name] = row.l0
        if row.step == stop_at and len(l0) == 2:
            raise KeyboardInterrupt

    def held_out():
        return planted(torch.arange(500, 540))

    whole = run(planted, tmp_path / "whole", kinds, held_out=held_out)
    with pytest.raises(KeyboardInterrupt):
        run(planted, tmp_path / "stopped", kinds, held_out=held_out, on_step=stop)
    assert (l0["relu"] > 64 * DENSE_ABOVE) == (stop_at == 15)  # ReLU goes from products to gathered rows between
    resumed = run(planted, tmp_path / "stopped", kinds, held_out=held_out)
    for name in kinds:
        for key, tensor in whole[name].dictionary.state_dict().items():
            assert torch.equal(tensor, resumed[name].dictionary.state_dict()[key]), (name, key)
        assert whole[name].as_trained_half == resumed[name].as_trained_half
        assert whole[name].at_inference == resumed[name].at_inference


def test_an_objective_of_two_sites_at_once_trains_their_dictionaries_end_to_end(planted, tmp_path):
    """A subject of one layer: logits from the MLP's input plus its output. Both are spliced, the loss is one KL."""
    readout = torch.randn(32, 11, generator=torch.Generator().manual_seed(2))
    kl = []

    def logits(x, target):
        return (torch.nn.functional.pad(x, (0, 16)) + target) @ readout

    def spliced(learners, batch):
        raw, results = {}, {}
        for name, learner in learners.items():
            x, target = batch.sites[learner.site]
            results[name] = learner.module.step(learner.x(x), learner.target(target))
            raw[name] = learner.target.undo(results[name].output)
        native = logits(*batch.sites["mlp"]).log_softmax(1)
        ours = logits(raw["sae"], raw["transcoder"]).log_softmax(1)
        loss = (native.exp() * (native - ours)).sum(1).mean()
        kl.append(loss.item())
        shared = loss + sum(result.beside for result in results.values())
        yield "sae", dataclasses.replace(results["sae"], loss=shared)
        yield "transcoder", dataclasses.replace(results["transcoder"], loss=shared.detach())

    options = {"n_latents": 24, "k": 2, "dead_after_tokens": 300, "lr": 1e-2}
    both = {
        "sae": Assignment("sae", saes.DICTIONARIES["topk"](**options)),
        "transcoder": Assignment("mlp", saes.DICTIONARIES["transcoder"](**options)),
    }
    trained = run(planted, tmp_path, both, objective=spliced)
    assert sum(kl[-5:]) < 0.5 * sum(kl[:5])
    assert [trained[name].dictionary.d_out for name in both] == [16, 32]
    assert curve(tmp_path / "transcoder")[-1]["loss"] == curve(tmp_path / "sae")[-1]["loss"]


def test_what_training_found_is_measured_on_held_out_tokens_and_kept(planted, tmp_path):
    calls = []

    def held_out():
        calls.append(1)
        return planted(torch.arange(500, 540))

    first = run(planted, tmp_path, held_out=held_out)["wide"]
    assert len(calls) == 1
    assert run(planted, tmp_path, held_out=held_out)["wide"].at_inference == first.at_inference
    assert len(calls) == 1
    assert first.at_inference.tokens == 40 * 32
    # Top-k selects in training as it does at inference.
    assert first.as_trained.explained_variance == pytest.approx(first.at_inference.explained_variance, abs=1e-5)
    assert first.as_trained.explained_variance > first.as_trained_half.explained_variance


def test_a_loss_that_is_not_finite_stops_training_with_the_step(planted, tmp_path):
    with pytest.raises(ValueError, match=r"loss of a is .* at step \d+: try a lower lr"):
        run(planted, tmp_path, {"a": Assignment("sae", TopKConfig(n_latents=24, k=2, lr=1e38))})


def test_no_batch_is_trained_on_with_a_learning_rate_of_zero(planted, tmp_path):
    settings = dataclasses.replace(SETTINGS, log_every=1)
    run(planted, tmp_path, settings=settings)
    rates = [row["lr"] for row in curve(tmp_path / "small")]
    assert min(rates) > 0
    assert rates[0] < rates[1] < rates[2]
    assert rates[-1] < rates[-2] < rates[-3]


def test_a_budget_of_one_batch_trains(planted, tmp_path):
    settings = TrainSettings(train_tokens=100, batch_tokens=128, buffer_tokens=1024)
    trained = run(planted, tmp_path, {"a": TWO["small"]}, settings)["a"]
    more = run(planted, tmp_path / "more", {"a": TWO["small"]}, dataclasses.replace(settings, train_tokens=5_000))["a"]
    (row,) = curve(tmp_path / "a")
    assert row["lr"] == TWO["small"].config.lr
    untrained = TWO["small"].config.build(Shape(16, 16), torch.Generator().manual_seed(0))
    # Adam moved every weight by about the rate: the encoder is no longer the decoder transposed.
    assert torch.equal(untrained.W_enc, untrained.W_dec.T)
    W_enc, W_dec = trained.dictionary.W_enc, trained.dictionary.W_dec
    cosines = torch.nn.functional.cosine_similarity(W_enc.T, W_dec, dim=1)
    assert float(cosines.max()) < 1 - 1e-6
    assert trained.tokens < more.tokens
