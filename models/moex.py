"""Mixture of whole MLPs whose neurons are the units: MoE-X (arXiv 2503.07639) and the plain Switch-style layer.

Expert e is W_out,e act(W_in,e x). The k experts of the highest score s_e(x) are taken, their gates ω are the softmax of
their scores: f(x) = Σ ω_e · expert_e(x). Two switches, four layers (the paper's 2×2 ablation):

- router "linear": s = W x (with `activation="gelu"`, this is `switch`).
- router "sparsity" (with relu, `moex`): with the rows of W_in,e taken as draws from N(μ_e, diag σ_e²), a neuron of the
  expert fires with P(h > 0) = ½(1 + erf(μ_eᵀx / √(2 (σ_e²)ᵀ x²))), so s_e = −erf(·) ranks the sparsest expert first. It
  has no parameters of its own: the gradient through ω moves the experts' own input rows. The form was matched against
  one third-party reimplementation only; we could not read the paper's equations.

Losses: balance, E · Σ_e f_e P_e with f the share of choices and P the mean of softmax(s) over all experts (Switch,
arXiv 2101.03961, eq. 4); z, the mean of logsumexp(s)² (ST-MoE, arXiv 2202.08906, eq. 5), for the linear router only, as
the scores of the other lie in [−1, 1]. For the sparsity router the balance loss is ours [U: the paper's is unknown].

Unit: neuron m of expert e, number e · d_expert + m; its coefficient gate · act(w_inᵀx), its write vector its column of
W_out. Tokens are sorted by expert: one product per expert, and no token is dropped.
"""

from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from kernels.codes import Codes
from models.config import TrunkConfig
from models.dense import DenseForCausalLM
from models.feed_forward import FixedWrites
from models.grouped import TokenGroups
from models.registry import register
from models.trunk import ACTIVATIONS, TrunkForCausalLM

_LEAST_VARIANCE = 1e-12


class MoexConfig(TrunkConfig):
    """n_experts, of which a token uses k. d_expert: neurons of an expert; None: 4·d_model / k, so that a token uses as
    many neurons as a dense layer of width 4·d_model has."""

    model_type: ClassVar[str] = "moex"
    small: ClassVar[dict[str, Any]] = {"n_experts": 4, "d_expert": 16}
    zero_allowed: ClassVar[frozenset[str]] = frozenset({"balance_coefficient", "z_coefficient"})

    n_experts: int = 8
    k: int = 2
    d_expert: int | None = None
    router: Literal["sparsity", "linear"] = "sparsity"
    activation: Literal["relu", "gelu", "silu", "relu2"] = "relu"
    balance_coefficient: float = 1e-2
    z_coefficient: float = 1e-3

    def check(self) -> None:
        super().check()
        if self.k > self.n_experts:
            raise ValueError(f"k={self.k} exceeds n_experts={self.n_experts}; nearest: {self.n_experts}")
        if self.k == 1:
            raise ValueError("k=1 gates by 1 always, so the router cannot learn; nearest: k=2")
        if self.d_expert is None:
            self.d_expert = 4 * self.d_model // self.k


class Expert(nn.Module):
    """Its matrices are its own and not slices of a stack, so that Muon orthogonalises each by itself."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.w_in = nn.Linear(d_model, width, bias=False)
        self.w_out = nn.Linear(width, d_model, bias=False)
        self.w_out.writes_residual = True  # pyright: ignore[reportArgumentType] (a mark for _init_weights)


class Moex(FixedWrites):
    def __init__(self, config: MoexConfig, layer_index: int, shared: nn.Module | None) -> None:
        super().__init__(config, layer_index, shared)
        assert config.d_expert is not None, "MoexConfig.check fills it"
        self.n_experts, self.k, self.width = config.n_experts, config.k, config.d_expert
        self.n_units, self.group_width = config.n_experts * config.d_expert, config.d_expert
        self.activation = config.activation
        self.d_model = config.d_model
        self.experts = nn.ModuleList(Expert(config.d_model, config.d_expert) for _ in range(config.n_experts))
        self.router = nn.Linear(config.d_model, config.n_experts, bias=False) if config.router == "linear" else None
        # The layer's own: with the sparsity router there is no such parameter.
        self.roles = {} if self.router is None else {"router.weight": "router"}

    def _each(self) -> list[Expert]:
        return cast(list[Expert], list(self.experts))

    def scores(self, x: Tensor) -> Tensor:
        """x `[tokens, d_model]` -> `[tokens, n_experts]`"""
        if self.router is not None:
            return self.router(x)
        means = torch.stack([expert.w_in.weight.mean(0) for expert in self._each()])  # [n_experts, d_model]
        variances = torch.stack([expert.w_in.weight.var(0, correction=0) for expert in self._each()])
        spread = (2 * x.square() @ variances.T).clamp_min(_LEAST_VARIANCE).sqrt()
        return -torch.erf(x @ means.T / spread)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x `[tokens, d_model]` -> the chosen experts and their gates, both `[tokens, k]`."""
        scores = self.scores(x)
        best, experts = scores.topk(self.k, dim=-1)
        if self.training:
            counted, taken = self.on_text(scores), self.on_text(experts)
            chosen = torch.bincount(taken.flatten(), minlength=self.n_experts).to(x.dtype) / taken.numel()
            self.auxiliary["balance"] = self.n_experts * (chosen * counted.softmax(-1).mean(0)).sum()
            if self.router is not None:
                self.auxiliary["z"] = counted.logsumexp(-1).square().mean()
        return experts, best.softmax(-1)

    def _neurons(self, x: Tensor, groups: TokenGroups) -> list[Tensor]:
        """act(W_in x) of every expert on the tokens that chose it."""
        visits = x.repeat_interleave(self.k, dim=0)  # [tokens · k, d_model]
        activate = ACTIVATIONS[self.activation]
        return [activate(expert.w_in(x)) for expert, x in zip(self._each(), groups.split(visits), strict=True)]

    def fused(self, x: Tensor) -> Tensor:
        experts, gates = self.route(x)
        groups = TokenGroups.of(experts.flatten(), self.n_experts)
        parts = [expert.w_out(h) for expert, h in zip(self._each(), self._neurons(x, groups), strict=True)]
        return (groups.join(parts).view(*gates.shape, -1) * gates[..., None]).sum(1)

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        experts, gates = self.route(x)
        groups = TokenGroups.of(experts.flatten(), self.n_experts)
        h = groups.join(self._neurons(x, groups))
        values = (h.view(*gates.shape, self.width) * gates[..., None]).flatten(1)  # [tokens, k · width]
        units = experts[..., None] * self.width + torch.arange(self.width, device=x.device)
        return Codes.from_slots(units.flatten(1), values, rows, self.n_units)

    def write_vectors(self) -> Tensor:
        return torch.cat([expert.w_out.weight.T for expert in self._each()])

    def flops_per_token(self) -> int:
        routing = self.n_experts * self.d_model * (1 if self.router is not None else 2)  # sparsity: means and variances
        return 2 * routing + 2 * 2 * self.k * self.width * self.d_model

    def active_parameters(self) -> int:
        """The router and k experts. (The sparsity router looks at two vectors per expert, made of its rows.)"""
        idle = (self.n_experts - self.k) * 2 * self.width * self.d_model
        return self.parameter_count() - idle


class MoexForCausalLM(TrunkForCausalLM):
    config_class = MoexConfig
    feed_forward_class = Moex


@torch.no_grad()
def upcycle(
    dense: DenseForCausalLM, *, n_experts: int = 8, noise: float = 0.01, generator: torch.Generator, **settings
) -> MoexForCausalLM:
    """A mixture that starts from a trained dense model: a confound, to be reported as such.

    Everything outside the feed-forward layers is copied; every expert is a copy of the whole dense layer (sparse
    upcycling, arXiv 2212.05055; how MoE-X does it in detail we could not read), so that with `noise` 0 and the dense
    model's activation the model computes what the dense one does. noise: added to W_in, relative to its standard
    deviation: without it all experts score alike and only the first k would ever be used.

    settings: further ones of `MoexConfig`; those of the trunk and d_expert are the dense model's. Raises ValueError for
    a swiglu or solu model, whose neurons are not act(w_inᵀx).
    """
    if dense.config.activation not in ("gelu", "relu"):
        raise ValueError(f"activation={dense.config.activation!r} cannot be upcycled: use one of gelu, relu")
    trunk = {name: getattr(dense.config, name) for name in TrunkConfig.settings()}
    activation = {"activation": dense.config.activation}
    config = MoexConfig(**{**activation, **settings, **trunk, "n_experts": n_experts, "d_expert": dense.config.d_ff})
    model = MoexForCausalLM(config)
    kept = {name: value for name, value in dense.state_dict().items() if ".feed_forward." not in name}
    model.load_state_dict(kept, strict=False)
    for source, target in zip(dense.feed_forwards(), model.feed_forwards(), strict=True):
        inward = cast(nn.Linear, source.w_in).weight
        outward = cast(nn.Linear, source.w_out).weight
        for expert in cast(list[Expert], list(cast(Moex, target).experts)):
            drawn = torch.randn(inward.shape, generator=generator, dtype=inward.dtype)
            expert.w_in.weight.copy_(inward + noise * inward.std() * drawn.to(inward.device))
            expert.w_out.weight.copy_(outward)
    return model


register("moex", MoexForCausalLM)
register("switch", MoexForCausalLM, router="linear", activation="gelu")
