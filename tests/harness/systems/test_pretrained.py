"""The one interface on other people's models: edits at one position, the graph of a prompt."""

from __future__ import annotations

import pytest
import torch

from harness.systems.linear import linear
from harness.systems.prefix import Entries, Prefix
from harness.systems.system import Site, System
from kernels.codes import Codes
from models.pretrained import PretrainedSubject

from ...models.test_pretrained import EVERY, LAYERS, tiny, tokens

every_family = pytest.mark.parametrize("family", EVERY)


def system_of(family: str) -> System:
    return System(family, PretrainedSubject(tiny(family)), None)


@every_family
def test_an_edit_at_one_position_is_the_whole_sequence_run_again(family: str) -> None:
    system = system_of(family)
    ids = tokens()[0]
    prefix = Prefix(system, ids)
    positions = torch.tensor([8, 3, 5, 3])
    at = {  # row of positions, unit, value
        Site(0, "mlp_out"): (1, firing(system, 0, 3, 4), 2.5),
        Site(2, "mlp_out"): (2, firing(system, 2, 5, 7), -1.5),
    }
    edits = {
        site: Entries(torch.tensor([row]), torch.tensor([unit]), torch.tensor([value]))
        for site, (row, unit, value) in at.items()
    }
    found = prefix.logits(positions, edits)
    for row, position in enumerate(positions.tolist()):
        own = {site: (position, unit, value) for site, (of, unit, value) in at.items() if of == row}
        with system.running({site: setting(*one) for site, one in own.items()}):
            wanted = system.model(ids[None], use_cache=False).logits[0, position]
        torch.testing.assert_close(found[row], wanted, atol=2e-5, rtol=1e-4)


def firing(system: System, layer: int, position: int, which: int) -> int:
    """The unit that is the `which`-th to fire there: in a dense model unit `which`."""
    codes = system.encode(tokens()[:1])[Site(layer, "mlp_out")].codes
    return int(codes.units[codes.token_of_entry() == position][which])


def setting(position: int, unit: int, value: float):
    def edit(codes: Codes) -> Codes:
        here = (codes.token_of_entry() == position) & (codes.units == unit)
        assert int(here.sum()) == 1, "the neuron fires"
        return codes.with_values(torch.where(here, value, codes.values))

    return edit


@every_family
def test_the_linear_model_of_a_prompt_says_what_the_model_says(family: str) -> None:
    system = system_of(family)
    native = system.model(tokens()[:1], use_cache=False).logits[0]
    torch.testing.assert_close(linear(system, tokens()[0]).logits.detach(), native, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "family",
    ["llama", "mistral", "qwen3", "gemma", "gemma3_text", "olmo", "olmo2", "phi3", "olmoe", "mixtral", "qwen3_moe"],
)
def test_where_nothing_has_a_bias_all_that_is_written_adds_up_to_what_is_read(family: str) -> None:
    prompt = linear(system_of(family), tokens()[0])
    reading = prompt.logits[-1, 3]
    leaves = list(prompt.written.values())
    gradients = torch.autograd.grad(reading, leaves)
    total = sum(float((leaf.detach() * gradient).sum()) for leaf, gradient in zip(leaves, gradients, strict=True))
    assert len(leaves) == LAYERS + 1
    assert total == pytest.approx(float(reading.detach()), rel=1e-4, abs=1e-4)
