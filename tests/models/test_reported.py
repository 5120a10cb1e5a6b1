"""What users of mixtures and expert layers elsewhere tripped over, asked of every architecture here."""

import pytest
import torch

import models

SIZE = {"vocab_size": 31, "max_position_embeddings": 16, "d_model": 16, "n_layers": 2, "n_heads": 2}


def made(name: str) -> models.TrunkForCausalLM:
    torch.manual_seed(0)
    return models.build(name, **SIZE)


def ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(31, (3, 12), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_what_comes_later_changes_nothing_that_came_before(name: str) -> None:
    model = made(name).eval()
    later = ids()
    later[:, 7:] = ids(1)[:, 7:]
    with torch.no_grad():
        one, other = (model(tokens, use_cache=False).logits for tokens in (ids(), later))
    torch.testing.assert_close(one[:, :7], other[:, :7])
    assert not torch.allclose(one[:, 7:], other[:, 7:])


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_auxiliary_loss_is_finite_and_moves_some_weight(name: str) -> None:
    model = made(name).train()
    model(ids(), use_cache=False)
    losses = model.auxiliary_losses()
    for loss_name, loss in losses.items():
        gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
        norm = sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None) ** 0.5
        assert loss.isfinite(), loss_name
        assert 0 < norm < float("inf"), loss_name


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_a_router_of_zeros_gives_finite_losses_and_gradients(name: str) -> None:
    model = made(name).train()
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            if any(word in part for word in ("router", "query", "keys", "gate")):
                parameter.zero_()
    output = model(ids(), labels=ids(), use_cache=False)
    total = output.loss + sum(model.auxiliary_losses().values(), torch.zeros(()))
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["moex", "switch", "pools"])
def test_padding_changes_no_auxiliary_loss(name: str) -> None:
    """Of MONET this holds for the losses alone: its batch normalisation sees all tokens of a batch."""
    model = made(name).train()
    model(ids(), use_cache=False)
    alone = model.auxiliary_losses()
    padded = torch.cat([ids(), torch.full((3, 5), 7)], dim=1)
    mask = torch.cat([torch.ones(3, 12, dtype=torch.long), torch.zeros(3, 5, dtype=torch.long)], dim=1)
    model(padded, attention_mask=mask, use_cache=False)
    masked = model.auxiliary_losses()
    model(padded, use_cache=False)
    counted = model.auxiliary_losses()
    assert alone
    for loss, value in alone.items():
        torch.testing.assert_close(masked[loss], value)
        assert not torch.allclose(counted[loss], value)  # and without a mask it is text
