"""What every dictionary in training shares: config, parameters, the step's loss, usage statistics, export.

A kind of dictionary (a file beside this one) says how latents are selected and which are under-used; the rest is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.sparse_dictionary import preactivations
from saes.auxiliary import auxiliary_loss, silent
from saes.dictionary import Dictionary, EncoderDecoder, Weights

Frozen = Literal["none", "encoder", "decoder"]


@dataclass(frozen=True)
class Shape:
    """Widths of what a dictionary reads and writes. An autoencoder writes what it reads, a transcoder something else;
    skip: with a linear map beside it. Raises ValueError for an autoencoder of two widths."""

    d_in: int
    d_out: int
    transcoder: bool = False
    skip: bool = False

    def __post_init__(self) -> None:
        if not self.transcoder and self.d_in != self.d_out:
            raise ValueError(
                f"an autoencoder needs a site with one width, this one reads {self.d_in} and writes {self.d_out}"
            )


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig(ABC):
    """What all dictionaries are configured by. Raises ValueError on values that cannot be."""

    n_latents: int = field(default=1024, metadata={"doc": "Width: number of latents."})
    k: float = field(default=32, metadata={"doc": "Target L0: latents that fire per token, on average."})
    lr: float = field(default=5e-3, metadata={"doc": "Peak learning rate of Adam."})
    aux_coefficient: float = field(default=1 / 32, metadata={"doc": "Weight of the auxiliary loss; 0 turns it off."})
    k_aux: int | None = field(
        default=None,
        metadata={"doc": "Under-used latents per token in the auxiliary loss; None: half the input width."},
    )
    dead_after_tokens: int = field(
        default=100_000,
        metadata={"doc": "A latent silent for this many training tokens is dead; densities are averaged over as many."},
    )
    frozen: Frozen = field(
        default="none",
        metadata={"doc": "encoder or decoder: a control; its matrix stays random, as drawn, and the rest learns."},
    )

    def __post_init__(self) -> None:
        if self.frozen not in get_args(Frozen):
            raise ValueError(f"frozen {self.frozen!r}: must be one of {', '.join(get_args(Frozen))}")
        for name in ("n_latents", "lr", "dead_after_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)}: must be above 0")
        if not 0 < self.k <= self.n_latents:
            raise ValueError(f"k {self.k}: must be above 0 and at most n_latents {self.n_latents}")
        if self.k_aux is not None and not 0 < self.k_aux <= self.n_latents:
            raise ValueError(f"k_aux {self.k_aux}: must be above 0 and at most n_latents {self.n_latents}")
        if self.aux_coefficient < 0:
            raise ValueError(f"aux_coefficient {self.aux_coefficient}: must be 0 or above")

    @property
    def transcodes(self) -> bool:
        """Whether it learns a target that is not its input."""
        return False

    def notes(self) -> list[str]:
        """What a reader of the row must know of this configuration."""
        notes = [] if self.frozen == "none" else [f"a control: the {self.frozen} stays random, as drawn"]
        return notes if self.aux_coefficient else [*notes, "no auxiliary loss: a latent that dies cannot come back"]

    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose code trains it: a change there makes another dictionary."""
        return (type(self).__module__,)

    @abstractmethod
    def build(self, shape: Shape, generator: torch.Generator) -> TrainingModule:
        """The dictionary to train, initialised from `generator`."""


@dataclass(frozen=True)
class Standardisation:
    """x ↦ (x − mean) · scale, so that the mean is 0 and E‖x‖ = √d. mean `[d]`."""

    mean: Tensor
    scale: float

    @staticmethod
    def of(x: Tensor) -> Standardisation:
        """Estimated on `x` `[tokens, d]`, in float64. Raises ValueError when all tokens are equal."""
        wide = x.double()
        mean = wide.mean(0)
        norm = float((wide - mean).norm(dim=1).mean())
        if norm == 0.0:
            raise ValueError("activations are the same on every token: there is nothing to learn")
        return Standardisation(mean.to(x.dtype), x.shape[1] ** 0.5 / norm)

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale

    def undo(self, x: Tensor) -> Tensor:
        return x / self.scale + self.mean


@dataclass(frozen=True)
class Selected:
    """What a selection made of a batch: its part of the reconstruction and which latents it used."""

    decoded: Tensor  # [tokens, d_out], without bias
    fired: Tensor  # [n_latents] int64: on how many tokens of the batch each latent was positive
    slots: int  # (token, latent) pairs that were decoded, fired or not: what the products cost
    penalty: Tensor | None = None  # scalar added to the loss (L1); None for selections that fix L0 themselves
    prefixes: tuple[Tensor, ...] = ()  # [tokens, d_out] each: what nested parts decode, which must reconstruct as well


@dataclass(frozen=True)
class StepResult:
    """One forward pass in training. Scalars are tensors, so that reading them is the caller's choice."""

    loss: Tensor  # to call backward on: reconstruction + beside
    beside: Tensor  # its other terms (auxiliary, penalty), for objectives that replace the first; has gradients
    output: Tensor  # t̂ [tokens, d_out], standardised; has gradients
    reconstruction: Tensor  # ‖t − t̂‖² / ‖t − t̄‖² over the batch, which is 1 − explained variance
    auxiliary: Tensor  # before its coefficient; 0 when no latent is under-used
    fired: Tensor  # [n_latents] int64
    tokens: int
    flops: float  # of forward and backward; see TrainingDictionary.flops
    slots: int = 0  # (token, latent) pairs that the main selection decoded

    def without_graph(self) -> StepResult:
        """The same figures, not holding the batch's graph in memory."""
        return replace(self, loss=self.loss.detach(), beside=self.beside.detach(), output=self.output.detach())

    @property
    def l0(self) -> Tensor:
        return self.fired.sum() / self.tokens


class TrainingModule(nn.Module, ABC):
    """What the trainer needs of a dictionary: a loss on standardised activations, and a dictionary at the end.

    Keeps how each latent was used, in buffers, so that `state_dict` and the optimiser's state are all there is to
    resume from.
    """

    # Whether its thresholds are set on held-out activations when training ends.
    calibrates: bool = False

    def __init__(self, config: DictionaryConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.d_in, self.d_out, self.transcoder = shape.d_in, shape.d_out, shape.transcoder
        self.tokens_since_fired: Tensor
        self.density_sum: Tensor
        self.density_weight: Tensor
        self.register_buffer("tokens_since_fired", torch.zeros(config.n_latents, dtype=torch.long))
        self.register_buffer("density_sum", torch.zeros(config.n_latents, dtype=torch.float64))
        self.register_buffer("density_weight", torch.zeros((), dtype=torch.float64))

    @abstractmethod
    def step(self, x: Tensor, target: Tensor) -> StepResult:
        """Loss of a batch: x `[tokens, d_in]`, target `[tokens, d_out]`, both standardised. Changes no state."""

    @abstractmethod
    def inference(self, x: Standardisation, target: Standardisation, held_out: Tensor | None) -> Dictionary:
        """The dictionary as it stands, for raw activations. held_out: raw inputs `[tokens, d_in]` to set thresholds
        on, not None where `calibrates`."""

    def prepare(self, progress: float) -> None:
        """Called before every step with the share of the training tokens already seen (0 to 1)."""

    def before_update(self) -> None:
        """Called when gradients are there, before the optimiser steps."""

    def after_update(self) -> None:
        """Called after the optimiser has stepped."""

    @torch.no_grad()
    def note_usage(self, result: StepResult) -> None:
        """Called after every step with its result."""
        self.tokens_since_fired += result.tokens
        self.tokens_since_fired[result.fired > 0] = 0
        kept = 2.718281828459045 ** (-result.tokens / self.config.dead_after_tokens)
        self.density_sum.mul_(kept).add_(result.fired / result.tokens, alpha=1 - kept)
        self.density_weight.mul_(kept).add_(1 - kept)

    def density(self) -> Tensor:
        """`[n_latents]`: share of tokens on which each latent fired, averaged over about `dead_after_tokens` tokens."""
        return self.density_sum / self.density_weight.clamp_min(torch.finfo(torch.float64).tiny)

    def dead_share(self) -> float:
        """Share of latents silent for `dead_after_tokens` training tokens, in training mode."""
        return float(silent(self.tokens_since_fired, self.config.dead_after_tokens).float().mean())


class TrainingDictionary(TrainingModule):
    """Our own dictionaries. An autoencoder has target = x and subtracts its decoder bias from the input; a transcoder
    does not.

    Parameters: W_enc `[d_in, n_latents]`, b_enc `[n_latents]`, W_dec `[n_latents, d_out]` (rows of norm 1 unless the
    kind says otherwise), b_dec `[d_out]`, W_skip `[d_out, d_in]` or none.
    """

    unit_norm_rows = True

    def __init__(self, config: DictionaryConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__(config, shape)
        d_in, d_out = shape.d_in, shape.d_out
        rows = F.normalize(torch.randn(config.n_latents, d_out, generator=generator), dim=1)
        # An autoencoder starts tied. A transcoder reads another space than it writes: its encoder is drawn by itself.
        read = rows
        if shape.transcoder:
            read = F.normalize(torch.randn(config.n_latents, d_in, generator=generator), dim=1)
        self.W_enc = nn.Parameter(read.T.contiguous())
        self.b_enc = nn.Parameter(torch.zeros(config.n_latents))
        self.W_dec = nn.Parameter(rows)
        self.b_dec = nn.Parameter(torch.zeros(d_out))
        self.W_skip = nn.Parameter(torch.zeros(d_out, d_in)) if shape.skip else None
        # Controls (arXiv 2602.14111): a half that stays as it was drawn. Biases and what else a kind has learn.
        if config.frozen == "encoder":
            self.W_enc.requires_grad_(False)
        elif config.frozen == "decoder":
            self.W_dec.requires_grad_(False)

    @property
    def dense(self) -> bool:
        """Whether `select` now uses every pre-activation, with gradients, and not only those it selects."""
        return False

    @abstractmethod
    def select(self, x: Tensor, pre: Tensor) -> Selected:
        """Codes of the batch, decoded. `pre` `[tokens, n_latents]` are the pre-activations of `x`, with gradients if
        `dense` and without otherwise."""

    @abstractmethod
    def inference_form(self, weights: Weights, held_out: Tensor | None) -> EncoderDecoder:
        """The inference dictionary with these weights, which act on raw activations like `held_out`."""

    def under_used(self) -> Tensor:
        """`[n_latents]` bool: the latents that the auxiliary loss teaches. Here the silent ones, which gives aux_k."""
        return silent(self.tokens_since_fired, self.config.dead_after_tokens)

    def encoder(self) -> Tensor:
        """`[d_in, n_latents]`."""
        return self.W_enc

    def output(self, decoded: Tensor, x: Tensor) -> Tensor:
        output = decoded + self.b_dec
        return output if self.W_skip is None else output + x @ self.W_skip.T

    def step(self, x: Tensor, target: Tensor) -> StepResult:
        """Loss = ‖t − t̂‖²/‖t − t̄‖² + aux_coefficient · auxiliary + penalty, with sums over tokens and dimensions and t̄
        the batch mean; and the first term again for what every prefix decodes, where a kind has prefixes. (SAELens: sum
        over dimensions, mean over tokens, not normalised.)
        """
        centred = x if self.transcoder else x - self.b_dec
        with torch.set_grad_enabled(self.dense and torch.is_grad_enabled()):
            pre = preactivations(centred, self.encoder(), self.b_enc)
        selected = self.select(centred, pre)
        output = self.output(selected.decoded, x)
        residual = target - output
        spread = (target - target.mean(0)).square().sum()
        reconstruction = residual.square().sum() / spread
        beside = x.new_zeros(()) if selected.penalty is None else selected.penalty
        for decoded in selected.prefixes:
            # End to end the target is what earlier dictionaries wrote: they are not to make it easy for a prefix.
            left = target.detach() - self.output(decoded, x)
            beside = beside + left.square().sum() / spread.detach()
        auxiliary, slots = x.new_zeros(()), 0
        if self.config.aux_coefficient:
            k_aux = self.config.k_aux or max(1, self.d_in // 2)
            # End to end x comes from the dictionaries of earlier layers: what this one's unused latents miss is not
            # theirs to mend.
            alone = x.detach() if self.transcoder else x.detach() - self.b_dec
            auxiliary, slots = auxiliary_loss(
                alone, pre, residual.detach(), self.under_used(), k_aux, self.encoder(), self.b_enc, self.W_dec
            )
            beside = beside + self.config.aux_coefficient * auxiliary
        return StepResult(
            loss=reconstruction + beside,
            beside=beside,
            output=output,
            reconstruction=reconstruction.detach(),
            auxiliary=auxiliary.detach(),
            fired=selected.fired,
            tokens=x.shape[0],
            flops=self.flops(x.shape[0], selected.slots + slots),
            slots=selected.slots,
        )

    def flops(self, tokens: int, slots: int) -> float:
        """Multiply-adds × 2 of one forward and backward pass; selection, biases, norms and Adam are not counted.

        Encoder product 2·tokens·d_in·n. Each decoded (token, latent) slot: decode 2·d_out, gradient of its value
        2·d_out, of its decoder row 2·d_out, of its encoder column 2·d_in, and in an autoencoder, whose bias learns
        through the input, of the input 2·d_in. A frozen half has no gradient of its rows or columns. A skip costs
        4·tokens·d_in·d_out. That is what the method needs; a kernel that forms dense gradients spends more and is not
        charged for it.
        """
        dense = 2.0 * tokens * self.d_in * self.config.n_latents
        skip = 0.0 if self.W_skip is None else 4.0 * tokens * self.d_in * self.d_out
        by_row = 4.0 if self.config.frozen == "decoder" else 6.0
        by_column = (0.0 if self.transcoder else 2.0) + (0.0 if self.config.frozen == "encoder" else 2.0)
        return dense + skip + slots * (by_row * self.d_out + by_column * self.d_in)

    @torch.no_grad()
    def before_update(self) -> None:
        # A gradient along a row would only change its norm, which stays 1: Adam should not see it.
        if self.unit_norm_rows and self.W_dec.grad is not None:
            self.W_dec.grad -= (self.W_dec.grad * self.W_dec).sum(1, keepdim=True) * self.W_dec

    @torch.no_grad()
    def after_update(self) -> None:
        if self.unit_norm_rows and self.W_dec.requires_grad:
            self.W_dec /= self.W_dec.norm(dim=1, keepdim=True)

    def fired_counts(self, units: Tensor) -> Tensor:
        """`[n_latents]` int64: how often each latent occurs in `units`, which names those that fired."""
        return torch.bincount(units.flatten(), minlength=self.config.n_latents)

    @torch.no_grad()
    def weights(self, x: Standardisation, target: Standardisation) -> Weights:
        """Weights for raw activations, with the standardisation multiplied in and decoder rows of norm 1.

        From t̂ = (z W_dec + b_dec + W_skip x̃) / s_t + m_t with x̃ = (x − m_x) s_x: latents become z‖w_dec‖/s_t, in units
        of the raw target, so with n_i the norms of the decoder rows W_dec ← W_dec/n, W_enc ← W_enc n s_x/s_t,
        b_enc ← (b_enc − (s_x m_x + b_in) W_enc) n/s_t with b_in the decoder bias of an autoencoder (0 in a
        transcoder), b_dec ← b_dec/s_t + m_t − W_skip′ m_x, W_skip′ = W_skip s_x/s_t.
        """
        shift = x.scale * x.mean if self.transcoder else x.scale * x.mean + self.b_dec
        norms = torch.ones_like(self.b_enc) if self.unit_norm_rows else self.W_dec.norm(dim=1).clamp_min(1e-12)
        W_skip = None if self.W_skip is None else self.W_skip * (x.scale / target.scale)
        b_dec = self.b_dec / target.scale + target.mean
        return Weights(
            W_enc=self.encoder() * norms * (x.scale / target.scale),
            b_enc=(self.b_enc - shift @ self.encoder()) * norms / target.scale,
            W_dec=self.W_dec / norms[:, None],
            b_dec=b_dec if W_skip is None else b_dec - W_skip @ x.mean,
            W_skip=W_skip,
        )

    @torch.no_grad()
    def inference(self, x: Standardisation, target: Standardisation, held_out: Tensor | None) -> Dictionary:
        return self.inference_form(self.weights(x, target), held_out)
