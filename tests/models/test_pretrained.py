"""Other people's models as subjects: every family of the table, tiny and random."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kernels.codes import Codes
from models import rules
from models.feed_forward import Tap
from models.norms import norm_of
from models.pretrained import FAMILIES, Names, PretrainedSubject

VOCAB, WIDTH, LAYERS, LENGTH = 50, 32, 3, 9
_GPT2 = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}
_OTHERS = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
MORE: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64},
    "qwen3": {"head_dim": 8},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40,
    },
    # Its first layer is a dense one.
    "qwen3_moe": {
        "head_dim": 8,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "norm_topk_prob": True,
        "mlp_only_layers": [0],
    },
}
EVERY = [*FAMILIES, "gpt_neox-sequential"]
every_family = pytest.mark.parametrize("family", EVERY)


def tiny(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    kind = family.removesuffix("-sequential")
    settings = _GPT2 if kind == "gpt2" else {**_OTHERS, **MORE.get(kind, {})}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    config = AutoConfig.for_model(kind, vocab_size=VOCAB, **{**special, **settings})
    if family.endswith("-sequential"):
        config.use_parallel_residual = False
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and gains that are not 0 and 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tokens(length: int = LENGTH) -> Tensor:
    return torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(1))


@every_family
def test_a_subject_computes_what_the_model_computed(family: str) -> None:
    model = tiny(family)
    before = model(tokens()).logits
    after = PretrainedSubject(model)(tokens()).logits
    assert torch.equal(before, after)


@every_family
def test_reading_and_writing_every_layer_changes_nothing(family: str) -> None:
    subject = PretrainedSubject(tiny(family))
    native = subject(tokens()).logits
    for layer in subject.feed_forwards():
        layer.tap = Tap(lambda codes, _x: codes)
    torch.testing.assert_close(subject(tokens()).logits, native, atol=2e-5, rtol=1e-4)


@every_family
def test_what_units_and_rest_write_is_what_the_block_adds_to_the_stream(family: str) -> None:
    subject = PretrainedSubject(tiny(family))
    for block, layer in zip(subject.blocks(), subject.feed_forwards(), strict=True):
        seen: dict[str, Tensor] = {}

        def into(_layer: nn.Module, args: tuple[Tensor, ...], seen: dict[str, Tensor] = seen) -> None:
            seen["x"] = args[0]

        def outof(_block: nn.Module, _args: Any, y: Tensor, seen: dict[str, Tensor] = seen) -> None:
            seen["resid_post"] = y

        def silent(_layer: nn.Module, _args: Any, y: Tensor) -> Tensor:
            return torch.zeros_like(y)

        handles = [layer.register_forward_pre_hook(into), block.register_forward_hook(outof)]
        subject(tokens())
        x, with_layer = seen["x"].flatten(0, 1), seen["resid_post"]
        handles.append(layer.register_forward_hook(silent))
        subject(tokens())
        added = (with_layer - seen["resid_post"]).flatten(0, 1)  # resid_post − resid_mid
        for handle in handles:
            handle.remove()
        codes = layer.read(x, torch.zeros(len(x), 2, dtype=torch.long))
        torch.testing.assert_close(layer.write(codes, x) + layer.rest(x), added, atol=2e-5, rtol=1e-4)


@every_family
def test_it_keeps_every_rule_that_a_run_asks(family: str) -> None:
    assert [str(each) for each in rules.every(PretrainedSubject(tiny(family)), tokens())] == []


@every_family
def test_a_unit_writes_its_column_times_its_activation(family: str) -> None:
    subject = PretrainedSubject(tiny(family))
    layer = subject.feed_forwards()[1]
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(3))
    codes = layer.read(x, torch.zeros(5, 2, dtype=torch.long))
    entries = torch.tensor([0, 7, codes.nnz - 1])
    one_by_one = torch.stack([layer.write(only(codes, int(entry)), x).sum(0) for entry in entries])
    each = layer.writes(codes, x, entries) * codes.values[entries, None]
    torch.testing.assert_close(one_by_one, each, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(layer.strengths(codes, x)[entries], each.norm(dim=1), atol=1e-6, rtol=1e-4)


def only(codes: Codes, entry: int) -> Codes:
    keep = torch.zeros(codes.nnz, dtype=torch.bool)
    keep[entry] = True
    return codes.keep(keep)


@every_family
def test_the_head_reads_the_stream_after_the_last_block(family: str) -> None:
    subject = PretrainedSubject(tiny(family))
    seen: list[Tensor] = []
    subject.blocks()[-1].register_forward_hook(lambda _b, _a, y: seen.append(y))
    logits = subject(tokens()).logits
    torch.testing.assert_close(subject.unembed(seen[0]), logits)


@every_family
def test_the_final_norm_is_read_as_what_it_does(family: str) -> None:
    norm = PretrainedSubject(tiny(family)).final_norm()
    read = norm_of(norm, WIDTH)
    x = 3 * torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(5)) + 1
    torch.testing.assert_close(norm(x), read.still(x, x) + read.bias, atol=1e-5, rtol=1e-4)
    assert read.centred == (family in ("gpt2", "gpt_neox", "gpt_neox-sequential", "phi", "olmo", "stablelm",
                                       "starcoder2"))  # fmt: skip


@every_family
def test_forward_flops_are_those_of_the_matrix_products(family: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny(family)
    model.set_attn_implementation("eager")  # the counter has no formula for SDPA on a CPU, nor for grouped products
    if FAMILIES[model.config.model_type].mixture is not None:
        model.set_experts_implementation("eager")
    subject = PretrainedSubject(model)
    with FlopCounterMode(display=False) as counter:
        subject(tokens(8))
    counted = counter.get_total_flops() / 16
    assert subject.forward_flops_per_token(8) == pytest.approx(counted, rel=0.02)


def test_generation_with_a_cache_goes_through_the_units() -> None:
    subject = PretrainedSubject(tiny("gpt2"))
    plain = subject.generate(tokens()[:1], max_new_tokens=5, do_sample=False)
    for layer in subject.feed_forwards():
        layer.tap = Tap(lambda codes, _x: codes)
    assert torch.equal(subject.generate(tokens()[:1], max_new_tokens=5, do_sample=False), plain)


def test_an_unknown_family_is_told_with_its_modules() -> None:
    config = AutoConfig.for_model("granite", vocab_size=VOCAB, **_OTHERS)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match=r"'granite' is no family.*names=.*model.layers"):
        PretrainedSubject(model)


def test_names_given_by_hand_are_looked_for() -> None:
    subject = PretrainedSubject(tiny("llama"), Names(blocks="model.layers", out="down_proj"))
    assert len(subject.feed_forwards()) == LAYERS
    with pytest.raises(ValueError, match=r"LlamaMLP has no module 'dense'.*down_proj"):
        PretrainedSubject(tiny("llama"), Names(out="dense"))


def test_what_is_no_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear is no RMS norm"):
        norm_of(nn.Linear(WIDTH, WIDTH), WIDTH)
