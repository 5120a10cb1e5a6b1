"""What every system promises, native or grafted (DESIGN §3)."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from harness.systems.system import Site, System
from kernels.codes import Codes

from ..conftest import grafted, subject

Make = Callable[[torch.dtype], System]


def identity(codes: Codes) -> Codes:
    return codes


def logits(system: System, tokens: Tensor) -> Tensor:
    return system.model(tokens, use_cache=False).logits


def inputs(system: System, tokens: Tensor) -> dict[Site, Tensor]:
    """What each site's pair reads, `[tokens, d_model]`: what some units write depends on it."""
    seen: dict[Site, Tensor] = {}

    def layer_input(site: Site) -> Callable[..., None]:
        return lambda _module, args: seen.update({site: args[0].flatten(0, 1)})

    if system.native:
        layers = {site: cast(nn.Module, system.layers[site.layer].feed_forward) for site in system.sites}
        handles = [layer.register_forward_pre_hook(layer_input(site)) for site, layer in layers.items()]
        logits(system, tokens)
        for handle in handles:
            handle.remove()
    else:
        with system.watching(lambda site, x, _y: seen.update({site: x.flatten(0, 1)})):
            logits(system, tokens)
    return seen


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_identity_edit_with_its_error_reproduces_the_native_logits(
    make_system: Make, tokens: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    system = make_system(dtype)
    native = logits(system, tokens)
    with system.running(dict.fromkeys(system.sites, identity), error="keep"):
        assert relative(logits(system, tokens), native) < tolerance
    assert torch.equal(logits(system, tokens), native), "the graft is gone after the block"


def test_a_zeroed_unit_changes_the_output_by_its_coefficient_times_what_it_writes(
    make_system: Make, tokens: Tensor
) -> None:
    system = make_system(torch.float64)
    site = system.sites[0]
    outputs: list[Tensor] = []
    seen: list[tuple[Codes, Tensor]] = []
    pair = system.decomposition[site]
    dropped = 7

    def drop_one(codes: Codes) -> Codes:
        seen.append((codes, torch.empty(0)))
        return codes.keep(torch.arange(codes.nnz) != dropped)

    for edit in (identity, drop_one):
        with system.running({site: edit}), system.watching(lambda s, x, y: outputs.append(y) if s == site else None):
            logits(system, tokens)
    codes, x = seen[0][0], inputs(system, tokens)[site]
    # The watching hook runs after the graft's, so it sees the edited output.
    change = (outputs[0] - outputs[1]).flatten(0, 1)
    token = int(codes.token_of_entry()[dropped])
    wrote = codes.values[dropped] * pair.writes(codes, x, torch.tensor([dropped]))[0]
    assert relative(change[token], wrote) < 1e-8
    change[token] = 0
    assert float(change.detach().abs().max()) < 1e-12


def test_write_is_linear_in_the_values(make_system: Make, tokens: Tensor) -> None:
    system = make_system(torch.float64)
    site = system.sites[-1]
    codes = system.encode(tokens)[site].codes
    pair = system.decomposition[site]
    x = torch.randn(codes.n_tokens, 16, dtype=torch.float64)
    other = torch.randn_like(codes.values)
    together = pair.write(codes.with_values(2 * codes.values + 3 * other), x)
    apart = 2 * pair.write(codes, x) + 3 * pair.write(codes.with_values(other), x)
    assert relative(together, apart) < 1e-12


def test_gradients_flow_through_the_values_to_the_logits(make_system: Make, tokens: Tensor) -> None:
    system = make_system(torch.float64)
    site = system.sites[0]
    leaves: list[Tensor] = []

    def watch(codes: Codes) -> Codes:
        leaves.append(codes.values.detach().requires_grad_())
        return codes.with_values(leaves[0])

    with system.running({site: watch}, error="drop"):
        logits(system, tokens).square().sum().backward()
    assert leaves[0].grad is not None
    assert float(leaves[0].grad.abs().sum()) > 0


def test_different_edits_in_one_batch_equal_single_runs(make_system: Make, tokens: Tensor) -> None:
    system = make_system(torch.float64)
    site = system.sites[0]
    same = tokens[:1].expand(3, -1)

    def scale_by_row(codes: Codes) -> Codes:
        return codes.with_values(codes.values * (1.0 + codes.rows[codes.token_of_entry(), 0]))

    with system.running({site: scale_by_row}):
        together = logits(system, same)
    for row in range(3):
        with system.running({site: lambda codes, row=row: codes.with_values(codes.values * (1.0 + row))}):
            assert relative(together[row], logits(system, tokens[:1])[0]) < 1e-10


def test_strength_is_the_norm_of_what_an_entry_contributes(make_system: Make, tokens: Tensor) -> None:
    system = make_system(torch.float64)
    x_at = inputs(system, tokens)
    for site, encoded in system.encode(tokens).items():
        codes, x = encoded.codes, x_at[site]
        wrote = system.decomposition[site].writes(codes, x, torch.arange(codes.nnz)) * codes.values[:, None]
        torch.testing.assert_close(encoded.strengths, wrote.norm(dim=1))


def test_codes_are_sorted_have_no_zeros_and_say_where_they_come_from(make_system: Make, tokens: Tensor) -> None:
    system = make_system(torch.float64)
    for encoded in system.encode(tokens).values():
        codes = encoded.codes
        assert codes.n_tokens == tokens.numel()
        assert bool((codes.values != 0).all())
        keys = codes.token_of_entry() * codes.n_units + codes.units
        assert bool((keys.diff() > 0).all())
        assert codes.rows.tolist() == [[s, p] for s in range(3) for p in range(12)]


def test_dropping_the_rest_and_the_units_leaves_nothing(make_system: Make, tokens: Tensor) -> None:
    system = make_system(torch.float64)
    outputs: list[Tensor] = []
    nothing = {site: lambda codes: codes.keep(torch.zeros(codes.nnz, dtype=torch.bool)) for site in system.sites}
    with system.running(nothing, error="drop", rest="drop"), system.watching(lambda s, x, y: outputs.append(y)):
        logits(system, tokens)
    assert outputs
    assert all(bool((y == 0).all()) for y in outputs)


def test_an_edit_at_a_site_the_system_does_not_have_is_refused() -> None:
    system = System("dense", subject("dense"), None)
    with pytest.raises(KeyError, match=r"no site mlp_out\.9"), system.running({Site(9, "mlp_out"): identity}):
        pass


def test_splicing_without_the_error_changes_a_grafted_model(tokens: Tensor) -> None:
    system = grafted("topk")
    native = logits(system, tokens)
    with system.running(dict.fromkeys(system.sites, identity), error="drop"):
        assert relative(logits(system, tokens), native) > 1e-3


def test_after_an_edit_within_an_edit_the_outer_one_goes_on(tokens: Tensor) -> None:
    system = System("dense", subject("dense"), None)
    drop = dict.fromkeys(system.sites, lambda codes: codes.keep(torch.zeros_like(codes.units, dtype=torch.bool)))
    native = logits(system, tokens)
    with system.running(drop, error="drop"):
        outer = logits(system, tokens)
        with system.running(dict.fromkeys(system.sites, identity), error="drop"):
            assert relative(logits(system, tokens), native) < 1e-5
        assert torch.equal(logits(system, tokens), outer)
    assert relative(outer, native) > 1e-3
    assert torch.equal(logits(system, tokens), native)


def test_a_dictionary_in_float32_works_on_a_subject_in_bfloat16(tokens: Tensor) -> None:
    system = grafted("topk")
    for dictionary in system.decomposition.values():
        cast(torch.nn.Module, dictionary).float()
    system.model.to(torch.bfloat16)
    with system.running(dict.fromkeys(system.sites, identity), error="drop"):
        spliced = logits(system, tokens)
    assert spliced.dtype == torch.bfloat16
    assert spliced.isfinite().all()
    with system.running(dict.fromkeys(system.sites, identity), error="keep"):
        assert relative(logits(system, tokens).float(), logits(system, tokens).float()) == 0


@pytest.mark.parametrize(
    ("name", "width"), [("moex", 12), ("switch", 12), ("pools", 9), ("dense", None), ("peer", None), ("monet-hd", None)]
)
def test_units_stand_in_groups_where_the_layer_says_so_and_never_in_a_dictionary(name: str, width: int | None) -> None:
    system = System(name, subject(name), None)
    for site, layer in system.decomposition.items():
        assert system.group_width(site) == width
        assert layer.n_units % (width or 1) == 0
    with_dictionary = grafted("topk")
    assert {with_dictionary.group_width(site) for site in with_dictionary.sites} == {None}
