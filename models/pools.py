"""Expert pools: a router picks a few pools for a token, product keys find a few rank-1 experts inside them.

This is our own architecture. For a token x:

1. The pool router scores pools, ℓ = W x, and the `pools_per_token` best are visited. With `super_pools`, pools stand in
   equal groups; the best groups are chosen first, and only their pools can be.
2. Every head asks a query q (as in PEER, normalised, the same for all pools) in every visited pool, against that pool's
   own sub-keys. Expert e scores z_e = q₁·k_a + q₂·k′_b, exactly searched.
3. Over all heads and visited pools together, the `max_experts` slots of the largest z_e + log σ(ℓ_pool) are kept.
4. w = M · softmax(z over the kept slots), M = `max_experts`, so 1 is an even share. A JumpReLU gate closes the slots of
   w ≤ θ_pool: gate = w · 1[w > θ] · 2σ(ℓ_pool). So a token uses at most M experts, and fewer where a few suffice.
5. f(x) = Σ gate_e · act(u_eᵀx) v_e + side(x), side an MLP of width `side_width`, its weights tied across layers: it
   takes what no expert should. It belongs to no unit (`rest`), so by default there is none: with 128 neurons it took
   over: an audit found that zeroing all experts cost 6% of what zeroing the layers cost.

Gates multiply what experts write, so routers, queries and keys learn from the cross entropy; θ (stored as a logarithm)
learns through a rectangle around the jump (arXiv 2407.14435, eq. 11). Without a sparsity loss nothing pushes θ up.

Losses [U: ours], for pools on P = softmax(ℓ): balance n_pools · Σ f_p P̄_p with f the share of visits, z the mean of
logsumexp(ℓ)²; with super-pools, the mean of both levels. For experts: balance N · Σ f_e w̄_e with f the share of slots
and w̄ the mean of their softmax; z the mean of logsumexp(z over kept slots)².

Unit: an expert, number pool · experts_per_pool + index in the pool; coefficient (its gates summed over heads) ·
act(uᵀx), write vector v. Flat PEER is `pools` = 1 (no pool router then).
"""

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from kernels import product_keys
from kernels.codes import Codes
from kernels.rank1_experts import coefficients, rank1_experts
from models.config import TrunkConfig, check_square, nearest_numbers
from models.feed_forward import FixedWrites, Role
from models.grouped import TokenGroups
from models.registry import register
from models.trunk import TrunkForCausalLM, dense_output_std, second_moment

START_THRESHOLD = 0.5  # of an even share: at first nearly all slots are open
BANDWIDTH = 0.4  # width of the rectangle through which θ learns, in the same unit


class PoolsConfig(TrunkConfig):
    """pools of experts_per_pool = n² experts each; pools_per_token of them are visited, by `heads` queries, each two
    halves of width d_key. max_experts: the most experts of a token, over all heads and pools.

    super_pools: groups of pools for the second level, None: one level; super_pools_per_token of them are open.
    side_width: of the tied side MLP (gelu); 0: none. activation: as in `peer`, and gelu for the same reason.
    sparse_gradients: as in `peer`.
    """

    model_type: ClassVar[str] = "pools"
    small: ClassVar[dict[str, Any]] = {
        "pools": 4,
        "experts_per_pool": 16,
        "max_experts": 6,
        "d_key": 8,
        "side_width": 8,
    }
    zero_allowed: ClassVar[frozenset[str]] = frozenset(
        {
            "side_width",
            "pool_balance_coefficient",
            "pool_z_coefficient",
            "expert_balance_coefficient",
            "expert_z_coefficient",
        }
    )

    pools: int = 16
    pools_per_token: int = 2
    experts_per_pool: int = 256
    max_experts: int = 12
    heads: int = 2
    d_key: int = 32
    super_pools: int | None = None
    super_pools_per_token: int = 1
    side_width: int = 0
    activation: Literal["gelu", "relu", "silu", "relu2"] = "gelu"
    pool_balance_coefficient: float = 1e-2
    pool_z_coefficient: float = 1e-3
    expert_balance_coefficient: float = 1e-2
    expert_z_coefficient: float = 1e-4
    sparse_gradients: bool = False

    def check(self) -> None:
        super().check()
        check_square("experts_per_pool", self.experts_per_pool)
        groups = 1
        if self.super_pools is not None:
            if self.pools % self.super_pools:
                divisors = [n for n in range(1, self.pools + 1) if self.pools % n == 0]
                raise ValueError(
                    f"super_pools={self.super_pools} does not divide pools={self.pools}; "
                    f"{nearest_numbers(self.super_pools, divisors)}"
                )
            _at_most("super_pools_per_token", self.super_pools_per_token, self.super_pools, "super_pools")
            groups = self.super_pools
        reachable = self.pools // groups * (self.super_pools_per_token if self.super_pools else 1)
        _at_most("pools_per_token", self.pools_per_token, reachable, "pools that a token can reach")
        experts = self.pools_per_token * self.experts_per_pool
        _at_most("max_experts", self.max_experts, experts, "experts of the pools that a token visits")
        if self.max_experts == 1:
            raise ValueError("max_experts=1 gates by the pool alone, so queries cannot learn; nearest: max_experts=2")


def _at_most(name: str, value: int, most: int, what: str) -> None:
    if value > most:
        raise ValueError(f"{name}={value} exceeds the {most} {what}; nearest: {most}")


class JumpGate(torch.autograd.Function):
    """w · 1[w > θ], elementwise; the gradient to θ is −θ/ε where |w − θ| < ε/2, times that of the output."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(w, threshold)
        return w * (w > threshold)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        w, threshold = ctx.saved_tensors
        near = (w - threshold).abs() < BANDWIDTH / 2
        return gradient * (w > threshold), -gradient * near * threshold / BANDWIDTH


class SideMLP(nn.Module):
    """One for all layers."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.w_in = nn.Linear(d_model, width, bias=False)
        self.w_out = nn.Linear(width, d_model, bias=False)
        self.w_out.writes_residual = True  # pyright: ignore[reportArgumentType] (a mark for _init_weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_out(F.gelu(self.w_in(x)))


class Pools(FixedWrites):
    def __init__(self, config: PoolsConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        self.n_pools, self.per_pool, self.visits = config.pools, config.experts_per_pool, config.pools_per_token
        self.n_super, self.open_super = config.super_pools, config.super_pools_per_token
        self.n_units = self.n_pools * self.per_pool
        self.rest_neurons = config.side_width
        self.group_width = self.per_pool if self.n_pools > 1 else None
        self.heads, self.d_key, self.max_experts = config.heads, config.d_key, config.max_experts
        self.activation, self.sparse_gradients = config.activation, config.sparse_gradients
        self.pool_router = nn.Linear(config.d_model, config.pools, bias=False) if config.pools > 1 else None
        self.super_router = nn.Linear(config.d_model, config.super_pools, bias=False) if config.super_pools else None
        self.query = nn.Linear(config.d_model, config.heads * 2 * config.d_key, bias=False)
        self.query_norm = nn.RMSNorm(2 * config.d_key, eps=config.norm_eps)
        n = math.isqrt(config.experts_per_pool)
        self.keys1 = nn.Parameter(torch.empty(config.pools, config.heads, n, config.d_key))
        self.keys2 = nn.Parameter(torch.empty(config.pools, config.heads, n, config.d_key))
        self.log_threshold = nn.Parameter(torch.empty(config.pools))
        self.u = nn.Parameter(torch.empty(self.n_units, config.d_model))
        self.v = nn.Parameter(torch.empty(self.n_units, config.d_model))
        roles: dict[str, Role] = dict.fromkeys(("query.weight", "keys1", "keys2"), "router")
        roles |= {"u": "table", "v": "table"}
        if self.pool_router is not None:
            roles["pool_router.weight"] = "router"
        if self.super_router is not None:
            roles["super_router.weight"] = "router"
        self.roles = roles  # which routers there are depends on the config

    @classmethod
    def build_shared(cls, config: TrunkConfig) -> nn.Module | None:
        assert isinstance(config, PoolsConfig)
        return SideMLP(config.d_model, config.side_width) if config.side_width else None

    @torch.no_grad()
    def init_weights(self, config: TrunkConfig) -> None:
        """Keys and u as in `peer`; v such that the experts' sum starts as large as a dense layer's output."""
        assert isinstance(config, PoolsConfig)
        key_std = (2 * self.d_key) ** -0.5
        init.normal_(self.keys1, std=key_std)
        init.normal_(self.keys2, std=key_std)
        init.constant_(self.log_threshold, math.log(START_THRESHOLD))
        init.normal_(self.u, std=config.d_model**-0.5)
        # Scores are about normal with variance 1; of so many, the largest are about these (Blom).
        candidates = self.visits * self.heads * self.per_pool
        ranks = torch.arange(1, self.max_experts + 1, dtype=torch.float64, device="cpu")
        gates = self.max_experts * torch.special.ndtri(1 - (ranks - 0.375) / (candidates + 0.25)).softmax(0)
        terms = float((gates * (gates > START_THRESHOLD)).square().sum()) * second_moment(self.activation)
        init.normal_(self.v, std=dense_output_std(config) / math.sqrt(terms))

    def pool_of_unit(self) -> Tensor:
        """`[n_units]` int64"""
        return torch.arange(self.n_units, device=self.u.device) // self.per_pool

    def _visited(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x `[tokens, d_model]` -> visited pools and their gates 2σ(ℓ), both `[tokens, visits]`."""
        if self.pool_router is None:
            return x.new_zeros(len(x), 1, dtype=torch.long), x.new_ones(len(x), 1)
        logits = self.pool_router(x)
        routers = []
        allowed = logits
        gates = 2 * logits.sigmoid()
        if self.super_router is not None and self.n_super is not None:
            group_logits = self.super_router(x)  # [tokens, super_pools]
            groups = group_logits.topk(self.open_super, dim=-1).indices
            of_pool = torch.arange(self.n_pools, device=x.device) // (self.n_pools // self.n_super)
            closed = torch.ones_like(group_logits, dtype=torch.bool).scatter(1, groups, False)
            allowed = logits.masked_fill(closed.index_select(1, of_pool), -math.inf)
            gates = gates * 2 * group_logits.sigmoid().index_select(1, of_pool)
            routers.append((group_logits, groups))
        pools = allowed.topk(self.visits, dim=-1).indices
        if self.training:
            routers.append((logits, pools))
            routers = [(self.on_text(scores), self.on_text(chosen)) for scores, chosen in routers]
            balance = [_balance(chosen, scores.softmax(-1).mean(0)) for scores, chosen in routers]
            self.auxiliary["pool_balance"] = torch.stack(balance).mean()
            self.auxiliary["pool_z"] = torch.stack([s.logsumexp(-1).square().mean() for s, _ in routers]).mean()
        return pools, gates.gather(1, pools)

    def _candidates(self, x: Tensor, pools: Tensor) -> tuple[Tensor, Tensor]:
        """The best `max_experts` (or all) experts of every head in every visited pool: scores, units
        `[tokens, visits · heads · k]`."""
        k = min(self.max_experts, self.per_pool)
        q = self.query_norm(self.query(x).view(-1, self.heads, 2 * self.d_key))
        groups = TokenGroups.of(pools.flatten(), self.n_pools)
        found = [
            product_keys.search(here[..., : self.d_key], here[..., self.d_key :], keys1, keys2, k)
            for here, keys1, keys2 in zip(
                groups.split(q.repeat_interleave(self.visits, dim=0)),
                self.keys1.unbind(),
                self.keys2.unbind(),
                strict=True,
            )
        ]
        scores = groups.join([scores for scores, _ in found]).view(len(x), -1)
        indices = groups.join([indices for _, indices in found]).view(len(x), self.visits, -1)
        return scores, (pools[..., None] * self.per_pool + indices).flatten(1)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x `[tokens, d_model]` -> units and gates, both `[tokens, max_experts]`; a closed slot has gate 0."""
        pools, pool_gates = self._visited(x)
        scores, units = self._candidates(x, pools)
        pool_gates = pool_gates.repeat_interleave(scores.shape[1] // self.visits, dim=1)
        best = (scores + pool_gates.log()).topk(self.max_experts, dim=1).indices
        scores, units, pool_gates = scores.gather(1, best), units.gather(1, best), pool_gates.gather(1, best)
        shares = scores.softmax(-1)
        thresholds = self.log_threshold.exp().index_select(0, (units // self.per_pool).flatten()).view_as(shares)
        gates: Tensor = JumpGate.apply(self.max_experts * shares, thresholds)  # pyright: ignore[reportAssignmentType]
        if self.training:
            taken, shared = self.on_text(units), self.on_text(shares)
            mean = shares.new_zeros(self.n_units).index_add(0, taken.flatten(), shared.flatten()) / len(taken)
            self.auxiliary["expert_balance"] = _balance(taken, mean)
            self.auxiliary["expert_z"] = self.on_text(scores).logsumexp(-1).square().mean()
        return units, gates * pool_gates

    def fused(self, x: Tensor) -> Tensor:
        units, gates = self.route(x)
        out = rank1_experts(x, self.u, self.v, units, gates, self.activation, sparse_gradients=self.sparse_gradients)
        return out if self.shared is None else out + self.shared(x)

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        units, gates = self.route(x)
        return Codes.from_slots(units, coefficients(x, self.u, units, gates, self.activation), rows, self.n_units)

    def write_vectors(self) -> Tensor:
        return self.v

    def rest(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) if self.shared is None else self.shared(x)

    def flops_per_token(self) -> int:
        d = self.u.shape[1]
        routers = [self.query, self.pool_router, self.super_router]
        routing = sum(2 * linear.in_features * linear.out_features for linear in routers if linear is not None)
        sub_keys = 2 * self.visits * self.heads * 2 * self.keys1.shape[2] * self.d_key
        side = sum(2 * p.numel() for p in self.shared.parameters()) if self.shared is not None else 0
        return routing + sub_keys + 2 * 2 * self.max_experts * d + side

    def active_parameters(self) -> int:
        """Routers, queries, the sub-keys and thresholds of the visited pools, max_experts rows of u and v. The side MLP
        is the model's, counted once."""
        idle_pools = (self.n_pools - self.visits) * (2 * self.keys1[0].numel() + 1)
        tables = self.u.numel() + self.v.numel()
        return self.parameter_count() - idle_pools - tables + 2 * self.max_experts * self.u.shape[1]


def _balance(chosen: Tensor, mean: Tensor) -> Tensor:
    """n · Σ f · mean: chosen `[tokens, ·]` int64 in [0, n), mean `[n]` the mean probability of each. 1 where even."""
    share = torch.bincount(chosen.flatten(), minlength=len(mean)).to(mean.dtype) / chosen.numel()
    return len(mean) * (share * mean).sum()


class PoolsForCausalLM(TrunkForCausalLM):
    config_class = PoolsConfig
    feed_forward_class = Pools


register("pools", PoolsForCausalLM)
