"""Every kind of dictionary: what it selects, and that it trains, saves, reloads and says the same."""

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import saes
from saes.feature_choice import budgets
from saes.quality import at_inference
from saes.sparsity import TargetL0
from saes.stored import load
from saes.trainer import Assignment, TrainSettings, train
from saes.training_dictionary import DictionaryConfig, Shape

OPTIONS = {"n_latents": 32, "k": 2, "lr": 1e-2, "dead_after_tokens": 2_000}
KINDS = {
    "relu": ("sae", saes.DICTIONARIES["relu"](**OPTIONS)),
    "relu-tied": ("sae", saes.DICTIONARIES["relu"](**OPTIONS, tied=True)),
    "relu-norms": ("sae", saes.DICTIONARIES["relu"](**OPTIONS, decoder_norms=True)),
    "topk": ("sae", saes.DICTIONARIES["topk"](**OPTIONS)),
    "batchtopk": ("sae", saes.DICTIONARIES["batchtopk"](**OPTIONS)),
    "mutual_choice": ("sae", saes.DICTIONARIES["mutual_choice"](**OPTIONS)),
    "feature_choice": ("sae", saes.DICTIONARIES["feature_choice"](**OPTIONS)),
    "jumprelu": ("sae", saes.DICTIONARIES["jumprelu"](**OPTIONS)),
    "matryoshka": ("sae", saes.DICTIONARIES["matryoshka"](**OPTIONS)),
    "topk-frozen-decoder": ("sae", saes.DICTIONARIES["topk"](**OPTIONS, frozen="decoder")),
    "jumprelu-frozen-encoder": ("sae", saes.DICTIONARIES["jumprelu"](**OPTIONS, frozen="encoder")),
    "transcoder-topk": ("mlp", saes.DICTIONARIES["transcoder"](**OPTIONS)),
    "transcoder-relu": ("mlp", saes.DICTIONARIES["transcoder"](**OPTIONS, selection="relu")),
    "transcoder-feature_choice": ("mlp", saes.DICTIONARIES["transcoder"](**OPTIONS, selection="feature_choice")),
    "transcoder-jumprelu": ("mlp", saes.DICTIONARIES["transcoder"](**OPTIONS, selection="jumprelu")),
    "transcoder-matryoshka": ("mlp", saes.DICTIONARIES["transcoder"](**OPTIONS, selection="matryoshka")),
    "skip_transcoder-topk": ("mlp", saes.DICTIONARIES["skip_transcoder"](**OPTIONS)),
    "skip_transcoder-mutual_choice": (
        "mlp",
        saes.DICTIONARIES["skip_transcoder"](**OPTIONS, selection="mutual_choice"),
    ),
}
SETTINGS = TrainSettings(train_tokens=20_000, batch_tokens=128, buffer_tokens=2048, log_every=50, checkpoint_every=500)


@pytest.fixture(scope="module")
def trained(planted, tmp_path_factory):
    assignments = {name: Assignment(site, config) for name, (site, config) in KINDS.items()}
    work = tmp_path_factory.mktemp("kinds")
    return train(
        assignments,
        SETTINGS.stream(planted, 300, 32),
        SETTINGS,
        work,
        held_out=lambda: planted(torch.arange(1000, 1200)),
    )


@pytest.mark.parametrize("name", KINDS)
def test_it_learns_and_keeps_what_it_learnt(trained, planted, name):
    result = trained[name]
    assert result.as_trained.explained_variance > 0.25
    # Selections that fix L0 keep it from training to inference; a penalty is steered there.
    tolerance = 0.25 if name.removeprefix("transcoder-").startswith("relu") else 0.05
    assert result.at_inference.l0 == pytest.approx(2, rel=tolerance)
    # So short a training ends with jumprelu's L0 some way from where it is steered; calibration moves it there.
    moved = 0.1 if "jumprelu" in name else 0.05
    assert result.at_inference.explained_variance == pytest.approx(result.as_trained.explained_variance, abs=moved)
    x, target = planted(torch.arange(1000, 1200)).sites[KINDS[name][0]]
    again = load(result.folder)
    quality = at_inference(again, x, target, 500)
    assert quality.explained_variance == pytest.approx(result.at_inference.explained_variance, abs=1e-5)
    assert (quality.l0, quality.dead_share) == (result.at_inference.l0, result.at_inference.dead_share)


@pytest.mark.parametrize("name", KINDS)
def test_what_it_reads_it_writes(trained, planted, name):
    dictionary = trained[name].dictionary
    activations = planted(torch.arange(1300, 1302))
    x, target = activations.sites[KINDS[name][0]]
    codes = dictionary.read(x, activations.rows)
    assert (codes.values > 0).all()
    written = dictionary.write(codes, x) + dictionary.rest(x)
    assert written.shape == target.shape
    assert torch.allclose(written, dictionary(x))
    assert torch.allclose(dictionary.strengths(codes, x), codes.values, rtol=1e-4)  # decoder rows have norm 1


def test_every_kind_gives_the_same_figures_in_a_new_process(trained, planted, tmp_path):
    sites = planted(torch.arange(1000, 1200)).sites
    save_file({f"{site}.{i}": t.clone() for site, pair in sites.items() for i, t in enumerate(pair)}, tmp_path / "data")
    program = (
        "import json, sys; from pathlib import Path; from safetensors.torch import load_file\n"
        "from saes.stored import load; from saes.quality import at_inference\n"
        "data = load_file(sys.argv[1])\n"
        "for site, folder in zip(sys.argv[2::2], sys.argv[3::2]):\n"
        "    found = at_inference(load(Path(folder)), data[site + '.0'], data[site + '.1'], 500)\n"
        "    sys.stdout.write(json.dumps(vars(found)) + chr(10))\n"
        "assert 'sae_lens' not in sys.modules\n"
    )
    folders = [word for name in KINDS for word in (KINDS[name][0], str(trained[name].folder))]
    command = [sys.executable, "-c", program, str(tmp_path / "data"), *folders]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for name, line in zip(KINDS, lines, strict=True):
        assert json.loads(line) == pytest.approx(vars(trained[name].at_inference), rel=1e-5, abs=1e-5), name


def test_a_skip_carries_what_is_linear(trained):
    skip, plain = trained["skip_transcoder-topk"], trained["transcoder-topk"]
    assert skip.dictionary.W_skip is not None
    assert skip.at_inference.explained_variance > plain.at_inference.explained_variance


def test_a_tied_encoder_is_the_decoder_transposed(trained):
    dictionary = trained["relu-tied"].dictionary
    ratio = dictionary.W_enc / dictionary.W_dec.T
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-3)


def module_of(name, d=8, seed=0, **more):
    config = saes.DICTIONARIES[name](**{**OPTIONS, **more})
    return config.build(Shape(d, d, transcoder=config.transcodes), torch.Generator().manual_seed(seed)).double()


def batch(seed=1, n=40, d=8):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"decoder_norms": True}])
def test_relu_takes_the_same_step_by_products_and_by_gathered_rows(options):
    steps = []
    for l0 in (32.0, 1.0):
        module, x = module_of("relu", **options), batch().requires_grad_()
        module.prepare(0.5)
        module.last_l0.fill_(l0)
        assert module.dense == (l0 == 32)
        result = module.step(x, x)
        result.loss.backward()
        steps.append((result, {**{n: p.grad for n, p in module.named_parameters()}, "x": x.grad}))
    (products, dense_gradients), (gathered, sparse_gradients) = steps
    assert torch.allclose(products.loss, gathered.loss, rtol=1e-12)
    assert torch.equal(products.fired, gathered.fired)
    assert products.flops == gathered.flops
    for name, gradient in dense_gradients.items():
        assert torch.allclose(gradient, sparse_gradients[name], rtol=1e-9, atol=1e-12), name


def test_gradients_of_relu_by_gathered_rows_repeat_to_the_bit(two_threads):
    module = module_of("relu", n_latents=1024, decoder_norms=True).float()
    module.prepare(0.5)
    module.last_l0.fill_(1.0)
    x = batch(n=2048).float()
    gradients = []
    for _ in range(5):
        module.zero_grad()
        module.step(x, x).loss.backward()
        gradients.append(module.W_dec.grad.clone())
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])


@pytest.mark.parametrize("name", ["batchtopk", "mutual_choice"])
def test_mutual_choice_keeps_the_largest_of_the_whole_batch(name):
    module, x = module_of(name, k=2.5), batch()
    z = ((x - module.b_dec) @ module.W_enc + module.b_enc).flatten()
    kept = torch.zeros_like(z).index_copy(0, z.topk(100).indices, z.topk(100).values).view(40, 32).relu()
    error = (x - kept @ module.W_dec - module.b_dec).square().sum() / (x - x.mean(0)).square().sum()
    result = module.step(x, x)
    assert torch.allclose(result.reconstruction, error)
    assert torch.equal(result.fired, (kept > 0).sum(0))
    for got, want in zip(
        torch.autograd.grad(result.loss, list(module.parameters())),
        torch.autograd.grad(error, list(module.parameters())),
        strict=True,
    ):
        assert torch.allclose(got, want, atol=1e-12)


def test_feature_choice_starts_as_mutual_choice_and_then_gives_each_latent_its_budget():
    module, x = module_of("feature_choice", mutual_choice_share=0.5), batch()
    mutual = module_of("mutual_choice")
    assert torch.equal(module.step(x, x).loss, mutual.step(x, x).loss)
    module.note_usage(module.step(x, x))
    module.prepare(0.49)
    assert not module.allowed.any()
    module.prepare(0.5)
    assert float(module.allowed.sum()) == pytest.approx(2)
    order = module.density().sort(descending=True, stable=True).indices
    assert (module.allowed[order].diff() <= 0).all()
    m = budgets(module.allowed, 40)
    z = (x - module.b_dec) @ module.W_enc + module.b_enc
    kept = torch.zeros_like(z)
    for i in range(32):
        best = z[:, i].topk(int(m[i])).indices
        kept[best, i] = z[best, i].relu()
    result = module.step(x, x)
    assert torch.equal(result.fired, (kept > 0).sum(0))
    error = (x - kept @ module.W_dec - module.b_dec).square().sum() / (x - x.mean(0)).square().sum()
    assert torch.allclose(result.reconstruction, error)
    before = module.allowed.clone()
    module.density_sum.copy_(module.density_sum.flip(0))
    module.prepare(0.9)
    assert torch.equal(module.allowed, before)


def test_budgets_are_whole_add_up_and_leave_no_latent_out():
    density = torch.tensor([1.0, 0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    assert budgets(density, 100).tolist() == [100, 50, 30, 15, 5]
    assert budgets(density, 10).tolist()[0] <= 10
    for tokens in (7, 10, 33):
        m = budgets(density, tokens)
        assert int(m.sum()) == round(2 * tokens)
        assert int(m.min()) >= 1
        assert int(m.max()) <= tokens
    assert int(budgets(density, 1).sum()) == 2


def test_under_used_latents_are_taught_before_they_are_dead():
    module, x = module_of("mutual_choice", dead_after_tokens=40), batch()
    assert float(module.step(x, x).auxiliary) == 0  # densities say nothing yet
    for _ in range(3):
        module.note_usage(module.step(x, x))
    module.density_sum[5] = 1e-4
    module.tokens_since_fired.zero_()
    assert module.under_used()[5]
    assert float(module.step(x, x).auxiliary) > 0


def test_kinds_with_thresholds_need_held_out_activations(planted, tmp_path):
    with pytest.raises(ValueError, match="m needs held-out activations"):
        train({"m": Assignment("sae", KINDS["mutual_choice"][1])}, SETTINGS.stream(planted, 9, 32), SETTINGS, tmp_path)


def test_a_steered_coefficient_rises_while_too_many_fire_and_falls_when_too_few():
    factor = TargetL0(10, start=2.0, warmup_share=0.1)
    factor.prepare(0.05)
    assert factor.coefficient() == pytest.approx(1.0)
    factor.observe(10.0)
    for i in range(10):
        factor.prepare(0.1 + 0.02 * i)
    assert factor.coefficient() == pytest.approx(2.0)
    factor.observe(20.0)
    factor.prepare(0.4)
    high = factor.coefficient()
    assert high > 2.0 * math.sqrt(2)
    factor.observe(5.0)
    factor.prepare(0.5)
    assert factor.coefficient() < high


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("relu", {"tied": True, "decoder_norms": True}, "decoder_norms True"),
        ("mutual_choice", {"zipf_exponent": -1}, "zipf_exponent -1"),
        ("feature_choice", {"mutual_choice_share": 1.0}, r"mutual_choice_share 1.0: must be above 0 and below 1"),
        ("transcoder", {"selection": "tokp"}, "no dictionary 'tokp'; did you mean topk"),
        ("transcoder", {"selection": "skip_transcoder"}, "selection 'skip_transcoder': not a way to select"),
        ("transcoder", {"k": 1.5}, "k 1.5: every token keeps a whole number"),
        ("mutual_choice", {"k": 33}, "k 33: must be above 0 and at most n_latents 32"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        saes.DICTIONARIES[name](**{**OPTIONS, **options})


def test_every_name_of_the_registry_is_a_config():
    for name in saes.DICTIONARIES:
        if not name.startswith("saelens:"):
            assert isinstance(saes.DICTIONARIES[name](), DictionaryConfig)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean mutual_choice"):
        saes.DICTIONARIES.named("mutual_choise")
