"""Layers of experts in other people's models: OLMoE, Mixtral, Qwen-MoE, run by transformers.

Expert e is W_down,e (act(W_gate,e x) · W_up,e x); a token visits k of them. Unit: neuron m of expert e, number
e · width + m, as in `models.moex`; its coefficient is the expert's gate times what W_down,e reads, what it writes is
its column of W_down,e. Codes hold the neurons of the visited experts and no others.

An expert that every token visits (Qwen2-MoE's shared one) is `rest`, as the side MLP of pools is: no router chooses it,
so as units it would fire everywhere and make dense codes of sparse ones, and it is wider than an expert, so units would
no longer stand in groups of one width. Its neurons are counted (`rest_neurons`), and so in every L0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels.codes import Codes
from models.grouped import grouped_product
from models.wrapped import Wrapped


@dataclass(frozen=True)
class Mixture:
    """Where a layer of experts keeps what is read. shared, shared_gate: the expert of every token, and the gate whose
    sigmoid multiplies it. What the router gives is (logits, gates, experts), the latter two `[tokens, k]`."""

    router: str = "gate"
    experts: str = "experts"
    shared: str | None = None
    shared_gate: str | None = None


class ExpertsLayer(Wrapped):
    """Native forward is the model's own; looked into, the same neurons one by one."""

    def __init__(self, mlp: nn.Module, names: Mixture, layer_index: int) -> None:
        super().__init__(mlp, layer_index)
        self.names = names
        self.n_experts, self.d_model, self.width = self._part(names.experts).down_proj.shape
        self.k = int(self._part(names.router).top_k)
        self.n_units, self.group_width = self.n_experts * self.width, self.width
        if names.shared is not None:
            self.rest_neurons = self._part(names.shared).down_proj.in_features

    def _part(self, name: str) -> Any:
        return self.mlp.get_submodule(name)

    def columns(self) -> Tensor:
        """What neurons write. `[n_experts, width, d_model]`, a view: a copy would be as large as all experts."""
        return self._part(self.names.experts).down_proj.transpose(1, 2)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x `[tokens, d_model]` -> the visited experts and their gates, both `[tokens, k]`."""
        _, gates, experts = self._part(self.names.router)(x)
        return experts, gates

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        experts, gates = self.route(x)
        inner = self._part(self.names.experts)
        visits = x.repeat_interleave(self.k, dim=0)  # [tokens · k, d_model]
        gate, up = grouped_product(visits, experts.flatten(), inner.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)
        h = (inner.act_fn(gate) * up).view(*gates.shape, self.width)
        values = (h * gates[..., None]).to(x.dtype)  # Mixtral's gates are float32 in any model
        units = experts[..., None] * self.width + torch.arange(self.width, device=x.device)
        return Codes.from_slots(units.flatten(1), values.flatten(1), rows, self.n_units)

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        """One product per expert, with the coefficients of the tokens that visit it `[visits, width]`: nearly all
        neurons of a visited expert fire, so this is dense where codes are, and no table of all columns is made."""
        # Ascending, as tokens and the units of each are.
        place = codes.token_of_entry() * self.n_experts + codes.units // self.width
        visits, visit = torch.unique_consecutive(place, return_inverse=True)
        columns = self.columns()
        coefficients = codes.values.new_zeros(len(visits), self.width)
        coefficients = coefficients.index_put((visit, codes.units % self.width), codes.values).to(columns.dtype)
        written = grouped_product(coefficients, visits % self.n_experts, columns)
        return written.new_zeros(codes.n_tokens, self.d_model).index_add(0, visits // self.n_experts, written)

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        units = codes.units[entries]
        return self.columns()[units // self.width, units % self.width]

    def strengths(self, codes: Codes, x: Tensor) -> Tensor:
        return codes.values.abs() * self.columns().norm(dim=-1).flatten().index_select(0, codes.units)

    def rest(self, x: Tensor) -> Tensor:
        """What the shared expert adds, where there is one."""
        if self.names.shared is None or self.names.shared_gate is None:
            return torch.zeros_like(x)
        return self._part(self.names.shared_gate)(x).sigmoid() * self._part(self.names.shared)(x)

    def flops_per_token(self) -> int:
        """Of the router, the shared expert, and k experts."""
        matrices = sum(p.numel() for p in self.mlp.parameters() if p.ndim == 2)
        return 2 * (matrices + self.k * self._of_an_expert())

    def active_parameters(self) -> int:
        return self.parameter_count() - (self.n_experts - self.k) * self._of_an_expert()

    def _of_an_expert(self) -> int:
        return sum(p.numel() for p in self._part(self.names.experts).parameters()) // self.n_experts
