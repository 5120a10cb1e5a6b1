"""ReLU with an L1 penalty, tied (Cunningham et al. 2023, arXiv 2309.08600) and untied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from kernels.codes import Codes
from kernels.sparse_dictionary import decode_rows, encode_positive
from saes.dictionary import EncoderDecoder, Weights
from saes.registry import register
from saes.sparsity import TargetL0
from saes.training_dictionary import DictionaryConfig, Selected, Shape, StepResult, TrainingDictionary

DENSE_ABOVE = 1 / 16  # share of latents that fire; at 512 and 2,048 gathering still wins at this and loses at twice it


@dataclass(frozen=True, kw_only=True)
class ReLUConfig(DictionaryConfig):
    """z = ReLU(W_encᵀ(x − b_dec) + b_enc), loss ‖x − x̂‖²/‖x − x̄‖² + λ · mean over tokens of Σᵢ zᵢ‖w_dec,i‖/d.

    λ is steered to the target L0 (see `sparsity.TargetL0`) instead of being a setting. `decoder_norms` false keeps
    decoder rows at norm 1 (the penalty is the plain L1); true leaves them free and weights latents by them. `tied` uses
    the decoder's transpose as encoder, as arXiv 2309.08600 does (which has no decoder bias; ours keeps it).
    """

    aux_coefficient: float = field(default=0.0, metadata={"doc": "Weight of aux_k; the published form has none."})
    tied: bool = field(default=False, metadata={"doc": "Encoder = decoder transposed."})
    decoder_norms: bool = field(
        default=False, metadata={"doc": "Weight the L1 penalty by decoder norms, which are then free."}
    )
    l1_warmup_share: float = field(default=0.1, metadata={"doc": "Share of the training tokens while λ rises from 0."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tied and self.decoder_norms:
            raise ValueError("decoder_norms True: a tied encoder needs decoder rows of norm 1 (set one of the two)")
        if self.tied and self.frozen != "none":
            raise ValueError(f"frozen {self.frozen!r}: a tied encoder is the decoder, leave one of the two out")
        if not 0 <= self.l1_warmup_share < 1:
            raise ValueError(f"l1_warmup_share {self.l1_warmup_share}: must be between 0 and 1")

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingReLU:
        if self.tied and shape.transcoder:
            raise ValueError("tied True: a transcoder reads another space than it writes")
        return (TrainingTiedReLU if self.tied else TrainingReLU)(self, shape, generator)


class TrainingReLU(TrainingDictionary):
    """See `ReLUConfig`."""

    config: ReLUConfig

    def __init__(self, config: ReLUConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__(config, shape, generator)
        self.unit_norm_rows = not config.decoder_norms
        self.l1 = TargetL0(config.k, (shape.d_out / config.k) ** 0.5 / 3, config.l1_warmup_share)
        self.last_l0: Tensor
        self.register_buffer("last_l0", torch.tensor(float(config.n_latents), dtype=torch.float64))

    @property
    def dense(self) -> bool:
        """At the start half of all latents fire and matrix products are faster; once few do, gathering their rows."""
        return float(self.last_l0) > DENSE_ABOVE * self.config.n_latents

    def prepare(self, progress: float) -> None:
        self.l1.prepare(progress)

    def note_usage(self, result: StepResult) -> None:
        super().note_usage(result)
        self.last_l0.fill_(result.l0)
        self.l1.observe(float(self.last_l0))

    @torch.no_grad()
    def before_update(self) -> None:
        super().before_update()
        # SAELens' clip at norm 1, at the scale of our loss, which is smaller by d. It matters here: while λ rises
        # gradients are large, Adam remembers them, and latents then shrink instead of finding features (explained
        # variance 0.12 against 0.45 on planted features).
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0 / self.d_out)

    def select(self, x: Tensor, pre: Tensor) -> Selected:
        # Σ over tokens of strengths, by latent or by entry: the rows' norms are the same for all of a latent's entries.
        if self.dense:
            z = pre.relu()
            fired, decoded, strengths, units = (z > 0).sum(0), z @ self.W_dec, z.sum(0), None
        else:
            indptr, units, strengths = encode_positive(x, self.encoder(), self.b_enc, pre=pre)
            fired, decoded = self.fired_counts(units), decode_rows(indptr, units, strengths, self.W_dec)
        if not self.unit_norm_rows:
            norms = self.W_dec.norm(dim=1)
            # index_select, whose gradient is summed in a fixed order; that of indexing is not.
            strengths = strengths * (norms if units is None else norms.index_select(0, units))
        return Selected(
            decoded=decoded,
            fired=fired,
            # Charged as the products of the published method, which no selection bounds beforehand.
            slots=pre.numel(),
            penalty=strengths.sum() * (self.l1.coefficient() / (x.shape[0] * self.d_out)),
        )

    def inference_form(self, weights: Weights, held_out: Tensor | None) -> ReLU:
        return ReLU(weights, self.transcoder)


class TrainingTiedReLU(TrainingReLU):
    """The encoder is the decoder transposed: one matrix, with gradients from both uses."""

    def __init__(self, config: ReLUConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__(config, shape, generator)
        del self.W_enc

    def encoder(self) -> Tensor:
        return self.W_dec.T


class ReLU(EncoderDecoder):
    """Inference: every positive pre-activation is a latent that fires."""

    architectures: ClassVar[tuple[str, str, str]] = ("standard", "transcoder", "skip_transcoder")

    def select(self, pre: Tensor, rows: Tensor) -> Codes:
        return Codes.from_dense(pre.relu(), rows)

    @classmethod
    def from_file(cls, weights: Weights, config: dict[str, Any], transcoder: bool) -> ReLU:
        return cls(weights, transcoder)


register("relu", ReLUConfig)
