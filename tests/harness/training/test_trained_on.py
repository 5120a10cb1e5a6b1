import json
from pathlib import Path

import torch

import models
from harness.systems.system import Site
from harness.training.trained_on import fingerprint, mismatch, note
from saes.dictionary import CONFIG_FILE, Weights
from saes.stored import load
from saes.topk import TopK

SITE = Site(1, "mlp_out")


def subject(seed: int) -> models.TrunkForCausalLM:
    torch.manual_seed(seed)
    return models.build("dense", d_model=8, n_layers=2, n_heads=2, vocab_size=11, max_position_embeddings=8)


def made(folder: Path) -> None:
    g = torch.Generator().manual_seed(0)
    TopK(
        Weights(torch.randn(8, 9, generator=g), torch.zeros(9), torch.randn(9, 8, generator=g), torch.zeros(8)), 2
    ).save(folder)


def test_a_dictionary_belongs_to_the_weights_and_the_site_that_it_learnt_from(tmp_path: Path) -> None:
    made(tmp_path)
    note(tmp_path, fingerprint(subject(0)), SITE)
    dictionary = load(tmp_path)
    assert mismatch(dictionary, fingerprint(subject(0)), SITE) is None
    assert "another subject" in str(mismatch(dictionary, fingerprint(subject(1)), SITE))
    assert mismatch(dictionary, fingerprint(subject(0)), Site(0, "mlp_out")) == (
        "it was trained at mlp_out.1, not at mlp_out.0"
    )


def test_what_it_was_trained_on_outlives_being_saved_again(tmp_path: Path) -> None:
    made(tmp_path / "a")
    note(tmp_path / "a", "0123", SITE)
    load(tmp_path / "a").save(tmp_path / "b")
    assert json.loads((tmp_path / "b" / CONFIG_FILE).read_text())["metadata"]["trained_on"]["subject"] == "0123"


def test_a_dictionary_of_which_nobody_noted_it_is_taken(tmp_path: Path) -> None:
    made(tmp_path)
    assert mismatch(load(tmp_path), "anything", SITE) is None


def test_the_fingerprint_sees_one_changed_weight_and_not_where_weights_lie(tmp_path: Path) -> None:
    model = subject(0)
    before = fingerprint(model)
    model.save_pretrained(tmp_path)
    assert fingerprint(type(model).from_pretrained(tmp_path)) == before
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    assert fingerprint(model) != before
