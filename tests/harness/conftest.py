"""Tiny systems of every registered kind: what the interface promises is asked of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

import models
import saes
from harness.systems.prefix import Entries
from harness.systems.system import Point, Site, System
from kernels.codes import Codes, ReadWrite
from saes.training_dictionary import Shape, Standardisation

TINY = {"d_model": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 31, "max_position_embeddings": 24}
_MONET = {"n_experts": 36, "heads": 2, "k": 2, "d_expert": 4}
_MOEX = {"n_experts": 4, "d_expert": 12}
SMALL_POOL = {
    "peer": {"n_experts": 36, "heads": 2, "k": 3, "d_key": 4},
    "monet-hd": _MONET,
    "monet-vd": _MONET,
    "moex": _MOEX,
    "switch": _MOEX,
    "pools": {"pools": 4, "experts_per_pool": 9, "max_experts": 5, "d_key": 4, "side_width": 6},
}


def subject(architecture: str, dtype: torch.dtype = torch.float64) -> models.TrunkForCausalLM:
    torch.manual_seed(1)
    model = models.build(architecture, **TINY, **SMALL_POOL.get(architecture, {})).to(dtype).eval()
    for parameter in model.parameters():  # at initialisation the layers write next to nothing
        parameter.data = parameter.data * 3 if parameter.ndim > 1 else parameter.data
    return model


def grafted(kind: str, point: Point = "mlp_out", dtype: torch.dtype = torch.float64) -> System:
    """An untrained dictionary of this kind at both layers of a dense model."""
    model = subject("dense", dtype)
    generator = torch.Generator().manual_seed(2)
    sites = [Site(0, point), Site(1, point)]
    seen: dict[Site, tuple[Tensor, Tensor]] = {}
    with (
        torch.no_grad(),
        System("", model, dict.fromkeys(sites, cast(ReadWrite, None))).watching(
            lambda site, x, y: seen.update({site: (x.flatten(0, 1).float(), y.flatten(0, 1).float())})
        ),
    ):
        model(torch.randint(0, 31, (40, 12), generator=generator), use_cache=False)
    dictionaries = {}
    for site, (x, y) in seen.items():
        config = saes.DICTIONARIES[kind](n_latents=48, k=5)
        module = config.build(Shape(16, 16, transcoder=config.transcodes), generator)
        reads, wants = Standardisation.of(x), Standardisation.of(y)
        module.prepare(1.0)
        module.note_usage(module.step(reads(x), wants(y)))  # Feature Choice shares out what it has seen used
        dictionary = module.inference(reads, wants, x)
        dictionaries[site] = cast(torch.nn.Module, dictionary).to(dtype)
    return System(f"dense+{kind}", model, dictionaries)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, 31, (3, 12), generator=torch.Generator().manual_seed(0))


SYSTEMS: dict[str, Callable[[torch.dtype], System]] = {
    **{name: (lambda dtype, name=name: System(name, subject(name, dtype), None)) for name in models.ARCHITECTURES},
    **{
        f"dense+{kind}": (lambda dtype, kind=kind: grafted(kind, "mlp" if "transcoder" in kind else "mlp_out", dtype))
        for kind in saes.DICTIONARIES
        if ":" not in kind  # SAELens' own are asked in tests/saes: importing it takes 9 s
    },
    "dense+topk at resid_post": lambda dtype: grafted("topk", "resid_post", dtype),
}


@pytest.fixture
def make_subject() -> Callable[..., models.TrunkForCausalLM]:
    """`subject`, for tests that cannot import this file."""
    return subject


@pytest.fixture(params=list(SYSTEMS))
def make_system(request: pytest.FixtureRequest) -> Callable[[torch.dtype], System]:
    return SYSTEMS[request.param]


def set_entries(codes: Codes, entries: Entries) -> Codes:
    """What an edit is: `codes` with these (row, unit) at these values, whether they fired or not."""
    dense = codes.dense()
    dense[entries.row, entries.unit] = entries.value.to(dense.dtype)
    return Codes.from_dense(dense, codes.rows)
