"""What a published dictionary says of where it was trained, held against a row: one line that says both sides."""

from __future__ import annotations

from typing import Any

import pytest

from saes.claims import Claims, Host
from saes.hooks import Place

GPT2 = Host("openai-community/gpt2", width=768, layers=12, length=128, dtype="float32", centres=True)
GEMMA = Host("google/gemma-2-2b", width=2304, layers=26, length=128, dtype="float32", centres=False)


def config(**more: Any) -> dict[str, Any]:
    """As SAELens 6 writes it."""
    own = {key: more.pop(key) for key in ("architecture", "dtype") if key in more}
    said = {"model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_post", "context_size": 128, **more}
    return {"architecture": "standard", "dtype": "float32", **own, "metadata": said}


@pytest.mark.parametrize(
    ("hook", "point", "layer"),
    [
        ("blocks.8.hook_resid_post", "resid_post", 8),
        ("blocks.8.hook_resid_pre", "resid_post", 7),
        ("blocks.8.hook_mlp_out", "mlp_out", 8),
        ("transformer.h.8", "resid_post", 8),
        ("model.layers.8", "resid_post", 8),
    ],
)
def test_a_hook_is_the_site_where_the_same_tensor_is(hook: str, point: str, layer: int) -> None:
    claims = Claims.of(config(hook_name=hook))
    assert claims.place() == Place(point, layer)
    claims.check(GPT2, layer, point, trust=False)


@pytest.mark.parametrize(
    ("hook", "more", "before_gain"),
    [
        ("blocks.3.mlp.hook_in", {}, False),
        ("blocks.3.mlp.hook_in", {"model_from_pretrained_kwargs": {"fold_ln": True}}, True),
        ("blocks.3.ln2.hook_normalized", {"hook_name_out": "blocks.3.hook_mlp_out"}, True),
        ("blocks.3.hook_mlp_in", {"hf_hook_name": "model.layers.3.pre_feedforward_layernorm.output"}, False),
    ],
)
def test_a_transcoder_reads_the_feed_forward_layers_input_before_or_behind_the_norms_gain(
    hook: str, more: dict[str, Any], before_gain: bool
) -> None:
    claims = Claims.of(config(architecture="jumprelu_skip_transcoder", model_name="gemma-2-2b", hook_name=hook, **more))
    assert claims.place() == Place("mlp", 3, before_gain)
    claims.check(GEMMA, 3, "mlp", trust=False)


def test_a_copy_whose_encoder_has_the_gain_does_not_get_it_twice() -> None:
    hook = "blocks.3.ln2.hook_normalized"
    assert Claims.of(config(architecture="transcoder", hook_name=hook, reads_behind_gain=True)).place() == Place(
        "mlp", 3
    )


@pytest.mark.parametrize(
    ("architecture", "hook", "says"),
    [
        ("standard", "blocks.3.attn.hook_z", "trained at blocks.3.attn.hook_z, and a dictionary can be at resid_post"),
        ("standard", "blocks.3.hook_resid_mid", "trained at blocks.3.hook_resid_mid"),
        ("standard", "blocks.0.hook_resid_pre", "the stream before the first layer"),
        ("standard", "hook_embed", "trained at hook_embed"),
        ("transcoder", "blocks.3.hook_mlp_in", r"reads blocks.3.hook_mlp_in \(the stream before the norm\)"),
        ("transcoder", "blocks.3.hook_resid_mid", "which is behind the norm"),
        ("transcoder", "blocks.3.ln2.hook_normalized", "differs between versions of TransformerLens"),
    ],
)
def test_what_no_site_reads_is_refused(architecture: str, hook: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        Claims.of(config(architecture=architecture, hook_name=hook)).check(GPT2, 3, "mlp", trust=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2", "GPT2-small"])
def test_one_model_by_its_names(name: str) -> None:
    Claims.of(config(model_name=name)).check(GPT2, 8, "resid_post", trust=False)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"model_name": "pythia-70m"}, "trained on pythia-70m, and the row's subject is openai-community/gpt2"),
        ({"model_name": "someone/gpt2"}, "trained on someone/gpt2, and the row's subject is openai-community/gpt2"),
        ({"model_name": None}, "does not say which model it was trained on"),
        (
            {"hook_name": "blocks.7.hook_resid_post"},
            "resid_post of layer 7, and the row puts it at resid_post of layer 8",
        ),
        ({"hook_name": "blocks.8.hook_mlp_out"}, "mlp_out of layer 8, and the row puts it at resid_post of layer 8"),
        ({"hook_name": "blocks.20.hook_resid_post"}, "trained at blocks.20.hook_resid_post, and .* layers 0 to 11"),
        ({"hook_head_index": 3}, "trained on head 3"),
        ({"prepend_bos": False}, r"no token begins \(prepend_bos false\), and the row's sequences have one"),
        ({"context_size": 64}, "contexts of 64 tokens, and corpus.sequence_length = 128"),
        (
            {"model_from_pretrained_kwargs": {"dtype": "torch.bfloat16"}},
            r"its model ran in bfloat16, and the row's runs in float32: hf:...\[dtype=bfloat16\]",
        ),
        ({"dtype": "int8"}, "kept in int8"),
    ],
)
def test_what_does_not_fit_says_both_sides(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        Claims.of(config(**more)).check(GPT2, 8, "resid_post", trust=False)
    assert "\n" not in str(caught.value)


def test_trust_is_about_the_name_and_about_nothing_else() -> None:
    Claims.of(config(model_name="my-model")).check(GPT2, 8, "resid_post", trust=True)
    Claims.of(config(model_name=None)).check(GPT2, 8, "resid_post", trust=True)
    with pytest.raises(ValueError, match="contexts of 64"):
        Claims.of(config(model_name="my-model", context_size=64)).check(GPT2, 8, "resid_post", trust=True)


def test_files_from_before_version_6_say_it_beside_the_rest() -> None:
    claims = Claims.of({"model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre", "dtype": "torch.float32"})
    assert (claims.model, claims.place(), claims.dtype) == ("gpt2-small", Place("resid_post", 7), "float32")


def test_centred_writes_concern_models_with_layer_norms_alone() -> None:
    claims = Claims.of(config(model_from_pretrained_kwargs={"center_writing_weights": True}))
    assert claims.centred(GPT2.centres)
    assert not claims.centred(GEMMA.centres)  # TransformerLens leaves them as they are
    assert not Claims.of(config(model_from_pretrained_kwargs={"center_writing_weights": False})).centred(True)


def test_a_transcoder_of_centred_writes_cannot_know_the_mean_that_is_written() -> None:
    options = {"center_writing_weights": True, "fold_ln": True}
    hook = "blocks.3.ln2.hook_normalized"
    claims = Claims.of(config(architecture="transcoder", hook_name=hook, model_from_pretrained_kwargs=options))
    with pytest.raises(ValueError, match=r"mean TransformerLens had taken away .* openai-community/gpt2 writes it"):
        claims.check(GPT2, 3, "mlp", trust=False)


def test_a_dictionary_that_was_trained_here_is_known_by_its_subjects_weights() -> None:
    claims = Claims.of({"architecture": "topk", "metadata": {"trained_on": {"subject": "0f", "site": "resid_post.1"}}})
    claims.check(GPT2, 1, "resid_post", trust=False)
    with pytest.raises(ValueError, match="trained at resid_post of layer 1, and the row puts it at mlp_out of layer 1"):
        claims.check(GPT2, 1, "mlp_out", trust=False)
