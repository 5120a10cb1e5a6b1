"""Dense MLPs, whose neurons are units too: the control that every other system must beat.

A neuron's coefficient is what multiplies its row of the output matrix:

- gelu, relu: act(w_inᵀx).
- swiglu (arXiv 2002.05202): silu(w_gateᵀx) · w_upᵀx.
- solu (Elhage et al., "Softmax Linear Units", 2022): h = W_in x, s = h · softmax(h) over the layer's neurons,
  coefficient = LayerNorm(s). The LayerNorm belongs to the units (its gain and bias per neuron are in the coefficient);
  since it subtracts the mean over neurons, every neuron has a non-zero coefficient on every token: read off sparsity
  from strengths, not from L0.

There are no biases, so `rest` is nothing. gelu and swiglu units practically never are exactly zero either.
"""

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.codes import Codes
from models.config import TrunkConfig
from models.feed_forward import FixedWrites
from models.registry import register
from models.trunk import TrunkForCausalLM


class DenseConfig(TrunkConfig):
    """d_ff: neurons in each layer; None: 4·d_model, and for swiglu, which has three matrices instead of two, two thirds
    of that, rounded to a multiple of 8, so that the variants have equally many parameters."""

    model_type: ClassVar[str] = "dense"
    small: ClassVar[dict[str, Any]] = {"d_ff": 48}

    d_ff: int | None = None
    activation: Literal["gelu", "relu", "swiglu", "solu"] = "gelu"

    def check(self) -> None:
        super().check()
        if self.d_ff is None:
            wide = 4 * self.d_model
            self.d_ff = max(8, 8 * round(wide / 12)) if self.activation == "swiglu" else wide


class Dense(FixedWrites):
    def __init__(self, config: DenseConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        assert config.d_ff is not None, "DenseConfig.check fills it"
        self.n_units = config.d_ff
        self.activation = config.activation
        self.w_in = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.w_gate = nn.Linear(config.d_model, config.d_ff, bias=False) if config.activation == "swiglu" else None
        self.norm = nn.LayerNorm(config.d_ff) if config.activation == "solu" else None
        self.w_out = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.w_out.writes_residual = True  # pyright: ignore[reportArgumentType] (a mark for _init_weights)

    def coefficients(self, x: Tensor) -> Tensor:
        """x `[tokens, d_model]` -> `[tokens, d_ff]`."""
        h = self.w_in(x)
        if self.w_gate is not None:
            return F.silu(self.w_gate(x)) * h
        if self.norm is not None:
            return self.norm(h * h.softmax(dim=-1))
        return F.relu(h) if self.activation == "relu" else F.gelu(h)

    def fused(self, x: Tensor) -> Tensor:
        return self.w_out(self.coefficients(x))

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        return Codes.from_dense(self.coefficients(x), rows)

    def write_vectors(self) -> Tensor:
        return self.w_out.weight.T

    def flops_per_token(self) -> int:
        matrices = 2 if self.w_gate is None else 3
        return matrices * 2 * self.w_out.in_features * self.w_out.out_features

    def active_parameters(self) -> int:
        return self.parameter_count()


class DenseForCausalLM(TrunkForCausalLM):
    config_class = DenseConfig
    feed_forward_class = Dense


register("dense", DenseForCausalLM, activation="gelu")
register("dense-relu", DenseForCausalLM, activation="relu")
register("dense-swiglu", DenseForCausalLM, activation="swiglu")
register("dense-solu", DenseForCausalLM, activation="solu")
