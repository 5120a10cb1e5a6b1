"""Matryoshka in training, against every prefix decoded from scratch in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saes.matryoshka import MatryoshkaConfig, TrainingMatryoshka
from saes.training_dictionary import Shape

D, N, TOKENS = 8, 32, 40


def build(d_out: int = D, skip: bool = False, **more: object) -> TrainingMatryoshka:
    config = MatryoshkaConfig(**{"n_latents": N, "k": 2.5, **more})
    shape = Shape(D, d_out, transcoder=d_out != D, skip=skip)
    return config.build(shape, torch.Generator().manual_seed(0)).double()


def batch(d: int = D, seed: int = 1) -> Tensor:
    return torch.randn(TOKENS, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("widths", [None, (1, 2, 31), (7,), (5, 32)])
@pytest.mark.parametrize(("d_out", "skip"), [(D, False), (5, False), (5, True)])
def test_the_loss_is_the_sum_over_prefixes_and_so_are_its_gradients(
    d_out: int, skip: bool, widths: tuple[int, ...] | None
) -> None:
    module, x = build(d_out, skip, widths=widths), batch()
    target = x if d_out == D else batch(d_out, seed=2)
    parameters = dict(module.named_parameters())
    if skip:
        with torch.no_grad():
            parameters["W_skip"].normal_(generator=torch.Generator().manual_seed(3))
    result = module.step(x, target)
    z = (x if module.transcoder else x - module.b_dec) @ module.W_enc + module.b_enc
    best = z.flatten().topk(round(2.5 * TOKENS)).indices
    codes = torch.zeros_like(z).flatten().index_fill(0, best, 1.0).view_as(z) * z.relu()
    beside = module.b_dec + (x @ parameters["W_skip"].T if skip else 0)
    levels = sorted({*(widths or (1, 4, 16)), N})
    errors = [
        (target - codes[:, :width] @ module.W_dec[:width] - beside).square().sum()
        / (target - target.mean(0)).square().sum()
        for width in levels
    ]
    assert torch.allclose(result.loss, torch.stack(errors).sum(), rtol=1e-12)
    assert torch.allclose(result.reconstruction, errors[-1], rtol=1e-12)
    assert torch.allclose(result.loss - result.beside, errors[-1], rtol=1e-12)
    assert torch.equal(result.fired, (codes > 0).sum(0))
    got = torch.autograd.grad(result.loss, list(parameters.values()))
    expected = torch.autograd.grad(torch.stack(errors).sum(), list(parameters.values()))
    for name, one, other in zip(parameters, got, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-13), name
        assert other.abs().sum() > 0


def test_a_prefix_without_entries_on_a_token_reconstructs_with_the_bias_alone() -> None:
    module = build(widths=(2, 16))
    indptr, units = torch.tensor([0, 0, 2, 3]), torch.tensor([1, 20, 16])
    values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    first, second, whole = module.decoded_by_prefix(indptr, units, values)
    rows = module.W_dec
    assert torch.equal(first, torch.stack([0 * rows[0], rows[1], 0 * rows[0]]))
    assert torch.equal(second, first)
    assert torch.allclose(whole, torch.stack([0 * rows[0], rows[1] + 2 * rows[20], 3 * rows[16]]))


def test_it_costs_what_batch_top_k_costs() -> None:
    module, x = build(), batch()
    assert module.step(x, x).flops == module.flops(TOKENS, round(2.5 * TOKENS))


def test_the_auxiliary_loss_sees_what_the_whole_dictionary_leaves_over() -> None:
    module, x = build(aux_coefficient=0.5), batch()
    module.tokens_since_fired[20:] = module.config.dead_after_tokens
    plain, with_dead = build(aux_coefficient=0.0).step(x, x), module.step(x, x)
    assert float(with_dead.auxiliary) > 0
    assert torch.allclose(with_dead.loss, plain.loss + 0.5 * with_dead.auxiliary)


def test_prefixes_are_shares_of_the_width_unless_they_are_named() -> None:
    assert MatryoshkaConfig(n_latents=4096).prefixes() == (128, 512, 2048, 4096)
    assert MatryoshkaConfig(n_latents=24, k=4).prefixes() == (1, 3, 12, 24)
    assert MatryoshkaConfig(n_latents=4, k=1).prefixes() == (2, 4)
    assert MatryoshkaConfig(n_latents=64, widths=(8, 64)).prefixes() == (8, 64)


@pytest.mark.parametrize("widths", [(), (0, 8), (8, 8), (16, 8), (8, 2000)])
def test_prefixes_that_are_not_nested_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"widths \[.*\]: must ascend from above 0 to at most n_latents 1024"):
        MatryoshkaConfig(widths=widths)
