"""What a node of a trace is said to promote is what it writes on that prompt."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import models
from harness.run.tracing import _promoted, _read  # pyright: ignore[reportPrivateUsage]
from harness.systems.attribution import Node
from harness.systems.system import System


@pytest.mark.parametrize("name", ["dense", "peer", "moex", "monet-hd", "monet-vd", "pools"])
def test_promoted_tokens_are_those_of_what_is_written_there(
    name: str, make_subject: Callable[..., models.TrunkForCausalLM]
) -> None:
    system = System(name, make_subject(name), None)
    tokens = torch.randint(0, 31, (9,), generator=torch.Generator().manual_seed(3))
    read = _read(system, tokens)
    for site, encoded in system.encode(tokens[None]).items():
        codes = encoded.codes
        for entry in range(0, codes.nnz, max(1, codes.nnz // 12)):
            token, value = int(codes.token_of_entry()[entry]), float(codes.values[entry])
            with torch.no_grad():
                write = system.decomposition[site].writes(codes, read[site], torch.tensor([entry]))[0] * value
                logits = system.model.lm_head(write * system.model.model.norm.weight)
            node = Node("unit", site, token, int(codes.units[entry]), value, 0.0)
            said = _promoted(system, node, read)
            torch.testing.assert_close(logits[said], logits.topk(4).values)
