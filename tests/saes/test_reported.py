"""What users of dictionaries elsewhere tripped over, asked of every kind here."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import saes
from saes.activations import Activations
from saes.dictionary import Dictionary, EncoderDecoder
from saes.trainer import Assignment, TrainSettings, train
from saes.training_dictionary import Shape, Standardisation, TrainingDictionary

D, N = 8, 24
OURS = [name for name in saes.DICTIONARIES if not name.startswith("saelens:")]


def x(tokens: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(tokens, D, generator=torch.Generator().manual_seed(seed))


def at_inference(name: str) -> Dictionary:
    config = saes.DICTIONARIES[name](n_latents=N, k=4)
    module = config.build(Shape(D, D, transcoder=config.transcodes), torch.Generator().manual_seed(0))
    for seed in range(20):  # so that it knows how often each latent fires
        module.note_usage(module.step(x(200, seed), x(200, seed)))
    raw = Standardisation(torch.zeros(D), 1.0)
    return module.inference(raw, raw, x(200, seed=1))


def read(dictionary: Dictionary, tokens: torch.Tensor) -> torch.Tensor:
    return dictionary.read(tokens, torch.zeros(len(tokens), 2, dtype=torch.long)).dense()


@pytest.mark.parametrize("name", OURS)
def test_the_codes_of_a_token_are_its_own_whatever_stands_beside_it(name: str) -> None:
    dictionary, tokens = at_inference(name), x()
    whole = read(dictionary, tokens)
    alone = torch.cat([read(dictionary, token[None]) for token in tokens])
    chunks = torch.cat([read(dictionary, chunk) for chunk in tokens.split(7)])
    torch.testing.assert_close(alone, whole)
    torch.testing.assert_close(chunks, whole)
    assert whole.any()


@pytest.mark.parametrize("name", OURS)
def test_the_decoder_bias_is_in_the_output_once_and_codes_do_not_see_it(name: str) -> None:
    dictionary, tokens = at_inference(name), x()
    assert isinstance(dictionary, EncoderDecoder)
    codes, output = read(dictionary, tokens), dictionary(tokens)
    with torch.no_grad():
        dictionary.b_dec += 1.0
    torch.testing.assert_close(read(dictionary, tokens), codes)
    torch.testing.assert_close(dictionary(tokens), output + 1.0)


@pytest.mark.parametrize("name", [name for name in OURS if "transcoder" in name])
def test_a_transcoder_in_training_does_not_subtract_its_decoder_bias_from_its_input(name: str) -> None:
    config = saes.DICTIONARIES[name](n_latents=N, k=4)
    module = config.build(Shape(D, D, transcoder=config.transcodes), torch.Generator().manual_seed(0))
    assert isinstance(module, TrainingDictionary)
    before = module.step(x(), x(seed=2)).l0
    with torch.no_grad():
        module.b_dec += 5.0
    after = module.step(x(), x(seed=2)).l0
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("name", ["batchtopk", "mutual_choice", "feature_choice", "jumprelu", "matryoshka"])
def test_thresholds_stay_in_float32_for_activations_in_bfloat16(name: str) -> None:
    dictionary = at_inference(name)
    wide, narrow = read(dictionary, x()), read(dictionary, x().bfloat16())
    assert narrow.dtype == torch.float32
    # What fires differs only where rounding the activations moved a latent over its threshold.
    assert ((wide > 0) != (narrow > 0)).float().mean() < 0.02


def test_a_penalty_is_steered_by_the_l0_that_is_asked_for_and_has_no_coefficient_that_adam_undoes(
    planted: Callable[[torch.Tensor], Activations], tmp_path: Path
) -> None:
    """Adam undoes the scale of a gradient, so a fixed coefficient saturates and its user turns a knob that does
    nothing. Here the knob is L0."""
    options = {"n_latents": 32, "lr": 1e-2, "dead_after_tokens": 2_000}
    rows = {str(k): Assignment("sae", saes.DICTIONARIES["relu"](k=k, **options)) for k in (1, 4)}
    settings = TrainSettings(train_tokens=20_000, batch_tokens=128, buffer_tokens=2048, log_every=50)
    held_out = planted(torch.arange(1000, 1200))
    done = train(rows, settings.stream(planted, 300, 32), settings, tmp_path, held_out=lambda: held_out)
    reached = {name: outcome.at_inference.l0 for name, outcome in done.items() if outcome.at_inference}
    assert reached["1"] == pytest.approx(1, rel=0.3)
    assert reached["4"] == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("name", OURS)
def test_a_kind_whose_dead_latents_cannot_come_back_says_so(name: str) -> None:
    config = saes.DICTIONARIES[name](n_latents=N, k=4)
    said = config.notes() == ["no auxiliary loss: a latent that dies cannot come back"]
    assert said == (config.aux_coefficient == 0)
    assert saes.DICTIONARIES[name](n_latents=N, k=4, aux_coefficient=0.0).notes()
