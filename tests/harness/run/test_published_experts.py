"""Published expert models as rows of a table: a mixture that transformers runs, and a release of MonetLLM's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteMoeConfig, OlmoeConfig

from harness.base.errors import BadInput
from harness.run import comparison
from harness.run.workshop import Workshop
from harness.store.stages import Store
from harness.tables.table import Table
from models.registry import ARCHITECTURES

from ...models.test_monet_release import N, release
from .test_pretrained_rows import bpe, planned

WIDTH, VISITED, EXPERTS = 24, 2, 6
ROWS = """
  hf:ROOT/olmoe: {}
  hf:ROOT/monet: {}
  hf:ROOT/monet[untrained=true]: {}
"""


@dataclass(frozen=True)
class Ran:
    table: Table
    workshop: Workshop
    root: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, tokenizer = tmp_path_factory.mktemp("hf"), bpe(280)
    torch.manual_seed(1_000)
    config = OlmoeConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                         intermediate_size=WIDTH, num_experts=EXPERTS, num_experts_per_tok=VISITED,
                         max_position_embeddings=64, pad_token_id=None, eos_token_id=0)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(root / "olmoe")
    release(root / "monet", "vertical", vocabulary=len(tokenizer))
    for name in ("olmoe", "monet"):
        tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def ran(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    plan, store = planned(folders, ROWS), Store(tmp_path_factory.mktemp("store"))
    return Ran(comparison.run(plan, store, tmp_path_factory.mktemp("out")), Workshop(plan, store), folders)


def test_their_rows_stand_in_the_table_with_what_a_token_uses(ran: Ran) -> None:
    olmoe, monet, untrained = ran.table.rows
    assert olmoe.metrics["sparsity/l0"].value == VISITED * WIDTH
    assert 1 <= monet.metrics["sparsity/l0"].value <= N * N
    assert {row.unmatched for row in (olmoe, monet)} == {"its subject was trained elsewhere"}
    assert monet.metrics["loss/cross_entropy"].value != untrained.metrics["loss/cross_entropy"].value
    assert monet.metrics["cost/parameters"].value == untrained.metrics["cost/parameters"].value


def test_units_stand_in_groups_of_an_expert(ran: Ran) -> None:
    row = ran.workshop.plan.rows[0]
    system = ran.workshop.evaluation(row).system
    assert {system.group_width(site) for site in system.sites} == {WIDTH}
    assert {system.decomposition[site].n_units for site in system.sites} == {EXPERTS * WIDTH}


def test_a_release_is_keyed_by_the_code_of_our_own_monet(ran: Ran) -> None:
    olmoe, monet, _ = (row.subject.modules for row in ran.workshop.plan.rows)
    assert ARCHITECTURES.modules()["monet-vd"] in monet
    assert ARCHITECTURES.modules()["monet-vd"] not in olmoe


def test_a_mixture_that_is_not_known_is_one_line_before_anything_runs(tmp_path: Path) -> None:
    tokenizer = bpe(280)
    config = GraniteMoeConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                              num_key_value_heads=4, intermediate_size=8, num_local_experts=4,
                              num_experts_per_tok=2)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "granite")
    tokenizer.save_pretrained(tmp_path / "granite")
    with pytest.raises(BadInput, match=r"hf:.*'granitemoe' has experts, and is none of the mixtures known") as raised:
        planned(tmp_path, "  hf:ROOT/granite: {}")
    assert "\n" not in str(raised.value)


def test_a_release_that_our_trunk_cannot_be_is_one_line_before_anything_runs(folders: Path, tmp_path: Path) -> None:
    release(tmp_path / "shared", "vertical", num_key_value_heads=1)
    bpe(280).save_pretrained(tmp_path / "shared")
    with pytest.raises(BadInput, match=r"systems.hf:.*shared: .*the release has num_key_value_heads=1") as raised:
        planned(tmp_path, "  hf:ROOT/shared: {}")
    assert "\n" not in str(raised.value)
