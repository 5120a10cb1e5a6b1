"""What training minimises: each loss by hand, dual ascent, and that sparsity losses reach every kind of subject."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import models
from harness.metrics.sparsity import token_sparsity
from harness.systems.system import Encoded
from harness.training.config import Distillation, Floor, StrengthL1, TargetStrengthL0, TrainingConfig
from harness.training.objective import (
    Objective,
    Strengths,
    dev_cross_entropy,
    distillation_kl,
    forward_flops_per_token,
    recorded_strengths,
    sparsity_loss,
)
from harness.training.probe import UsageProbe, probe_every
from kernels.codes import Codes

TINY = {"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 31, "max_position_embeddings": 24}
MakeSubject = Callable[..., models.TrunkForCausalLM]


@dataclass
class Output:
    loss: Tensor
    logits: Tensor


class Says(nn.Module):
    """A model that answers with these logits `[batch, T, vocab]` and this loss."""

    def __init__(self, logits: Tensor, loss: float = 2.0) -> None:
        super().__init__()
        self.logits, self.loss = nn.Parameter(logits), loss

    def forward(self, **_: Any) -> Output:
        return Output(self.logits.sum() * 0 + self.loss, self.logits)

    def auxiliary_loss(self) -> None:
        return None


def layer(*tokens: list[float], n_units: int = 8) -> Strengths:
    """One layer's strengths, by token; the first units fire."""
    dense = torch.zeros(len(tokens), n_units)
    for row, values in enumerate(tokens):
        dense[row, : len(values)] = torch.tensor(values)
    codes = Codes.from_dense(dense, torch.zeros(len(tokens), 2, dtype=torch.long))
    return Strengths(codes, codes.values)


def test_kl_with_temperature_is_the_value_worked_out_by_hand() -> None:
    # At T = 2 the teacher's logits 2, 0 are 1, 0: p = e/(e + 1) = 0.731059; the student says one half each.
    p = math.e / (math.e + 1)
    by_hand = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))  # 0.1109
    teacher, student = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 0.0]]])
    assert float(distillation_kl(student, teacher, 2.0)) == pytest.approx(by_hand, rel=1e-5)
    assert by_hand == pytest.approx(0.1109, abs=1e-4)


def test_the_target_mixes_kl_times_t_squared_with_cross_entropy_and_leaves_out_the_last_position() -> None:
    student, teacher = torch.zeros(1, 2, 2), torch.tensor([[[2.0, 0.0], [50.0, -50.0]]])
    config = TrainingConfig(target=Distillation(kind="kl", teacher="t", temperature=2.0, alpha=0.25))
    objective = Objective(config, cast(Any, Says(teacher)))
    loss = objective(cast(Any, Says(student)), torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))
    kl = float(distillation_kl(student[:, :1], teacher[:, :1], 2.0))
    assert float(loss) == pytest.approx(0.25 * 4 * kl + 0.75 * 2.0)
    assert float(objective.terms["kl"]) == pytest.approx(kl)
    assert float(objective.terms["cross_entropy"]) == 2.0


def test_a_student_that_equals_its_teacher_has_no_kl_and_no_gradient(make_subject: MakeSubject) -> None:
    model = make_subject("peer", torch.float64)
    config = TrainingConfig(target=Distillation(kind="kl", teacher="t", temperature=3.0))
    ids = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(0))
    loss = Objective(config, model)(model, ids, ids)
    loss.backward()
    assert abs(float(loss)) < 1e-7
    assert all(p.grad is None or float(p.grad.abs().max()) < 1e-6 for p in model.parameters())


def test_mu_rises_while_the_loss_is_above_the_floor_falls_below_it_and_is_never_negative(
    make_subject: MakeSubject,
) -> None:
    config = TrainingConfig(
        target=Floor(kind="floor", cross_entropy=3.0, mu=0.2, mu_rate=0.1), sparsity=StrengthL1(kind="l1", weight=1.0)
    )
    objective = Objective(config, floor=3.0)
    ids = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(0))
    model = make_subject("peer")
    cross_entropy = float(model(input_ids=ids, labels=ids).loss)
    objective.floor = cross_entropy - 0.5
    seen = []
    for _ in range(3):
        loss = objective(model, ids, ids)
        sparsity = float(objective.terms["sparsity"])
        seen.append(objective.mu)
        assert float(loss) == pytest.approx(sparsity + float(objective.terms["mu"]) * 0.5)
    assert seen == pytest.approx([0.25, 0.30, 0.35])
    objective.floor = cross_entropy + 2.0
    for _ in range(3):
        loss = objective(model, ids, ids)
        assert float(loss) == pytest.approx(float(objective.terms["sparsity"]))  # below the floor only sparsity counts
        seen.append(objective.mu)
    assert seen[3:] == pytest.approx([0.15, 0.0, 0.0])


def test_sparsity_losses_are_the_values_worked_out_by_hand() -> None:
    layers = [layer([0.5, 0.3, 0.2], [2.0]), layer([1.0, 1.0], [])]
    assert float(sparsity_loss(layers, StrengthL1(kind="l1", weight=9))) == pytest.approx((1.5 + 1.0) / 2)
    # Beyond the strongest one: 0.95 − 0.5 and nothing; 0.95 − 0.5 and a token on which nothing fires.
    target = TargetStrengthL0(kind="target_l0", weight=9, l0=1)
    assert float(sparsity_loss(layers, target)) == pytest.approx((0.45 / 2 + 0.45 / 2) / 2)


def test_target_l0_is_zero_exactly_where_the_strength_l0_is_at_most_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        strengths = layer((torch.rand(7, generator=generator) ** 6 + 1e-4).tolist())
        needed = int(token_sparsity(Encoded(strengths.codes, strengths.values))["strength_l0"])
        for l0 in range(1, 8):
            loss = float(sparsity_loss([strengths], TargetStrengthL0(kind="target_l0", weight=1, l0=l0)))
            assert (loss < 1e-6) == (needed <= l0), (needed, l0)


def test_target_l0_does_not_see_the_scale_and_l1_does() -> None:
    one, ten = layer([0.5, 0.3, 0.2]), layer([5.0, 3.0, 2.0])
    target, l1 = TargetStrengthL0(kind="target_l0", weight=1, l0=2), StrengthL1(kind="l1", weight=1)
    assert float(sparsity_loss([one], target)) == pytest.approx(float(sparsity_loss([ten], target)))
    assert float(sparsity_loss([ten], l1)) == pytest.approx(10 * float(sparsity_loss([one], l1)))


@pytest.mark.parametrize("architecture", list(models.ARCHITECTURES))
def test_a_sparsity_loss_reaches_what_every_architecture_writes_and_leaves_its_loss_alone(
    make_subject: MakeSubject, architecture: str
) -> None:
    model = make_subject(architecture)
    ids = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(0))
    plain = model(input_ids=ids, labels=ids).loss
    with recorded_strengths(model) as layers:
        tapped = model(input_ids=ids, labels=ids).loss
    assert float(tapped) == pytest.approx(float(plain), rel=1e-10)
    assert len(layers) == 2
    assert all(layer.tap is None for layer in model.feed_forwards())
    sparsity_loss(layers, StrengthL1(kind="l1", weight=1)).backward()
    learnt = [n for n, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())]
    assert any(".1.feed_forward." in name for name in learnt), learnt
    before = float(sparsity_loss(layers, StrengthL1(kind="l1", weight=1)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad / parameter.grad.norm().clamp_min(1e-12)
        with recorded_strengths(model) as after:
            model(input_ids=ids)
    assert float(sparsity_loss(after, StrengthL1(kind="l1", weight=1))) < before


class Split:
    length = 12

    def __init__(self, n: int) -> None:
        self.ids = torch.randint(31, (n, 12), generator=torch.Generator().manual_seed(5))

    def __len__(self) -> int:
        return len(self.ids)

    def input_ids(self, index: int) -> Any:
        return self.ids[index].numpy()


def test_the_dev_cross_entropy_is_the_mean_over_tokens_in_inference_mode(make_subject: MakeSubject) -> None:
    model, split = make_subject("dense"), Split(20)
    model.train()
    expected = float(model.eval()(input_ids=split.ids, labels=split.ids).loss)
    model.train()
    assert dev_cross_entropy(model, split) == pytest.approx(expected, rel=1e-6)
    assert model.training


def test_flops_of_a_foreign_model_are_what_the_counter_sees() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2
    )
    # Four projections, scores and mixture over the square, three matrices of the MLP, the head; a multiply-add is two.
    by_hand = 2 * 2 * (4 * 16 * 16 + 2 * 12 * 16 + 3 * 16 * 40) + 2 * 16 * 31
    assert forward_flops_per_token(LlamaForCausalLM(config), 12) == pytest.approx(by_hand)


def test_the_probe_counts_units_that_ever_fired(tmp_path: Any) -> None:
    model = models.build("dense-relu", **TINY)
    probe = UsageProbe(Split(3))
    _only(model, slice(0, 32))
    with recorded_strengths(model) as layers:
        model.eval()(input_ids=probe.input_ids)
    fired = [set(strengths.codes.units.tolist()) for strengths in layers]
    first = probe.measure(model.train())
    assert model.training
    assert first["units_used"] == sum(len(units) for units in fired) / (2 * 64)
    assert first["l0"] == pytest.approx(sum(s.codes.nnz for s in layers) / (2 * 36))
    probe.save(tmp_path)
    again = UsageProbe(Split(3))
    again.load(tmp_path)
    assert first["units_used"] == 0.5
    _only(model, slice(32, 48))
    assert again.measure(model)["units_used"] > first["units_used"]
    assert again.measure(model)["units_used"] == 0.75
    assert UsageProbe(Split(3)).measure(model)["units_used"] == 0.25


def _only(model: models.TrunkForCausalLM, units: slice) -> None:
    """Only these neurons can fire."""
    with torch.no_grad():
        for layer in model.feed_forwards():
            weight = cast(Any, layer).w_in.weight
            weight.zero_()
            weight[units] = torch.randn(weight[units].shape, generator=torch.Generator().manual_seed(0))


def test_a_router_that_sends_every_token_to_the_same_experts_shows_in_the_curve() -> None:
    model, probe = models.build("switch", **TINY, n_experts=8, d_expert=12, k=2), UsageProbe(Split(3))
    even = probe.measure(model)
    with torch.no_grad():
        for layer in cast(Any, model).feed_forwards():
            layer.router.weight.zero_()  # of equal scores the first two experts are taken
    collapsed = UsageProbe(Split(3)).measure(model)
    assert collapsed["units_used"] <= 2 / 8 < even["units_used"]
    assert collapsed["unevenness"] > math.log(8 / 2) > even["unevenness"]


def test_unevenness_is_zero_for_equal_shares_and_log_n_for_one_unit() -> None:
    model, probe = models.build("dense-relu", **TINY), UsageProbe(Split(3))
    with torch.no_grad():
        for layer in cast(Any, model).feed_forwards():
            layer.w_in.weight[1:] = -layer.w_in.weight[:1]
            layer.w_out.weight[:, 1:] = 0  # the others write nothing
    assert probe.measure(model)["unevenness"] == pytest.approx(math.log(64), rel=1e-6)


def test_probes_fall_on_points_of_the_curve_about_twenty_times() -> None:
    assert probe_every(steps=40, log_every=4) == 4
    assert probe_every(steps=1000, log_every=10) == 50


def foreign_configs() -> list[Any]:
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig

    like = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
    return [
        LlamaConfig(vocab_size=31, intermediate_size=40, **like),
        GPT2Config(vocab_size=31, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0),
        GPTNeoXConfig(vocab_size=31, intermediate_size=40, **like),
    ]


@pytest.mark.parametrize("config", foreign_configs(), ids=lambda config: config.model_type)
def test_the_flops_of_a_teacher_from_a_folder_are_counted_without_its_weights(config: Any, tmp_path: Path) -> None:
    from harness.experiment.budget import _foreign_forward_flops

    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    assert _foreign_forward_flops(tmp_path, 12) == forward_flops_per_token(model, 12) > 0
