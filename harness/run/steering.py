"""`harness steer`: what a system says with one of its units held at a value, beside what it says by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch

from harness.base.errors import BadInput
from harness.metrics.faithfulness.steering import high
from harness.run.opened import Opened, parse_unit
from harness.systems.clamping import clamped


@torch.no_grad()
def steer(opened: Opened, unit: str, value: float | None, prompt: str, tokens: int, seed: int | None) -> Iterator[str]:
    """Lines to print. seed: draw tokens with it; None: the likeliest each time."""
    system, tokenizer = opened.system, opened.evaluation.tokenizer
    assert tokenizer is not None
    site, number = parse_unit(system, unit)
    codes = opened.evaluation.load_codes(site).codes
    own = codes.values[codes.units == number].float().numpy()
    if value is None:
        if not len(own):
            raise BadInput(
                f"unit {unit}: silent on the evaluation text, so it has no high value; give one with --value"
            )
        value = high(own)
    limit = system.model.config.max_position_embeddings
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]])
    if ids.shape[1] + tokens > limit:
        raise BadInput(f"prompt of {ids.shape[1]} tokens and --tokens {tokens}: {limit} fit")
    share = len(own) / max(1, codes.n_tokens)
    yield f"{system.name}, unit {number} at {site}: fires on {share:.2%} of tokens, held at {value:.4g}"
    for name, edits in (("by itself", {}), ("held", {site: clamped(number, value)})):
        if seed is not None:
            torch.manual_seed(seed)
        with system.running(edits):
            made = cast(Any, system.model).generate(
                ids.to(system.device),
                max_new_tokens=tokens,
                do_sample=seed is not None,
                pad_token_id=tokenizer.eos_token_id,
            )
        yield f"{name}: {prompt}⟶{tokenizer.decode(made[0, ids.shape[1] :])}"
