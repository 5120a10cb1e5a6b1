"""Settings that tell rows apart are parameters; those that are alike everywhere fill no page."""

from __future__ import annotations

from harness.tracking.parameters import Parameters, of_comparison

DENSE = {"architecture": "dense", "settings": {"d_model": 32, "d_ff": 64}, "training": {"lr": 0.1, "tokens": 8}}
PEER = {"architecture": "peer", "settings": {"d_model": 32, "n_experts": 4}, "training": {"lr": 0.2, "tokens": 8}}


def test_what_is_the_same_in_every_row_is_constant() -> None:
    found = Parameters.of({("dense", 0): DENSE, ("peer", 0): PEER})
    assert found.constant == {"settings.d_model": "32", "training.tokens": "8"}
    assert found.varying(("peer", 0)) == {"architecture": "peer", "settings.n_experts": "4", "training.lr": "0.2"}


def test_what_one_system_alone_has_is_its_parameter_but_how_it_is_trained_is_not() -> None:
    learnt = {"kind": "topk", "config": {"k": 8}, "settings": {"batch_tokens": 512}}
    found = Parameters.of({("dense", 0): DENSE, ("dense+topk", 0): {**DENSE, "dictionary": learnt}})
    assert found.varying(("dense+topk", 0)) == {"dictionary.kind": "topk", "dictionary.config.k": "8"}
    assert found.constant["dictionary.settings.batch_tokens"] == "512"


def test_a_row_alone_keeps_its_own_settings_and_one_without_settings_has_none() -> None:
    found = Parameters.of({("dense", 0): DENSE})
    assert found.varying(("dense", 0)).keys() == {"architecture", "settings.d_model", "settings.d_ff"}
    assert found.varying(("bigram", 0)) == {}


def test_a_comparison_is_told_from_another_by_a_few_settings() -> None:
    config = {"seeds": (0, 1), "metrics": {"loss": {}}, "corpus": {"kind": "files", "path": "x"}, "systems": {"a": {}}}
    assert of_comparison(config) == {"seeds": "[0, 1]", "metrics": '["loss"]', "corpus.kind": "files"}
    assert of_comparison({}) == {}
