"""What training a subject minimises: cross entropy, KL to a teacher, or sparsity with a floor under cross entropy.

Sparsity losses act on *strengths* (|coefficient| · ‖write‖, what a unit really contributes), read through the layers'
taps, so they are the same for every subject, and no rescaling of a unit's two vectors can cheat them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from harness.training.config import Distillation, Floor, Sparsity, StrengthL1, TrainingConfig
from kernels.codes import Codes
from models.feed_forward import FeedForward, Tap
from models.subject import Subject
from models.trunk import TrunkForCausalLM

if TYPE_CHECKING:
    from harness.corpus import PackedSplit

# The share of a token's strength that strength-L0 counts units up to, as in harness/metrics/sparsity.py.
SHARE = 0.95
DEV_SEQUENCES = 64  # of the dev split, on which a teacher's cross entropy is measured
DEV_BATCH = 16


@dataclass
class Objective:
    """The loss of a batch, and what of it survives from step to step.

    teacher: for KL. floor: c in nats per token, for a floor. mu: its multiplier, the one thing that a checkpoint must
    hold. `terms` are of the last batch, detached, 0-d: `cross_entropy`, `objective` and those that apply (`kl`,
    `sparsity`, `mu`, `auxiliary/...`, `auxiliary`).
    """

    config: TrainingConfig
    teacher: PreTrainedModel | None = None
    floor: float | None = None
    mu: float = 0.0
    terms: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.config.target, Floor):
            self.mu = self.config.target.mu

    def __call__(self, model: TrunkForCausalLM, input_ids: Tensor, labels: Tensor) -> Tensor:
        """input_ids and labels `[batch, T]` -> 0-d. With a floor, also moves μ by its step of dual ascent."""
        target, sparsity = self.config.target, self.config.sparsity
        with recorded_strengths(model) if sparsity is not None else contextlib.nullcontext([]) as strengths:
            outputs = model(input_ids=input_ids, labels=labels)
        cross_entropy = outputs.loss
        terms: dict[str, Tensor] = {"cross_entropy": cross_entropy}
        penalty = cross_entropy.new_zeros(())
        if sparsity is not None:
            terms["sparsity"] = sparsity_loss(strengths, sparsity)
            penalty = sparsity.weight * terms["sparsity"]
        if isinstance(target, Floor):
            assert self.floor is not None
            above = cross_entropy - self.floor
            terms["mu"] = above.new_tensor(self.mu)
            loss = penalty + self.mu * above.clamp_min(0)
            self.mu = max(0.0, self.mu + target.mu_rate * float(above.detach()))
        elif isinstance(target, Distillation):
            assert self.teacher is not None
            with torch.no_grad():
                teacher_logits = self.teacher(input_ids=input_ids, use_cache=False).logits
            terms["kl"] = distillation_kl(outputs.logits[:, :-1], teacher_logits[:, :-1], target.temperature)
            loss = target.alpha * target.temperature**2 * terms["kl"] + (1 - target.alpha) * cross_entropy + penalty
        else:
            loss = cross_entropy + penalty
        auxiliary = model.auxiliary_loss()
        if auxiliary is not None:
            terms["auxiliary"] = auxiliary
            terms |= {f"auxiliary/{name}": term for name, term in model.auxiliary_losses().items()}
            loss = loss + auxiliary
        terms["objective"] = loss
        self.terms = {name: term.detach() for name, term in terms.items()}
        return loss


def distillation_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over tokens of Σ p log(p / q) in nats, p and q the softmax of teacher's and student's logits
    `[..., vocab]` / temperature; in float32. (Hinton et al. 2015, arXiv 1503.02531; the caller multiplies by T², which
    keeps the gradient's size where it is at T = 1.)"""
    p = (teacher.float() / temperature).log_softmax(-1)
    q = (student.float() / temperature).log_softmax(-1)
    return F.kl_div(q.flatten(0, -2), p.flatten(0, -2), reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Strengths:
    """What one layer's units contributed to a batch."""

    codes: Codes
    values: Tensor  # [nnz], with gradients

    def rows(self) -> Tensor:
        """`[tokens, largest L0]`: a token's strengths, zeros behind."""
        token = self.codes.token_of_entry()
        width = max(1, int(self.codes.row_lengths().max()))
        place = torch.arange(self.codes.nnz, device=token.device) - self.codes.indptr[:-1][token]
        rows = self.values.new_zeros(self.codes.n_tokens, width)
        return rows.index_put((token, place), self.values)


@contextlib.contextmanager
def recorded_strengths(model: TrunkForCausalLM) -> Iterator[list[Strengths]]:
    """While the block runs, every layer's strengths of the last forward are appended to the list."""
    found: list[Strengths] = []
    layers = model.feed_forwards()

    def recording(layer: FeedForward) -> Tap:
        def record(codes: Codes, x: Tensor) -> Codes:
            found.append(Strengths(codes, layer.strengths(codes, x)))
            return codes

        return Tap(record)

    for layer in layers:
        layer.tap = recording(layer)
    try:
        yield found
    finally:
        for layer in layers:
            layer.tap = None


def sparsity_loss(layers: list[Strengths], config: Sparsity) -> Tensor:
    """Mean over layers and tokens, before its weight.

    l1: Σ s, the summed strength of the token's units.

    target_l0 [U: our definition]: max(0, 0.95 − Σ_{l0 strongest} s / Σ s). Strength-L0 is the fewest units that carry
    95%, so this is zero exactly where a token's strength-L0 is at most `l0`; elsewhere it pushes strength from the tail
    to the strongest. It has no scale: shrinking all units alike changes nothing, as it does change L1.
    """
    losses = []
    for strengths in layers:
        tokens = max(1, strengths.codes.n_tokens)
        if isinstance(config, StrengthL1):
            losses.append(strengths.values.sum() / tokens)
            continue
        rows = strengths.rows()
        total = rows.sum(1).clamp_min(torch.finfo(rows.dtype).tiny)
        head = rows.topk(min(config.l0, rows.shape[1]), dim=1, sorted=False).values.sum(1)
        excess = (SHARE - head / total).clamp_min(0)
        losses.append((excess * (strengths.codes.row_lengths() > 0)).sum() / tokens)
    return torch.stack(losses).mean()


@torch.no_grad()
def dev_cross_entropy(model: PreTrainedModel | Subject, dev: PackedSplit) -> float:
    """Mean next-token cross entropy, nats per token, on the first 64 sequences of the dev split (float64 sum)."""
    training = model.training
    model.eval()
    total, count = 0.0, min(DEV_SEQUENCES, len(dev))
    for start in range(0, count, DEV_BATCH):
        ids = torch.stack([sequence(dev, index) for index in range(start, min(start + DEV_BATCH, count))])
        ids = ids.to(model.device)
        total += float(model(input_ids=ids, labels=ids).loss) * len(ids)
    model.train(training)
    return total / count


def sequence(split: PackedSplit, index: int) -> Tensor:
    """`[T]` int64; a copy, since the file behind a split is read-only."""
    return torch.tensor(split.input_ids(index), dtype=torch.long)


def forward_flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """A subject's own count; of any other model what torch's counter sees of one sequence."""
    if isinstance(model, TrunkForCausalLM):
        return float(model.forward_flops_per_token(sequence_length))
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros(1, sequence_length, dtype=torch.long, device=model.device)
    # A mask of its own: to make one, transformers looks at values, and a model on the meta device has none.
    mask = torch.zeros(1, 1, sequence_length, sequence_length, dtype=model.dtype, device=model.device)
    # Of the fused attention kernels the counter does not know the CPU's.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    return counter.get_total_flops() / sequence_length
