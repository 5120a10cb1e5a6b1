"""What a trained dictionary is at inference: encoder, selection, decoder; and the folder it is kept in.

Whatever was trained, with whatever normalisation, ends as

    codes = select(x W_enc + b_enc),   output = codes W_dec + b_dec (+ x W_skipᵀ)

on raw activations. A sparse autoencoder and a transcoder differ only in what `output` stands for. Selections are in
their own files (`relu.py`, `topk.py`, `thresholds.py`). The folder has SAELens' layout (`cfg.json` beside
`sae_weights.safetensors`), written without importing SAELens, which takes 9 s and may be absent where we train.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kernels.codes import Codes
from kernels.sparse_dictionary import decode, preactivations
from saes.registry import FORMATS

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
# The SAELens release whose layout we write; it treats files that name none as older than 6.0.
SAELENS_FORMAT = "6.54.12"


@dataclass(frozen=True)
class Weights:
    """Weights that act on raw activations. W_enc `[d_in, n_units]`, b_enc `[n_units]`, W_dec `[n_units, d_out]`,
    b_dec `[d_out]`, W_skip `[d_out, d_in]` or None, threshold `[n_units]` or None (selections without thresholds)."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    W_skip: Tensor | None = None
    threshold: Tensor | None = None


class Dictionary(nn.Module, ABC):
    """A dictionary at inference: implements `kernels.codes.ReadWrite` with latents as units.

    One token alone gets the codes it gets in a batch. Weights do not ask for gradients; gradients flow to `x` and to
    `codes.values`.
    """

    n_units: int
    d_in: int
    d_out: int
    W_dec: nn.Parameter  # [n_units, d_out]: what a latent of value one writes

    @abstractmethod
    def read(self, x: Tensor, rows: Tensor) -> Codes: ...

    @abstractmethod
    def write(self, codes: Codes, x: Tensor) -> Tensor: ...

    @abstractmethod
    def rest(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor: ...

    @abstractmethod
    def strengths(self, codes: Codes, x: Tensor) -> Tensor: ...

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write `cfg.json` and `sae_weights.safetensors` as SAELens lays them out."""

    @abstractmethod
    def active_parameters(self, k: float) -> int:
        """Parameters that one token touches when k latents fire."""

    def parameter_count(self) -> int:
        """Parameters, each once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @abstractmethod
    def flops_per_token(self, k: float) -> float:
        """Multiply-adds × 2 of reading and writing one token when k latents fire."""

    def forward(self, x: Tensor) -> Tensor:
        """`[tokens, d_in]` to the reconstruction or prediction `[tokens, d_out]`."""
        codes = self.read(x, torch.zeros(x.shape[0], 2, dtype=torch.long, device=x.device))
        return self.write(codes, x) + self.rest(x)


class EncoderDecoder(Dictionary):
    """Ours: `select(x W_enc + b_enc) W_dec + b_dec (+ x W_skipᵀ)`, where the selection looks at one token at a time."""

    # SAELens' names of this selection as an autoencoder, a transcoder, and a transcoder with a skip.
    architectures: ClassVar[tuple[str, str, str]]
    # What its files hold; a transcoder with a skip has W_skip as well.
    tensors: ClassVar[tuple[str, ...]] = ("W_enc", "b_enc", "W_dec", "b_dec")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        FORMATS.update(dict.fromkeys(cls.architectures, cls))

    def __init__(self, weights: Weights, transcoder: bool = False) -> None:
        super().__init__()
        if not transcoder and weights.W_dec.shape[1] != weights.W_enc.shape[0]:
            raise ValueError(
                f"an autoencoder writes the width it reads: reads {weights.W_enc.shape[0]}, "
                f"writes {weights.W_dec.shape[1]} (a transcoder may differ)"
            )
        if weights.W_skip is not None and not transcoder:
            raise ValueError("an autoencoder has no skip: with W_skip it must be a transcoder")
        self.transcoder = transcoder
        self.d_in, self.n_units = weights.W_enc.shape
        self.d_out = weights.W_dec.shape[1]
        self.W_enc = _frozen(weights.W_enc)
        self.b_enc = _frozen(weights.b_enc)
        self.W_dec = _frozen(weights.W_dec)
        self.b_dec = _frozen(weights.b_dec)
        self.W_skip = None if weights.W_skip is None else _frozen(weights.W_skip)
        self.metadata: dict[str, Any] = {}

    @property
    def architecture(self) -> str:
        return self.architectures[0 if not self.transcoder else 1 if self.W_skip is None else 2]

    @abstractmethod
    def select(self, pre: Tensor, rows: Tensor) -> Codes:
        """Codes from pre-activations `[tokens, n_units]`."""

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        if x.shape[-1] != self.d_in:
            raise ValueError(f"this dictionary reads width {self.d_in}, the site gives width {x.shape[-1]}")
        return self.select(preactivations(x, self.W_enc, self.b_enc), rows)

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        return decode(codes, self.W_dec)

    def rest(self, x: Tensor) -> Tensor:
        bias = self.b_dec.expand(x.shape[0], -1)
        return bias if self.W_skip is None else bias + x @ self.W_skip.T

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        return self.W_dec.index_select(0, codes.units[entries])

    def strengths(self, codes: Codes, x: Tensor) -> Tensor:
        return codes.values.abs() * self.W_dec.norm(dim=1).index_select(0, codes.units)

    def active_parameters(self, k: float) -> int:
        """The encoder, the biases, a skip, and k decoder rows."""
        skip = 0 if self.W_skip is None else self.W_skip.numel()
        return self.W_enc.numel() + self.b_enc.numel() + self.b_dec.numel() + skip + round(k * self.d_out)

    def flops_per_token(self, k: float) -> float:
        skip = 0 if self.W_skip is None else self.W_skip.numel()
        return 2.0 * (self.W_enc.numel() + skip + k * self.d_out)

    def file_config(self) -> dict[str, Any]:
        """Further keys of `cfg.json` that this selection needs (k)."""
        return {}

    @classmethod
    @abstractmethod
    def from_file(cls, weights: Weights, config: dict[str, Any], transcoder: bool) -> EncoderDecoder:
        """The dictionary of a file with these weights and this `cfg.json`. Raises ValueError where that lacks a key."""

    def save(self, folder: Path) -> None:
        """Each file appears whole or not at all."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "architecture": self.architecture,
            "d_in": self.d_in,
            "d_sae": self.n_units,
            "dtype": str(self.W_dec.dtype).removeprefix("torch."),
            "device": "cpu",
            # Mean and scale of the training activations are folded into the weights.
            "apply_b_dec_to_input": False,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"sae_lens_version": SAELENS_FORMAT, **self.metadata},
            **self.file_config(),
        }
        if self.transcoder:
            config["d_out"] = self.d_out
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        weights, text = folder / f".{WEIGHTS_FILE}", folder / f".{CONFIG_FILE}"
        save_file(tensors, weights)
        text.write_text(json.dumps(config, indent=1))
        os.replace(weights, folder / WEIGHTS_FILE)
        os.replace(text, folder / CONFIG_FILE)


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone().contiguous(), requires_grad=False)
