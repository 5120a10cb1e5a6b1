"""What leaves by torch.export computes what the model computes; what cannot leave says so."""

import pytest
import torch
from torch import nn

import models

SIZE = {"vocab_size": 31, "max_position_embeddings": 16, "d_model": 16, "n_layers": 1, "n_heads": 2}
IDS = torch.randint(31, (2, 8), generator=torch.Generator().manual_seed(0))


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(ids, use_cache=False).logits


@pytest.mark.parametrize("name", ["dense", "peer", "monet-hd"])
def test_an_exported_model_gives_the_same_logits(name: str) -> None:
    torch.manual_seed(0)
    model = Logits(models.build(name, **SIZE).eval())
    exported = torch.export.export(model, (IDS,)).module()
    torch.testing.assert_close(exported(IDS), model(IDS))


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_gradient_checkpointing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not support"):
        models.build(name, **SIZE).gradient_checkpointing_enable()
