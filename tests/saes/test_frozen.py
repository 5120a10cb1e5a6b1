"""Frozen halves: the controls of arXiv 2602.14111, for every kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import saes
from saes.learner import Learner
from saes.stored import load
from saes.training_dictionary import Standardisation, TrainingDictionary

D, N = 8, 24
OURS = [name for name in saes.DICTIONARIES if not name.startswith("saelens:")]
OTHER = {"encoder": "W_dec", "decoder": "W_enc"}


def x(seed: int) -> Tensor:
    return torch.randn(200, D, generator=torch.Generator().manual_seed(seed))


def learner(name: str, **more: object) -> Learner:
    config = saes.DICTIONARIES[name](n_latents=N, k=4, dead_after_tokens=300, **more)
    raw = Standardisation(torch.full((D,), 0.3), 1.5)
    return Learner.start("site", config, 0, raw, raw)


def learn(one: Learner, steps: int = 6) -> TrainingDictionary:
    module = one.module
    assert isinstance(module, TrainingDictionary)
    module.tokens_since_fired[:3] = 300  # dead ones, so that the auxiliary loss has something to teach
    for seed in range(steps):
        module.prepare(seed / steps)
        result = module.step(one.x(x(seed)), one.target(x(seed)))
        one.backward(result)
        one.update(result, 1.0)
    return module


@pytest.mark.parametrize("frozen", ["encoder", "decoder"])
@pytest.mark.parametrize("name", OURS)
def test_a_frozen_half_stays_to_the_bit_and_the_other_learns(name: str, frozen: str) -> None:
    free, held = learner(name), learner(name, frozen=frozen)
    start = {key: p.detach().clone() for key, p in held.module.named_parameters()}
    for key, parameter in free.module.named_parameters():
        assert torch.equal(parameter, start[key])  # drawn alike: a control is paired with what it controls
    after = dict(learn(held).named_parameters())
    kept = "W_enc" if frozen == "encoder" else "W_dec"
    assert torch.equal(after[kept], start[kept])
    assert not torch.equal(after[OTHER[frozen]], start[OTHER[frozen]])
    assert not torch.equal(after["b_enc"], start["b_enc"])
    assert not torch.equal(learn(free).get_parameter(kept), start[kept])


@pytest.mark.parametrize("frozen", ["encoder", "decoder"])
def test_what_is_saved_has_the_directions_that_were_drawn(frozen: str, tmp_path) -> None:
    held = learner("batchtopk", frozen=frozen)
    drawn = held.module.get_parameter("W_dec").detach().clone()  # tied at the start: the encoder's too
    learn(held)
    held.module.inference(held.x, held.target, x(99)).save(tmp_path)
    again = load(tmp_path)
    matrix = again.W_dec if frozen == "decoder" else again.get_parameter("W_enc").T
    assert torch.allclose(torch.nn.functional.cosine_similarity(matrix, drawn), torch.ones(N))


@pytest.mark.parametrize(("frozen", "saved"), [("none", 0), ("decoder", 2 * D), ("encoder", 2 * D)])
def test_a_gradient_that_nobody_needs_is_not_charged(frozen: str, saved: int) -> None:
    free, held = learner("topk").module, learner("topk", frozen=frozen).module
    assert isinstance(free, TrainingDictionary)
    assert isinstance(held, TrainingDictionary)
    assert free.flops(10, 40) - held.flops(10, 40) == 40 * saved


def test_a_transcoder_hands_it_to_its_selection() -> None:
    module = learn(learner("transcoder", selection="matryoshka", frozen="decoder"))
    assert type(module).__name__ == "TrainingMatryoshka"
    assert not module.W_dec.requires_grad


def test_a_row_says_that_it_is_a_control() -> None:
    config = saes.DICTIONARIES["topk"]
    assert config().notes() == []
    assert config(frozen="decoder").notes() == ["a control: the decoder stays random, as drawn"]


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"frozen 'both': must be one of none, encoder, decoder"):
        saes.DICTIONARIES["topk"](frozen="both")
    with pytest.raises(ValueError, match=r"frozen 'encoder': a tied encoder is the decoder"):
        saes.DICTIONARIES["relu"](tied=True, frozen="encoder")
