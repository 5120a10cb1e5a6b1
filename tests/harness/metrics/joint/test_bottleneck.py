"""A tiny transformer trained end to end through a bottleneck of units: so narrow that it must use combinations, and
wide enough to give every concept units of its own. The metric must tell the two apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import models
from harness.metrics.joint import excess
from harness.systems.prefix import Entries
from harness.systems.system import Site, System
from kernels.codes import Codes
from models.trunk import Block

from ...conftest import set_entries

pytestmark = pytest.mark.slow


CONCEPTS, STEPS, BATCH = 8, 350, 128


class Bottleneck(Block):
    """A block without residuals: what later layers know, they know from its feed-forward units."""

    def forward(self, x, position_ids, position_embeddings, attention_mask, past_key_values, **kwargs):
        attended, _ = self.attention(
            self.attention_norm(x), position_embeddings, attention_mask, past_key_values=past_key_values, **kwargs
        )
        return self.feed_forward(self.feed_forward_norm(x + attended), position_ids)


def trained(d_ff: int) -> System:
    """Learns to say one of the two concepts that a sequence names; all that is said passes through `d_ff` units."""
    torch.manual_seed(0)
    model = models.build(
        "dense-relu", d_model=16, n_layers=1, n_heads=2, vocab_size=2 * CONCEPTS, max_position_embeddings=2, d_ff=d_ff
    )
    model.model.layers[0].__class__ = Bottleneck
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    system = System("tiny", model, None)
    fired: list[torch.Tensor] = []

    def watch(codes):
        fired.append(codes.values.abs().sum() / codes.n_tokens)
        return codes

    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / STEPS)
        pair = concepts(BATCH, generator)
        with system.running({Site(0, "mlp_out"): watch}):
            logits = model(pair, use_cache=False).logits[:, 1]
        wanted = torch.zeros_like(logits).scatter_(1, pair + CONCEPTS, 0.5)
        loss = F.cross_entropy(logits, wanted) + 1e-3 * fired.pop()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    return system


def concepts(n: int, generator: torch.Generator) -> torch.Tensor:
    """`[n, 2]`: two different concepts."""
    return torch.stack([torch.randperm(CONCEPTS, generator=generator)[:2] for _ in range(n)])


def figures(system: System, contexts: int = 10, pairs: int = 30) -> excess.Figures:
    """Of the pairs of units that fire together most, each in as many contexts, edited at the last position."""
    ids = concepts(600, torch.Generator().manual_seed(2))
    site = Site(0, "mlp_out")
    codes = system.encode(ids)[site].codes
    values = codes.dense().view(600, 2, -1)[:, 1]  # [sequences, units]
    on = values > 0.05 * values.max()
    together = torch.triu((on.T.float() @ on.float()), diagonal=1)
    order = together.flatten().argsort(descending=True)[:pairs]
    found = []
    for index in order.tolist():
        a, b = divmod(index, values.shape[1])
        where = (on[:, a] & on[:, b]).nonzero()[:contexts, 0]
        if len(where) < contexts:
            continue
        row, z = 2 * torch.arange(contexts) + 1, []
        for off in ((), (b,), (a,), (a, b)):
            units = [Entries(row, torch.full_like(row, unit), torch.zeros(contexts)) for unit in off]

            def edit(codes: Codes, units: list[Entries] = units) -> Codes:
                for entries in units:
                    codes = set_entries(codes, entries)
                return codes

            with torch.no_grad(), system.running({site: edit}):
                z.append(system.model(ids[where], use_cache=False).logits[:, 1])
        found.append(excess.figures(*z))
    assert len(found) >= 3
    return excess.Figures(*(torch.cat(parts) for parts in zip(*(vars(of).values() for of in found), strict=True)))


def test_a_bottleneck_that_must_use_combinations_is_told_from_one_that_need_not() -> None:
    narrow, wide = figures(trained(4)), figures(trained(32))
    assert narrow.excess.sum() / narrow.effect.sum() > 4 * wide.excess.sum() / wide.effect.sum()
    assert narrow.conjunction.mean() > 4 * wide.conjunction.mean()
