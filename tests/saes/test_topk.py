import math
import subprocess
import sys

import pytest
import torch

from kernels.codes import Codes
from saes.dictionary import Weights
from saes.stored import load
from saes.topk import TopK, TopKConfig
from saes.training_dictionary import Shape, Standardisation


def build(d=8, **more):
    config = TopKConfig(**{"n_latents": 20, "k": 3, "dead_after_tokens": 100, **more})
    return config.build(Shape(d, d), torch.Generator().manual_seed(1))


def inference(d=8, n=20, k=3, dtype=torch.float64, seed=2):
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (d, n), "b_enc": (n,), "W_dec": (n, d), "b_dec": (d,)}
    return TopK(Weights(**{s: torch.randn(*v, generator=g, dtype=dtype) for s, v in shapes.items()}), k)


def batch(n=50, d=8, dtype=torch.float64, seed=3):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x, torch.stack([torch.arange(n) // 10, torch.arange(n) % 10], 1)


def test_impossible_values_are_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="k 33: must be above 0 and at most n_latents 32"):
        TopKConfig(n_latents=32, k=33)
    with pytest.raises(ValueError, match=r"k 2.5: every token keeps a whole number of latents \(nearest: 2\)"):
        TopKConfig(n_latents=32, k=2.5)
    with pytest.raises(ValueError, match="lr 0"):
        TopKConfig(lr=0)


def test_it_starts_tied_with_unit_decoder_rows():
    module = build()
    assert torch.equal(module.W_enc, module.W_dec.T)
    assert torch.allclose(module.W_dec.norm(dim=1), torch.ones(20))


def test_a_step_is_the_normalised_error_of_the_k_largest():
    module, (x, _) = build().double(), batch()
    result = module.step(x, x)
    z = (x - module.b_dec) @ module.W_enc + module.b_enc
    values, units = z.topk(3, dim=1)
    dense = torch.zeros_like(z).scatter(1, units, values.relu())
    x_hat = dense @ module.W_dec + module.b_dec
    expected = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    assert torch.allclose(result.loss, expected)
    assert torch.equal(result.fired, (dense > 0).sum(0))
    grads = torch.autograd.grad(result.loss, list(module.parameters()))
    for got, want in zip(grads, torch.autograd.grad(expected, list(module.parameters())), strict=True):
        assert torch.allclose(got, want, atol=1e-12)


def test_a_latent_is_dead_after_a_number_of_tokens_not_steps():
    module, (x, _) = build(dead_after_tokens=100).float(), batch(n=50, dtype=torch.float32)
    with torch.no_grad():
        module.b_enc[4] = -1e6
    for tokens, dead in ((50, 0.0), (99, 0.0), (100, 1 / 20)):
        module.tokens_since_fired.zero_()
        for part in x.repeat(2, 1)[:tokens].split(33):
            module.note_usage(module.step(part, part))
        assert module.tokens_since_fired[4] == tokens
        assert float((module.tokens_since_fired[4] >= 100) / 20) == pytest.approx(dead)


def test_the_auxiliary_loss_teaches_dead_latents_and_only_them():
    module, (x, _) = build(dead_after_tokens=100).float(), batch(dtype=torch.float32)
    module.tokens_since_fired[[4, 7]] = 100
    with torch.no_grad():
        module.b_enc[[4, 7]] = -1e3
    result = module.step(x, x)
    assert float(result.auxiliary) > 0
    assert result.loss.item() == pytest.approx(float(result.reconstruction + result.auxiliary / 32), rel=1e-6)
    result.loss.backward()
    for i in (4, 7):
        assert module.W_enc.grad[:, i].norm() > 0
        assert module.W_dec.grad[i].norm() > 0
    module.tokens_since_fired.zero_()
    assert float(module.step(x, x).auxiliary) == 0.0


def test_projection_and_renormalising_keep_rows_at_norm_one():
    module, (x, _) = build().float(), batch(dtype=torch.float32)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(5):
        module.step(x, x).loss.backward()
        module.before_update()
        assert (module.W_dec.grad * module.W_dec).sum(1).abs().max() < 1e-6
        optimizer.step()
        optimizer.zero_grad()
        module.after_update()
    assert torch.allclose(module.W_dec.norm(dim=1), torch.ones(20))


def test_the_exported_dictionary_takes_raw_activations():
    module, (x, rows) = build().double(), batch()
    with torch.no_grad():
        for p in (module.b_enc, module.b_dec):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(5)))
    raw = 7 * x + torch.arange(8.0, dtype=torch.float64)
    s = Standardisation.of(raw)
    assert torch.allclose(s(raw).norm(dim=1).mean(), torch.tensor(8.0, dtype=torch.float64).sqrt())
    centred = s(raw) - module.b_dec
    values, units = (centred @ module.W_enc + module.b_enc).topk(3, dim=1)
    trained = Codes.from_slots(units, values.relu(), rows, 20)
    output = (trained.dense() @ module.W_dec + module.b_dec) / s.scale + s.mean
    dictionary = module.inference(s, s, None)
    assert torch.equal(dictionary.read(raw, rows).units, trained.units)
    assert torch.allclose(dictionary(raw), output)
    assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(20, dtype=torch.float64))


def test_a_token_alone_gets_the_codes_it_gets_in_a_batch():
    dictionary, (x, rows) = inference(), batch()
    together = dictionary.read(x, rows)
    assert int(together.row_lengths().max()) == 3
    for i in range(50):
        alone = dictionary.read(x[i : i + 1], rows[i : i + 1])
        span = slice(int(together.indptr[i]), int(together.indptr[i + 1]))
        assert torch.equal(alone.units, together.units[span])
        assert torch.allclose(alone.values, together.values[span], rtol=1e-12)


def test_write_is_linear_in_values_and_rest_is_what_no_unit_owns():
    dictionary, (x, rows) = inference(), batch()
    codes = dictionary.read(x, rows)
    a, b = torch.rand(2, codes.nnz, dtype=torch.float64) + 0.1
    combined = dictionary.write(codes.with_values(2 * a + 3 * b), x)
    parts = 2 * dictionary.write(codes.with_values(a), x) + 3 * dictionary.write(codes.with_values(b), x)
    assert torch.allclose(combined, parts)
    silent = codes.keep(torch.zeros(codes.nnz, dtype=torch.bool))
    assert dictionary.write(silent, x).abs().max() == 0
    assert torch.allclose(dictionary.rest(x), dictionary.b_dec.expand(50, -1))


def test_dropping_an_entry_takes_away_its_coefficient_times_what_it_writes():
    dictionary, (x, rows) = inference(), batch()
    codes = dictionary.read(x, rows)
    i = 17
    without = codes.keep(torch.arange(codes.nnz) != i)
    change = dictionary.write(codes, x) - dictionary.write(without, x)
    token, entry = codes.token_of_entry()[i], torch.tensor([i])
    expected = torch.zeros_like(change)
    expected[token] = codes.values[i] * dictionary.writes(codes, x, entry)[0]
    assert torch.allclose(change, expected)
    assert torch.allclose(dictionary.strengths(codes, x)[i], change[token].norm())


def test_gradients_flow_to_the_input_and_the_values():
    dictionary, (x, rows) = inference(), batch()
    x.requires_grad_()
    codes = dictionary.read(x, rows)
    codes.values.retain_grad()
    (dictionary.write(codes, x) + dictionary.rest(x)).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert codes.values.grad.abs().min() > 0


def test_another_width_is_an_error_that_names_both():
    x, rows = batch(d=9)
    with pytest.raises(ValueError, match="reads width 8, the site gives width 9"):
        inference().read(x, rows)


def test_a_saved_dictionary_gives_the_same_codes_in_a_new_process(tmp_path):
    dictionary = inference(dtype=torch.float32)
    x, rows = batch(dtype=torch.float32)
    dictionary.save(tmp_path / "d")
    dictionary.read(x, rows).save(tmp_path / "codes.safetensors", x=x)
    program = (
        "import sys, torch; from pathlib import Path\n"
        "from saes.stored import load; from kernels.codes import Codes\n"
        "import saes.trainer, saes.topk, saes.relu, saes.feature_choice, saes.transcoder\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "d = load(folder / 'd'); c, more = Codes.load(folder / 'codes.safetensors')\n"
        "n = d.read(more['x'], c.rows)\n"
        "assert torch.equal(n.units, c.units) and torch.equal(n.values, c.values) and torch.equal(n.indptr, c.indptr)\n"
        "assert not {'sae_lens', 'mlflow', 'datasets', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert load(tmp_path / "d").architecture == "topk"


def test_a_folder_without_a_dictionary_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no dictionary"):
        load(tmp_path)


def test_constant_activations_are_an_error():
    with pytest.raises(ValueError, match="the same on every token"):
        Standardisation.of(torch.ones(5, 3))


def test_flops_are_the_encoder_product_and_ten_widths_a_slot():
    assert build().step(*[batch(dtype=torch.float32)[0]] * 2).flops == 2 * 50 * 8 * 20 + 50 * 3 * 10 * 8
    assert math.isfinite(build().flops(1, 0))


def test_the_auxiliary_loss_does_not_teach_whatever_x_comes_from():
    """End to end x is what earlier dictionaries wrote: the main selection teaches them, this one must not."""
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    module = TopKConfig(n_latents=24, k=3, aux_coefficient=1.0).build(Shape(8, 8), torch.Generator().manual_seed(0))
    module.tokens_since_fired[5:12] = module.config.dead_after_tokens
    result = module.step(x, x.detach())
    assert float(result.auxiliary) > 0
    assert torch.autograd.grad(result.beside, x, retain_graph=True, allow_unused=True)[0] is None
    assert bool(torch.autograd.grad(result.beside, module.W_enc, retain_graph=True)[0].any())
    assert bool(torch.autograd.grad(result.output.sum(), x)[0].any())
