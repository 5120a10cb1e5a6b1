"""MONET: N = n² experts composed of 2n parts (arXiv 2412.04139), horizontally or vertically.

Expert (i, j) takes one part from each of two lists. Every head h has gates over both, ĝ¹_h and ĝ²_h, each summing to 1,
and expert (i, j) has the weight Σ_h ĝ¹_hi ĝ²_hj. The sum over all N experts then costs what the 2n parts cost:

- horizontal: E_ij(x) = V_j σ(U_i x + b¹_i) + b²_j.
- vertical: hidden h = [σ(U¹_i x + b¹_i); σ(U²_j x + b²_j)]; the left half of the output is L_i h + c¹_i, the right half
  R_j h + c²_j.

Routing without sorting: logits z are normalised, those of at least min(max z, τ) are kept, τ = Φ⁻¹(1 − k/n), so about k
of each half and at least one; the gates are the softmax of the kept raw logits. Layers in a group share the routing of
the group's first layer.

Unit: an expert (i, j), number i·n + j, its biases included; value Σ_h ĝ¹_hi ĝ²_hj; what it writes is E_ij(x). Only 2n
parts exist: a unit is ablated by leaving its *pair* out of ĝ¹ ⊗ ĝ²; deleting U_i would hit n experts. Pairs are formed
by `read` alone (tokens × N numbers, in pieces), and nothing of size N × d ever.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import initialization as init

from kernels import sparse_dictionary
from kernels.codes import Codes
from models.config import TrunkConfig, check_square, nearest_numbers
from models.feed_forward import FeedForward, Role
from models.grouped import grouped_product
from models.registry import register
from models.trunk import ACTIVATIONS, TrunkForCausalLM, dense_output_std, moment

_PAIRS_AT_ONCE = 1 << 24  # numbers of a piece of tokens × N
_LEAST_SHARE = 1e-9  # the logarithm of a gate that no token of a batch has


class MonetConfig(TrunkConfig):
    """n_experts: N = n². heads: of routing. k: about so many of each half are kept by a head, so k² experts.
    d_expert: the hidden width m of an expert.

    router_norm: "batch" is the paper's, BatchNorm without gain over all tokens and parts of a head: in training, which
    logits are kept then depends on *later* positions and other sequences. That leak is through the threshold alone (the
    gates come from raw logits), and evaluation, on running statistics, does not have it. "rms" divides a token's logits
    by their own root mean square: causal, one function in training and evaluation.

    Parts that no token of a batch keeps get no gradient, so a fast router leaves parts behind for good: train it
    slowly. Seen at d_model 64 after 77k tokens, one seed, vertical: of all pairs a layer used 23 to 51% on 2k held-out
    tokens at the router rate 6e-3, and 67 to 81% at 1e-3, at no higher a loss; horizontal 71 to 83% at 1e-3. The rms
    norm does not mend it (21 to 53% at 6e-3).

    routing_group: so many consecutive layers share one routing (the paper's larger models: 4).

    Losses, both λ = 1e-3 in the paper: uniformity −1/(2Hn) Σ_h Σ_i log ḡ_hi over both halves, ḡ the mean over the batch
    (the paper's formula without that mean would take the logarithm of zeros); ambiguity ½ mean_h(1 − max ĝ¹_h) +
    ½ mean_h(1 − max ĝ²_h).
    """

    model_type: ClassVar[str] = "monet"
    small: ClassVar[dict[str, Any]] = {"n_experts": 64, "heads": 2, "k": 2, "d_expert": 4}
    zero_allowed: ClassVar[frozenset[str]] = frozenset({"uniformity_coefficient", "ambiguity_coefficient"})

    decomposition: Literal["horizontal", "vertical"] = "horizontal"
    n_experts: int = 4096
    heads: int = 4
    k: int = 4
    d_expert: int = 8
    activation: Literal["relu2", "relu", "gelu", "silu"] = "relu2"
    router_norm: Literal["batch", "rms"] = "batch"
    routing_group: int = 1
    uniformity_coefficient: float = 1e-3
    ambiguity_coefficient: float = 1e-3

    @property
    def n_parts(self) -> int:
        return math.isqrt(self.n_experts)

    def check(self) -> None:
        super().check()
        check_square("n_experts", self.n_experts)
        if self.k >= self.n_parts:
            raise ValueError(
                f"k={self.k} keeps all of the n={self.n_parts} parts of n_experts={self.n_experts}, which has no "
                f"threshold; {nearest_numbers(self.k, range(1, self.n_parts))}"
            )
        if self.decomposition == "vertical" and self.d_expert % 2:
            raise ValueError(
                f"d_expert={self.d_expert} has no halves for the vertical decomposition; "
                f"nearest: {max(2, self.d_expert - 1)} or {self.d_expert + 1}"
            )
        if self.n_layers % self.routing_group:
            divisors = [n for n in range(1, self.n_layers + 1) if self.n_layers % n == 0]
            raise ValueError(
                f"routing_group={self.routing_group} does not divide n_layers={self.n_layers}; "
                f"{nearest_numbers(self.routing_group, divisors)}"
            )


class Routing(nn.Module):
    """Where the first layer of a group leaves its gates `[tokens, heads, n]` for the layers after it."""

    gates: tuple[Tensor, Tensor] | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "gates": None}


class Router(nn.Module):
    """x `[tokens, d_model]` -> (ĝ¹, ĝ²), each `[tokens, heads, n]`, summing to 1 over n."""

    def __init__(self, config: MonetConfig) -> None:
        super().__init__()
        self.heads, self.n, self.eps = config.heads, config.n_parts, config.norm_eps
        self.w1 = nn.Linear(config.d_model, config.heads * self.n, bias=False)
        self.w2 = nn.Linear(config.d_model, config.heads * self.n, bias=False)
        batch = config.router_norm == "batch"
        self.norm1 = nn.BatchNorm1d(config.heads, affine=False) if batch else None
        self.norm2 = nn.BatchNorm1d(config.heads, affine=False) if batch else None
        self.threshold = float(torch.special.ndtri(torch.tensor(1 - config.k / self.n, device="cpu").double()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norm1, norm2 = self.norm1 or self._by_rms, self.norm2 or self._by_rms
        return self._gates(self.w1(x), norm1), self._gates(self.w2(x), norm2)

    def _by_rms(self, logits: Tensor) -> Tensor:
        return logits * (logits.square().mean(-1, keepdim=True) + self.eps).rsqrt()

    def _gates(self, logits: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        logits = logits.view(-1, self.heads, self.n)
        # What is kept is a yes or no, which has no gradient.
        plain = logits.detach()
        z = norm(plain)
        kept = z >= z.amax(-1, keepdim=True).clamp_max(self.threshold)
        return logits.masked_fill(~kept, -math.inf).softmax(-1)


class Monet(FeedForward):
    """What both decompositions have in common: routing, its losses, pairs. `h` is `[tokens, n, m]` throughout."""

    def __init__(self, config: MonetConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        self.n_units, self.n, self.m = config.n_experts, config.n_parts, config.d_expert
        self.heads, self.d_model = config.heads, config.d_model
        self.activation = config.activation
        self.vertical = config.decomposition == "vertical"
        self.router = Router(config) if layer_index % config.routing_group == 0 else None
        # A layer's own: only the first of a group has a router.
        roles: dict[str, Role] = {"c1": "table"}
        if self.vertical:
            roles["c2"] = "table"
        if self.router is not None:
            roles |= {"router.w1.weight": "router", "router.w2.weight": "router"}
        self.roles = roles
        d, wide = config.d_model, self.n * self.m
        # Rows of u: horizontal (i, m); vertical first all (i, m/2), then all (j, m/2).
        self.u = nn.Parameter(torch.empty(wide, d))
        self.b = nn.Parameter(torch.empty(wide))
        # [out, (part, m)], as a linear layer has it: what Muon expects.
        self.v1 = nn.Parameter(torch.empty(d // 2 if self.vertical else d, wide))
        self.c1 = nn.Parameter(torch.empty(self.n, d // 2 if self.vertical else d))
        self.v2 = nn.Parameter(torch.empty(d // 2, wide)) if self.vertical else None
        self.c2 = nn.Parameter(torch.empty(self.n, d // 2)) if self.vertical else None

    @classmethod
    def build_shared(cls, config: TrunkConfig) -> nn.Module | None:
        return Routing()

    @torch.no_grad()
    def init_weights(self, config: TrunkConfig) -> None:
        """Rows of u have norm about 1, so that Ux has variance 1; v is such that the output starts as large as a dense
        layer's, with equal gates for the parts that a half keeps, about k."""
        assert isinstance(config, MonetConfig)
        init.normal_(self.u, std=config.d_model**-0.5)
        for bias in (self.b, self.c1, self.c2):
            if bias is not None:
                init.zeros_(bias)
        # With s = Σ gate² = 1/kept, a head mixes hidden vectors whose entries have a mean: E[mixed²] = mean² + s ·
        # variance. Mixed ones are written by m · heads · s columns; vertically half of the m are not mixed.
        second, mean = moment(self.activation, 2), moment(self.activation, 1)
        kept = torch.arange(self.n + 1, dtype=torch.float64, device="cpu")
        chance = (
            torch.distributions.Binomial(self.n, torch.tensor(config.k / self.n, device="cpu")).log_prob(kept).exp()
        )
        share = float((chance / kept.clamp_min(1)).sum())
        mixed = mean**2 + (second - mean**2) * share
        entry = (mixed + second) / 2 if self.vertical else mixed
        terms = self.m * self.heads * share * entry
        for v in (self.v1, self.v2):
            if v is not None:
                init.normal_(v, std=dense_output_std(config) / math.sqrt(terms))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x `[tokens, d_model]` -> (ĝ¹, ĝ²) `[tokens, heads, n]`, own or of the group's first layer."""
        routing = self.shared
        assert isinstance(routing, Routing)
        if self.router is not None:
            g1, g2 = self.router(x)
            routing.gates = g1, g2
            if self.training:
                self.auxiliary = _losses(self.on_text(g1), self.on_text(g2))
        gates = routing.gates
        if gates is None or len(gates[0]) != len(x):
            raise RuntimeError("the first layer of this routing group has not seen these tokens: run the whole model")
        return gates

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """σ(Ux + b): what i contributes and what j does. Horizontal: all of it, and nothing `[tokens, n, 0]`; vertical:
        a half `[tokens, n, m/2]` each."""
        h = ACTIVATIONS[self.activation](torch.addmm(self.b, x, self.u.T))
        if self.vertical:
            first, second = h.chunk(2, dim=1)
            return first.view(-1, self.n, self.m // 2), second.view(-1, self.n, self.m // 2)
        h = h.view(-1, self.n, self.m)
        return h, h[..., :0]

    def fused(self, x: Tensor) -> Tensor:
        g1, g2 = self.route(x)
        h1, h2 = self.hidden(x)
        from_i = g2.transpose(1, 2) @ (g1 @ h1)  # [tokens, n of j, ·]: Σ_h ĝ²_hj Σ_i ĝ¹_hi h¹_i
        total2 = g2.sum(1)
        if not self.vertical:
            return self._written(from_i, total2)
        from_j = g1.transpose(1, 2) @ (g2 @ h2)
        total1 = g1.sum(1)
        left = torch.cat([total1[..., None] * h1, from_j], dim=-1)
        right = torch.cat([from_i, total2[..., None] * h2], dim=-1)
        return self._written(left, total1, right, total2)

    def _written(
        self, left: Tensor, left_total: Tensor, right: Tensor | None = None, right_total: Tensor | None = None
    ) -> Tensor:
        """Hidden vectors already summed over the other index `[tokens, n, m]` and sums of values `[tokens, n]`."""
        out = left.flatten(1) @ self.v1.T + left_total @ self.c1
        if right is None or right_total is None or self.v2 is None or self.c2 is None:
            return out
        return torch.cat([out, right.flatten(1) @ self.v2.T + right_total @ self.c2], dim=1)

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        g1, g2 = self.route(x)
        piece = max(1, _PAIRS_AT_ONCE // self.n_units)
        parts = [
            Codes.from_dense((a.transpose(1, 2) @ b).flatten(1), r)
            for a, b, r in zip(g1.split(piece), g2.split(piece), rows.split(piece), strict=True)
        ]
        return Codes.cat(parts)

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        h1, h2 = self.hidden(x)
        from_i, total2 = self._summed(codes, h1, over="i")
        if not self.vertical:
            return self._written(from_i, total2)
        from_j, total1 = self._summed(codes, h2, over="j")
        left = torch.cat([total1[..., None] * h1, from_j], dim=-1)
        right = torch.cat([from_i, total2[..., None] * h2], dim=-1)
        return self._written(left, total1, right, total2)

    def _summed(self, codes: Codes, h: Tensor, over: Literal["i", "j"]) -> tuple[Tensor, Tensor]:
        """Σ over one index of value · h of that index `[tokens, n, ·]`, and Σ of the values `[tokens, n]`."""
        first = codes.token_of_entry() * self.n  # of the token, among the parts of all tokens
        i, j = first + codes.units // self.n, first + codes.units % self.n
        source, place = (i, j) if over == "i" else (j, i)
        order = place.argsort(stable=True)
        size = codes.n_tokens * self.n
        lengths = torch.bincount(place, minlength=size)
        indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        summed = sparse_dictionary.decode_rows(indptr, source[order], codes.values[order], h.reshape(size, -1))
        totals = codes.values.new_zeros(size).index_add(0, place, codes.values)
        return summed.view(codes.n_tokens, self.n, -1), totals.view(-1, self.n)

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        token, unit = codes.token_of_entry()[entries], codes.units[entries]
        i, j = unit // self.n, unit % self.n
        h1, h2 = self.hidden(x)
        h = torch.cat([h1[token, i], h2[token, j]], dim=-1)  # [entries, m]
        v1 = self.v1.view(-1, self.n, self.m).permute(1, 2, 0)  # [n, m, out]
        if self.v2 is None or self.c2 is None:
            return grouped_product(h, j, v1) + self.c1.index_select(0, j)
        v2 = self.v2.view(-1, self.n, self.m).permute(1, 2, 0)
        left = grouped_product(h, i, v1) + self.c1.index_select(0, i)
        return torch.cat([left, grouped_product(h, j, v2) + self.c2.index_select(0, j)], dim=1)

    def flops_per_token(self) -> int:
        d, wide = self.d_model, self.n * self.m
        routing = 2 * 2 * d * self.heads * self.n if self.router is not None else 0
        # Mixing: two products per index, of all m in all; biases.
        return routing + 2 * 2 * d * wide + 2 * 2 * self.heads * wide + 2 * self.n * d

    def active_parameters(self) -> int:
        return self.parameter_count()


def _losses(g1: Tensor, g2: Tensor) -> dict[str, Tensor]:
    both = torch.cat([g1, g2], dim=1)  # [tokens, 2 · heads, n]
    return {
        "uniformity": -both.mean(0).clamp_min(_LEAST_SHARE).log().mean(),
        "ambiguity": (1 - both.amax(-1)).mean(),
    }


class MonetForCausalLM(TrunkForCausalLM):
    config_class = MonetConfig
    feed_forward_class = Monet


register("monet-hd", MonetForCausalLM, decomposition="horizontal")
register("monet-vd", MonetForCausalLM, decomposition="vertical")
