"""MxD, a mixture of decoders: many full-rank linear decoders of one hidden layer, of which a token uses k (Oldfield et
al. 2025, arXiv 2505.21364, and the authors' code at github.com/james-oldfield/MxD).

z = gelu(E x), a = TopK_k(ReLU(G x + b)), f(x) = Σ_n a_n W_n z. The decoders are slices of one tensor in Hadamard
factors, W_n = diag(c_n) D: each has D's rank where c_n has no zero, and f(x) = (Σ_n a_n c_n) ⊙ D z costs k rows of C
and not k matrices. Gates are not normalised.

Unit: a decoder; its coefficient is its gate a_n. What it writes depends on the token: c_n ⊙ D z. [U] The paper reads
gates as features, as we do; the hidden neurons belong to no unit, and a reader has to read them as well
(`rest_neurons`). [U] Ours: trained from the start as a layer, not fitted to one; no skip, no output bias; C is drawn
so that the sum starts as large as a dense layer's output.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.special import ndtri
from transformers import initialization as init

from kernels.sparse_dictionary import decode
from models import Codes, FeedForward, TrunkConfig, register


class MxdConfig(TrunkConfig):
    """n_experts decoders, of which a token uses at most k, of one hidden layer of d_ff neurons (None: 4·d_model)."""

    small: ClassVar[dict[str, Any]] = {"n_experts": 32, "k": 4, "d_ff": 48}

    n_experts: int = 512
    k: int = 16
    d_ff: int | None = None

    def check(self) -> None:
        super().check()
        self.d_ff = self.d_ff or 4 * self.d_model
        if self.k > self.n_experts:
            raise ValueError(f"k={self.k} exceeds n_experts={self.n_experts}; nearest: {self.n_experts}")


class Mxd(FeedForward):
    roles = {"gate.weight": "router", "scales": "table"}  # noqa: RUF012

    def __init__(self, config: MxdConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        self.n_units, self.k, self.rest_neurons = config.n_experts, config.k, config.d_ff or 0
        self.gate = nn.Linear(config.d_model, config.n_experts)
        self.encoder = nn.Linear(config.d_model, self.rest_neurons, bias=False)
        self.decoder = nn.Linear(self.rest_neurons, config.d_model, bias=False)
        self.scales = nn.Parameter(self.gate.weight.new_empty(config.n_experts, config.d_model))  # C

    def init_weights(self, config: TrunkConfig) -> None:
        super().init_weights(config)
        # About the median of the k largest of n normal scores: with it Σ_n a_n c_n starts with variance 1.
        gate = max(0.5, float(ndtri(torch.tensor(1 - self.k / (2 * self.n_units), device="cpu"))))
        init.normal_(self.scales, std=1 / (gate * config.initializer_range * (config.d_model * self.k) ** 0.5))

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        gates, experts = self.gate(x).relu().topk(self.k, dim=-1)
        return Codes.from_slots(experts, gates, rows, self.n_units)

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        return decode(codes, self.scales) * self.decoded(x)

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        tokens = codes.token_of_entry()[entries]
        return self.scales.index_select(0, codes.units[entries]) * self.decoded(x).index_select(0, tokens)

    def decoded(self, x: Tensor) -> Tensor:
        """D z, which every decoder scales in its own way."""
        return self.decoder(F.gelu(self.encoder(x)))


register("mxd", MxdConfig, Mxd)
