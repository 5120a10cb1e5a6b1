import re

import pytest

import models
from models.peer import PeerConfig


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("peer", {"n_experts": 1000}, "n_experts=1000 is not a square; nearest: 961 or 1024"),
        ("peer", {"k": 200}, "k=200 exceeds the n=64 sub-keys per half of n_experts=4096; nearest: 64"),
        ("peer", {"k": 1}, "k=1 with gate='softmax' gates by 1 always, so the router cannot learn; nearest: k=2"),
        ("peer", {"k": 0}, "k=0 is too small; nearest: 1"),
        ("peer", {"k": 2.5}, "k=2.5 is not a whole number; it must be one of at least 1"),
        ("peer", {"heads": True}, "heads=True is not a whole number; it must be one of at least 1"),
        ("peer", {"shared_keys": "yes"}, "shared_keys='yes' must be of type bool"),
        ("peer", {"norm_eps": 0}, "norm_eps=0 must be a number above 0"),
        (
            "peer",
            {"gate": "sofmax"},
            "gate='sofmax' is not known: did you mean softmax? (allowed: relu, sigmoid, softmax)",
        ),
        ("dense", {"n_heads": 3}, "n_heads=3 does not split d_model=128 into heads of even width; nearest: 2 or 4"),
        ("dense", {"n_heads": 128}, "n_heads=128 does not split d_model=128 into heads of even width; nearest: 64"),
        ("dense-relu", {"activation": "gelu"}, "activation='gelu' contradicts 'dense-relu', which fixes 'relu'"),
    ],
)
def test_an_impossible_setting_is_one_line_with_the_nearest_valid_value(name, settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        models.build(name, **settings)


def test_an_unknown_setting_names_the_nearest_one():
    with pytest.raises(ValueError, match=r"'n_expert' is not a setting of 'peer': did you mean n_experts\?"):
        models.build("peer", n_expert=64)


def test_an_unknown_architecture_names_the_nearest_one():
    with pytest.raises(ValueError, match=r"no architecture 'pear'; did you mean peer\? \(allowed: bilinear, dense, "):
        models.build("pear")


def test_transformers_names_reach_our_attributes():
    config = PeerConfig(d_model=64, n_layers=3, n_heads=2)
    assert (config.hidden_size, config.num_hidden_layers) == (64, 3)
    assert (config.num_attention_heads, config.num_key_value_heads) == (2, 2)


def test_settings_are_ours_only():
    settings = PeerConfig.settings()
    assert {"d_model", "n_experts", "gate"} <= set(settings)
    assert not {"id2label", "dtype", "chunk_size_feed_forward"} & set(settings)


def test_a_setting_that_the_name_fixes_may_be_repeated():
    assert models.ARCHITECTURES["dense-relu"].config(activation="relu").activation == "relu"


def test_a_name_cannot_be_registered_twice():
    with pytest.raises(ValueError, match="'peer' is already registered"):
        models.register("peer", models.ARCHITECTURES["peer"].model_class)
