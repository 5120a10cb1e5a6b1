"""PEER: a million tiny experts found by product keys (arXiv 2407.04153).

Expert i is eᵢ(x) = σ(uᵢᵀx) vᵢ. Each head makes a query [q₁; q₂] from x, finds the k experts of the highest score
q₁ᵀcₐ + q₂ᵀc′_b among N = n² pairs (i = a·n + b, exactly), and gates them: f(x) = Σ_heads Σ_k gate · eᵢ(x) (eqs. 2–4).

Unit: an expert. Its coefficient is (sum of its gates over the heads that retrieved it) · σ(uᵢᵀx), its write vector vᵢ.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import initialization as init

from kernels import product_keys
from kernels.codes import Codes
from kernels.rank1_experts import coefficients, rank1_experts
from models.config import TrunkConfig, check_square
from models.feed_forward import FixedWrites, Role
from models.registry import register
from models.trunk import TrunkForCausalLM, dense_output_std, second_moment


class PeerConfig(TrunkConfig):
    """n_experts: N = n² experts in each layer. heads · k of them are active for a token (fewer where heads agree).

    d_key: width of each half of a query. shared_keys: all heads search the same sub-keys, as in the paper; by default
    each has its own, as in the known implementations, so that heads do not compete for the same experts.

    query_norm: "batch" is the paper's BatchNorm, over all tokens of a batch: in training a query then depends on
    *later* positions (and on other sequences), a leak that evaluation, on running statistics, does not have. "rms", the
    default, scales each head's query by itself: causal, and one function in training and evaluation. The paper's
    figures suggest that this costs little: there BatchNorm bought 0 to 0.1 perplexity, and more even usage.

    gate: softmax over the k scores of each head (the paper's algorithm 1), or sigmoid or relu of each score alone.
    activation: σ. gelu by default, as in `dense`, so that the two differ in the architecture only; a gelu expert never
    is exactly silent, so choose relu where sparsity beyond retrieval is wanted.

    sparse_gradients: in training the tables' gradients are sparse, of the rows touched: for tables so large that
    the optimiser (`kernels.row_sparse_adam`) must not walk through all of them.
    """

    model_type: ClassVar[str] = "peer"
    small: ClassVar[dict[str, Any]] = {"n_experts": 64, "heads": 2, "k": 4, "d_key": 8}

    n_experts: int = 4096
    heads: int = 4  # of retrieval; `n_heads` is attention's
    k: int = 8
    d_key: int = 32
    shared_keys: bool = False
    query_norm: Literal["rms", "batch", "none"] = "rms"
    gate: Literal["softmax", "sigmoid", "relu"] = "softmax"
    activation: Literal["gelu", "relu", "silu", "relu2"] = "gelu"
    sparse_gradients: bool = False

    @property
    def n_sub_keys(self) -> int:
        return math.isqrt(self.n_experts)

    def check(self) -> None:
        super().check()
        n = self.n_sub_keys
        check_square("n_experts", self.n_experts)
        if self.k > n:
            raise ValueError(
                f"k={self.k} exceeds the n={n} sub-keys per half of n_experts={self.n_experts}; nearest: {n}"
            )
        if self.k == 1 and self.gate == "softmax":
            raise ValueError("k=1 with gate='softmax' gates by 1 always, so the router cannot learn; nearest: k=2")


class Peer(FixedWrites):
    roles: Mapping[str, Role] = {
        "query.weight": "router",
        "keys1": "router",
        "keys2": "router",
        "u": "table",
        "v": "table",
    }

    def __init__(self, config: PeerConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        self.n_units = config.n_experts
        self.heads, self.k, self.d_key = config.heads, config.k, config.d_key
        self.gate, self.activation = config.gate, config.activation
        self.sparse_gradients = config.sparse_gradients
        self.query = nn.Linear(config.d_model, config.heads * 2 * config.d_key, bias=False)
        self.query_norm: nn.Module | None = None
        if config.query_norm == "rms":
            self.query_norm = nn.RMSNorm(2 * config.d_key, eps=config.norm_eps)
        elif config.query_norm == "batch":
            self.query_norm = nn.BatchNorm1d(config.heads * 2 * config.d_key)
        key_heads = 1 if config.shared_keys else config.heads
        self.keys1 = nn.Parameter(torch.empty(key_heads, config.n_sub_keys, config.d_key))
        self.keys2 = nn.Parameter(torch.empty(key_heads, config.n_sub_keys, config.d_key))
        self.u = nn.Parameter(torch.empty(config.n_experts, config.d_model))
        self.v = nn.Parameter(torch.empty(config.n_experts, config.d_model))

    @torch.no_grad()
    def init_weights(self, config: TrunkConfig) -> None:
        """Sub-keys: a whole key [c; c′] has norm about 1, so a score of a normalised query has variance 1. u: rows of
        norm about 1, so uᵀx has variance 1. v: such that the layer's output starts as large as a dense one's."""
        assert isinstance(config, PeerConfig)
        key_std = (2 * self.d_key) ** -0.5
        init.normal_(self.keys1, std=key_std)
        init.normal_(self.keys2, std=key_std)
        init.normal_(self.u, std=config.d_model**-0.5)
        # The terms of the sum are independent: Var(output) = heads · E[Σ_k gate²] · E[σ(z)²] · Var(v).
        query_std = 1.0 if self.query_norm is not None else config.initializer_range * math.sqrt(config.d_model)
        gates = self._gates(typical_scores(config.n_sub_keys, self.k) * query_std)
        terms = self.heads * float(gates.square().sum()) * second_moment(self.activation)
        init.normal_(self.v, std=dense_output_std(config) / math.sqrt(terms))

    def _gates(self, scores: Tensor) -> Tensor:
        if self.gate == "softmax":
            return scores.softmax(dim=-1)
        return scores.sigmoid() if self.gate == "sigmoid" else scores.relu()

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x `[tokens, d_model]` -> the retrieved experts and their gates, both `[tokens, heads · k]`."""
        q = self.query(x)
        if isinstance(self.query_norm, nn.BatchNorm1d):
            q = self.query_norm(q)
        q = q.view(-1, self.heads, 2 * self.d_key)
        if isinstance(self.query_norm, nn.RMSNorm):
            q = self.query_norm(q)
        q1, q2 = q.split(self.d_key, dim=-1)
        scores, indices = product_keys.search(q1, q2, self.keys1, self.keys2, self.k)  # [tokens, heads, k]
        return indices.flatten(1), self._gates(scores).flatten(1)

    def fused(self, x: Tensor) -> Tensor:
        indices, gates = self.route(x)
        return rank1_experts(x, self.u, self.v, indices, gates, self.activation, sparse_gradients=self.sparse_gradients)

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        indices, gates = self.route(x)
        return Codes.from_slots(indices, coefficients(x, self.u, indices, gates, self.activation), rows, self.n_units)

    def write_vectors(self) -> Tensor:
        return self.v

    def flops_per_token(self) -> int:
        d = self.u.shape[1]
        query = 2 * self.query.in_features * self.query.out_features
        sub_keys = 2 * self.heads * 2 * self.keys1.shape[1] * self.d_key
        return query + sub_keys + 2 * 2 * self.heads * self.k * d

    def active_parameters(self) -> int:
        """Every sub-key is scored; of the experts, heads · k rows of u and of v (all, where there are fewer)."""
        tables = self.u.numel() + self.v.numel()
        return self.parameter_count() - tables + 2 * min(self.heads * self.k, self.n_units) * self.u.shape[1]


def typical_scores(n: int, k: int) -> Tensor:
    """`[k]` float64: the k largest of the n² sums of two sets of n normal numbers whose sum has variance 1.

    Made from each set's expected order statistics (Blom: the r-th of n is about Φ⁻¹ at (r − 3/8)/(n + 1/4)).
    """
    ranks = torch.arange(1, k + 1, dtype=torch.float64, device="cpu")
    half = torch.special.ndtri(1 - (ranks - 0.375) / (n + 0.25)) / math.sqrt(2)
    return (half[:, None] + half[None, :]).flatten().topk(k).values


class PeerForCausalLM(TrunkForCausalLM):
    config_class = PeerConfig
    feed_forward_class = Peer


register("peer", PeerForCausalLM)
