"""Other people's implementations, where they are installed. None of them is needed.

`peer-pytorch` (with einx, frozendict) and `dictionary-learning` can lie in a folder of their own, given by
`--rivals DIR` (`pip install --no-deps --target DIR …`); SAELens is taken from the environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Step = Callable[[Tensor], Any]


class Rivals:
    """Builders that give None, and log why, where the package is missing. look: False finds none."""

    def __init__(self, folder: Path | None = None, look: bool = True) -> None:
        self.look = look
        if folder is not None:
            sys.path.append(str(folder))

    def peer_layer(self, d: int, heads: int, n_experts: int, k: int) -> torch.nn.Module | None:
        package = self._package("PEER_pytorch")
        if package is None:
            return None
        return package.PEER(
            d, heads=heads, num_experts=n_experts, num_experts_per_head=k, dim_key=d // 2,
            activation=torch.nn.ReLU, non_competing_scores=False,
        )  # fmt: skip

    def sae_lens_step(self, d: int, n: int, k: int, weights: dict[str, Tensor], lr: float) -> Step | None:
        """Its own TopK training step, clipping and Adam as in its trainer; decoder norms not folded in, as in ours."""
        if self._package("sae_lens") is None:
            return None
        from sae_lens.saes.sae import TrainStepInput
        from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

        sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d, d_sae=n, k=k, rescale_acts_by_decoder_norm=False))
        with torch.no_grad():
            sae.W_enc.copy_(weights["W_enc"])
            sae.W_dec.copy_(weights["W_dec"])
        optimizer = torch.optim.Adam(sae.parameters(), lr=lr)

        def step(x: Tensor) -> Tensor:
            out = sae.training_forward_pass(
                TrainStepInput(
                    sae_in=x, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
                )
            )
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return out.loss.detach()

        return step

    def dictionary_learning_step(self, d: int, n: int, k: int) -> Step | None:
        """Its own TopK trainer's `update`."""
        if self.look and importlib.util.find_spec("nnsight") is None:
            # It imports nnsight to collect activations, which the training step does not use.
            sys.modules.setdefault("nnsight", types.ModuleType("nnsight")).__dict__.setdefault("LanguageModel", object)
        if self._package("dictionary_learning") is None:
            return None
        trainer_class = importlib.import_module("dictionary_learning.trainers.top_k").TopKTrainer
        trainer = trainer_class(
            steps=1_000_000, activation_dim=d, dict_size=n, k=k, layer=0, lm_name="none", seed=0, device="cpu"
        )
        counter = iter(range(1, 10**9))  # step 0 sets the bias by a geometric median, which is no training step
        return lambda x: trainer.update(next(counter), x)

    def _package(self, name: str) -> types.ModuleType | None:
        if not self.look:
            return None
        try:
            return importlib.import_module(name)
        except ImportError as error:
            log.info("kernels: bench: %s cannot be imported (%s): not compared with", name, error)
            return None
