"""JumpReLU in training, against its formulas written out densely in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from saes.jumprelu import JumpReLUConfig, TrainingJumpReLU, _Jump
from saes.thresholds import JumpReLU
from saes.training_dictionary import Shape, Standardisation

D, N, TOKENS = 8, 48, 40


def build(transcoder: bool = False, **more: object) -> TrainingJumpReLU:
    config = JumpReLUConfig(**{"n_latents": N, "k": 2, "aux_coefficient": 0.0, **more})
    module = config.build(Shape(D, D, transcoder), torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # so that no threshold or bias is what it happens to be at the start
        module.log_threshold.add_(0.5 * torch.randn(N, generator=generator, dtype=torch.float64))
        for bias in (module.b_enc, module.b_dec):
            bias.add_(0.2 * torch.randn(bias.shape, generator=generator, dtype=torch.float64))
    module.prepare(0.5)
    return module


def batch(seed: int = 1) -> Tensor:
    return torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(module: TrainingJumpReLU, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss, firings and gradients, with no gradient of a step taken by torch."""
    weight = {name: p.detach() for name, p in module.named_parameters()}
    theta, width = weight["log_threshold"].exp(), module.config.bandwidth
    centred = x if module.transcoder else x - weight["b_dec"]
    pre = centred @ weight["W_enc"] + weight["b_enc"]
    fires = (pre > theta).double()
    z = (pre * fires).requires_grad_()
    W_dec, b_dec = weight["W_dec"].clone().requires_grad_(), weight["b_dec"].clone().requires_grad_()
    error = (target - z @ W_dec - b_dec).square().sum() / (target - target.mean(0)).square().sum()
    by_z, by_rows, by_bias = torch.autograd.grad(error, (z, W_dec, b_dec))
    price = module.penalty.coefficient() / (module.config.k * len(x))
    kernel = (((pre - theta) / width).abs() < 0.5) & (pre > 0)
    by_theta = (-(theta * by_z + price) * kernel / width).sum(0)
    by_pre = by_z * fires
    if not module.transcoder:
        by_bias = by_bias - (by_pre @ weight["W_enc"].T).sum(0)
    gradients = {
        "log_threshold": theta * by_theta,
        "W_enc": centred.T @ by_pre,
        "b_enc": by_pre.sum(0),
        "W_dec": by_rows,
        "b_dec": by_bias,
    }
    return error.detach() + price * fires.sum(), fires, gradients


@pytest.mark.parametrize("bandwidth", [0.5, 3.0])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("transcoder", [True, False])
def test_a_step_and_its_gradients_are_those_of_the_formula(transcoder: bool, dense: bool, bandwidth: float) -> None:
    module, x = build(transcoder, bandwidth=bandwidth), batch()
    target = batch(2) if transcoder else x
    module.last_share.fill_(1.0 if dense else 0.0)
    assert module.dense == dense
    result = module.step(x, target)
    loss, fires, gradients = by_hand(module, x, target)
    assert torch.allclose(result.loss, loss, rtol=1e-12)
    assert torch.equal(result.fired, fires.sum(0).long())
    result.loss.backward()
    assert gradients.keys() == {name for name, _ in module.named_parameters()}
    for name, gradient in gradients.items():
        got = module.get_parameter(name).grad
        assert got is not None, name
        assert torch.allclose(got, gradient, rtol=1e-9, atol=1e-13), name
        assert gradient.abs().sum() > 0


def test_only_what_fires_or_is_on_a_ramp_is_decoded_and_charged() -> None:
    module, x = build(), batch()
    theta = module.log_threshold.exp()
    pre = (x - module.b_dec) @ module.W_enc + module.b_enc
    above = int(((pre > theta - module.config.bandwidth / 2) & (pre > 0)).sum())
    for share in (0.0, 1.0):
        module.last_share.fill_(share)
        result = module.step(x, x)
        assert result.slots == above
        assert result.flops == module.flops(TOKENS, above)
    assert int(result.fired.sum()) < above < pre.numel()


def test_it_turns_to_gathered_rows_when_little_is_decoded() -> None:
    module, x = build(), batch()
    assert module.dense
    with torch.no_grad():
        module.log_threshold.fill_(math.log(4.0))
    module.note_usage(module.step(x, x))
    assert not module.dense


def test_the_estimate_for_thresholds_is_how_l0_falls_with_them() -> None:
    """Expected L0 of a standard normal pre-activation falls with its threshold by the density there."""
    pre = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = torch.full((1,), 1.3, dtype=torch.float64, requires_grad=True)
    _, fires = _Jump.apply(pre, theta.expand_as(pre), 0.2)
    fires.mean().backward()
    density = math.exp(-(1.3**2) / 2) / math.sqrt(2 * math.pi)
    assert theta.grad is not None
    assert float(theta.grad) == pytest.approx(-density, rel=0.02)


def test_thresholds_at_inference_are_the_learnt_ones_times_one_number() -> None:
    module, x = build(k=1.5), 3 * batch() + 1
    s = Standardisation.of(x)
    dictionary = module.inference(s, s, x)
    assert isinstance(dictionary, JumpReLU)
    ratio = dictionary.threshold / module.log_threshold.exp()
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-12)
    codes = dictionary.read(x, torch.zeros(TOKENS, 2, dtype=torch.long))
    assert codes.nnz == 60
    # Where the number is 1, the dictionary computes what training did.
    as_learnt = JumpReLU(module.weights(s, s))
    result = module.step(s(x), s(x))
    assert torch.allclose(as_learnt(x), s.undo(result.output), rtol=1e-9)


def test_options_that_cannot_be_are_refused() -> None:
    for name, value in (("bandwidth", 0.0), ("first_threshold", -1.0), ("l0_warmup_share", 1.0)):
        with pytest.raises(ValueError, match=f"{name} {value}"):
            JumpReLUConfig(**{name: value})
