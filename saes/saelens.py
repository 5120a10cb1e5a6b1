"""SAELens at the edge: its files and releases as our dictionaries, ours as its objects. The only file that imports it.

Our own folders (`Dictionary.save`) are in SAELens' layout already: `SAE.load_from_disk` reads them in a process that
knows nothing of us, except for the two top-k transcoders, which SAELens has no class for: importing this file registers
them there.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from sae_lens import SAE, register_sae_class
from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from sae_lens.saes.sae import TrainCoefficientConfig, TrainingSAE, TrainStepInput
from sae_lens.saes.topk_sae import TopK as TopKActivation
from sae_lens.saes.transcoder import SkipTranscoder, SkipTranscoderConfig, Transcoder, TranscoderConfig

# Ground truth, passed on to those who build worlds of it.
from sae_lens.synthetic import ActivationGenerator as ActivationGenerator
from sae_lens.synthetic import FeatureDictionary as FeatureDictionary
from sae_lens.synthetic import SyntheticModel as SyntheticModel
from sae_lens.synthetic import SyntheticModelConfig as SyntheticModelConfig
from sae_lens.synthetic import orthogonal_initializer as orthogonal_initializer
from torch import Tensor, nn

from kernels.codes import Codes
from kernels.memory import settle
from kernels.sparse_dictionary import decode
from saes.dictionary import Dictionary, EncoderDecoder, Weights
from saes.registry import formats, register
from saes.sparsity import TargetL0
from saes.thresholds import JumpReLU, one_threshold
from saes.training_dictionary import DictionaryConfig, Shape, Standardisation, StepResult, TrainingModule


@dataclass
class TopKTranscoderConfig(TranscoderConfig):
    """SAELens' config of our transcoder that keeps each token's k largest latents."""

    k: int = 32
    rescale_acts_by_decoder_norm: bool = False

    @classmethod
    def architecture(cls) -> str:
        return "topk_transcoder"


@dataclass
class TopKSkipTranscoderConfig(SkipTranscoderConfig):
    """The same with a linear skip from input to output."""

    k: int = 32
    rescale_acts_by_decoder_norm: bool = False

    @classmethod
    def architecture(cls) -> str:
        return "topk_skip_transcoder"


class TopKTranscoder(Transcoder):
    """SAELens' object for our top-k transcoder."""

    def get_activation_fn(self) -> TopKActivation:
        return TopKActivation(self.cfg.k)  # pyright: ignore[reportAttributeAccessIssue]


class TopKSkipTranscoder(SkipTranscoder):
    """SAELens' object for our top-k transcoder with a skip."""

    def get_activation_fn(self) -> TopKActivation:
        return TopKActivation(self.cfg.k)  # pyright: ignore[reportAttributeAccessIssue]


if "topk_transcoder" not in SAE_CLASS_REGISTRY:
    register_sae_class("topk_transcoder", TopKTranscoder, TopKTranscoderConfig)
    register_sae_class("topk_skip_transcoder", TopKSkipTranscoder, TopKSkipTranscoderConfig)


class SAELensDictionary(Dictionary):
    """Any SAELens dictionary behind our interface, for architectures of which we have no class of our own (gated, …).

    Reads with its `encode`. Writes need its `decode` to be linear in the latents; one that is not is refused.
    """

    def __init__(self, sae: SAE[Any]) -> None:
        super().__init__()
        sae.turn_off_forward_pass_hook_z_reshaping()
        self.sae = sae.requires_grad_(False).eval()
        self.normalises = sae.cfg.normalize_activations
        self.metadata = _metadata(sae)
        if self.normalises in ("expected_average_only_in", "covariance_whitening"):
            raise ValueError(
                f"normalize_activations {self.normalises!r} needs statistics of the training text, which did not come "
                "with it (for releases whose statistics are known SAELens folds them in)"
            )
        self.W_dec = nn.Parameter(_decoder_rows(sae), requires_grad=False)
        self.b_dec = sae.b_dec
        self.d_in = sae.cfg.d_in
        self.n_units, self.d_out = self.W_dec.shape
        self._check_linear()

    def _check_linear(self) -> None:
        """SAELens' reconstruction of two tokens must be what `write` and `rest` give."""
        x = torch.randn(2, self.d_in, generator=torch.Generator().manual_seed(0)).to(self.W_dec)
        codes = self.read(x, torch.zeros(2, 2, dtype=torch.long))
        theirs, ours = self.sae(x), self.write(codes, x) + self.rest(x)
        if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=1e-3, atol=1e-4):
            raise ValueError(f"architecture {self.sae.cfg.architecture()!r}: its decoder is not linear in its latents")

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What SAELens multiplies a token's output by and then adds to undo its normalisation. `[tokens, 1]`. Of a
        transcoder's output it undoes nothing."""
        if "transcoder" in self.sae.cfg.architecture():
            return x.new_ones(x.shape[0], 1), x.new_zeros(x.shape[0], 1)
        if self.normalises == "layer_norm":
            return x.std(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)
        if self.normalises == "constant_norm_rescale":
            scale = x.norm(dim=1, keepdim=True) / self.d_in**0.5
            return scale, torch.zeros_like(scale)
        return x.new_ones(x.shape[0], 1), x.new_zeros(x.shape[0], 1)

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        if x.shape[-1] != self.d_in:
            raise ValueError(f"this dictionary reads width {self.d_in}, the site gives width {x.shape[-1]}")
        return Codes.from_dense(self.sae.encode(x), rows)

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        return decode(codes, self.W_dec) * self._scale_and_shift(x)[0]

    def rest(self, x: Tensor) -> Tensor:
        scale, shift = self._scale_and_shift(x)
        return self.b_dec * scale + shift

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        scale = self._scale_and_shift(x)[0][codes.token_of_entry()[entries]]
        return self.W_dec.index_select(0, codes.units[entries]) * scale

    def strengths(self, codes: Codes, x: Tensor) -> Tensor:
        norms = self.W_dec.norm(dim=1).index_select(0, codes.units)
        return codes.values.abs() * norms * self._scale_and_shift(x)[0][codes.token_of_entry(), 0]

    def save(self, folder: Path) -> None:
        self.sae.save_model(folder)

    def parameter_count(self) -> int:
        """Those of SAELens' module: `W_dec` is a copy of what is in there."""
        return sum(parameter.numel() for parameter in self.sae.parameters())

    def active_parameters(self, k: float) -> int:
        """All but the decoder, and k of its rows."""
        return sum(p.numel() for p in self.sae.parameters()) - self.W_dec.numel() + round(k * self.d_out)

    def flops_per_token(self, k: float) -> float:
        """Two per parameter touched, biases and gates included."""
        return 2.0 * self.active_parameters(k)


def load_pretrained(source: str | Path, sae_id: str | None = None) -> Dictionary:
    """A dictionary that SAELens can load: a folder, or with `sae_id` a release of its list (fetched from the hub)."""
    if sae_id is not None:
        return _settled(SAE.from_pretrained(str(source), sae_id))
    if not (Path(source) / "cfg.json").exists():
        raise ValueError(f"{source} holds no dictionary: cfg.json is missing (a release needs an id as well)")
    return _settled(SAE.load_from_disk(source))


def release_config(release: str, sae_id: str) -> dict[str, Any]:
    """The configuration of a dictionary of its list, with what the list puts right; no weights are fetched."""
    return load_sae_config_from_huggingface(release, sae_id)


def _metadata(sae: SAE[Any]) -> dict[str, Any]:
    """Where it was trained, as SAELens notes it."""
    return {key: value for key, value in sae.cfg.metadata.to_dict().items() if key != "sae_lens_version"}


def _settled(sae: SAE[Any]) -> Dictionary:
    """In float32 and aligned memory, whatever it was kept in. Raises ValueError where a weight is not finite."""
    sae.to(dtype=torch.float32)  # SAELens' own `to`: its configuration follows
    for name, parameter in sae.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")
    settle(sae)
    return from_saelens(sae)


def from_saelens(sae: SAE[Any]) -> Dictionary:
    """Our dictionary with the same codes and outputs: our own class where we have one, its object wrapped otherwise."""
    cfg = sae.cfg
    cls = formats().get(cfg.architecture())
    if cls is None or cfg.normalize_activations != "none":
        return SAELensDictionary(sae)
    tensors = {name: tensor.detach() for name, tensor in sae.state_dict().items()}
    if getattr(cfg, "rescale_acts_by_decoder_norm", False):
        norms = tensors["W_dec"].norm(dim=1)
        tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norms, tensors["b_enc"] * norms
        tensors["W_dec"] = tensors["W_dec"] / norms[:, None]
    if cfg.apply_b_dec_to_input:
        tensors["b_enc"] = tensors["b_enc"] - tensors["b_dec"] @ tensors["W_enc"]
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "W_skip", "threshold")
    weights = Weights(**{name: tensors[name] for name in names if name in tensors})
    dictionary = cls.from_file(weights, cfg.to_dict(), transcoder="transcoder" in cfg.architecture())
    dictionary.metadata = _metadata(sae)
    return dictionary


def to_saelens(dictionary: EncoderDecoder) -> SAE[Any]:
    """SAELens' object with our weights, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        dictionary.save(Path(folder))
        return SAE.load_from_disk(folder)


def _decoder_rows(sae: SAE[Any]) -> Tensor:
    """What a latent of value one adds to the output, before run-time normalisation is undone. `[n_latents, d_out]`."""
    rescales = getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
    return sae.W_dec.detach() / sae.W_dec.detach().norm(dim=1, keepdim=True) if rescales else sae.W_dec.detach().clone()


@dataclass(frozen=True, kw_only=True)
class SAELensConfig(DictionaryConfig):
    """An architecture of SAELens, with its own loss and selection, trained on our stream: `saelens:gated` and so on.

    k is the target L0: its own k where it has one, otherwise what its sparsity coefficients are steered to. The
    auxiliary loss is SAELens' (aux_coefficient is its weight, k_aux is not ours to set); dead latents are counted in
    tokens as everywhere here, and gradients clipped at norm 1 as SAELens' trainer does.
    """

    aux_coefficient: float = 1.0
    architecture: ClassVar[str]

    def modules(self) -> tuple[str, ...]:
        """What it becomes when it is trained may be of one of our classes."""
        return (*super().modules(), *sorted({cls.__module__ for cls in formats().values()}))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k_aux is not None:
            raise ValueError(f"k_aux {self.k_aux}: SAELens' architectures choose their own (leave it out)")
        if self._has("k", int) and self.k != int(self.k):
            nearest = max(1, round(self.k))
            raise ValueError(f"k {self.k}: {self.architecture} keeps a whole number of latents (nearest: {nearest})")
        if self.frozen != "none" and self.architecture == "matching_pursuit":
            raise ValueError(f"frozen {self.frozen!r}: the encoder of matching_pursuit is its decoder")

    def _has(self, name: str, kind: type | None = None) -> bool:
        options = {
            option.name: option for option in dataclasses.fields(SAE_TRAINING_CLASS_REGISTRY[self.architecture][1])
        }
        return name in options and (kind is None or isinstance(options[name].default, kind))

    def training_sae(self, d: int) -> TrainingSAE[Any]:
        """SAELens' object, with its own initial weights."""
        cls, config = SAE_TRAINING_CLASS_REGISTRY[self.architecture]
        options: dict[str, Any] = {"d_in": d, "d_sae": self.n_latents, "decoder_init_norm": 1.0}
        for name in ("k", "max_iterations"):
            if self._has(name):
                options[name] = int(self.k) if self.k == int(self.k) else self.k
        if self._has("aux_loss_coefficient"):
            options["aux_loss_coefficient"] = self.aux_coefficient
        if "matryoshka" in self.architecture:
            # Nested widths, each twice the one before.
            options["matryoshka_widths"] = [
                self.n_latents >> shift for shift in (3, 2, 1, 0) if self.n_latents >> shift
            ]
        return cls(config(**options))

    def build(self, shape: Shape, generator: torch.Generator) -> TrainingSAELens:
        return TrainingSAELens(self, shape, generator)


class TrainingSAELens(TrainingModule):
    """See `SAELensConfig`."""

    config: SAELensConfig

    def __init__(self, config: SAELensConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__(config, shape)
        # SAELens draws from torch's global generator: lend it a seed of ours, and leave no trace.
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.sae = config.training_sae(shape.d_in)
        if config.frozen != "none":
            (self.sae.W_enc if config.frozen == "encoder" else self.sae.W_dec).requires_grad_(False)
        self.coefficients = {
            name: float(value.value if isinstance(value, TrainCoefficientConfig) else value)
            for name, value in self.sae.get_coefficients().items()
        }
        # A factor on all of SAELens' coefficients, for the architectures that have no k.
        self.factor = TargetL0(config.k, 1.0, 0.1)
        self.calibrates = hasattr(self.sae, "topk_threshold")  # pyright: ignore[reportAttributeAccessIssue]
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def prepare(self, progress: float) -> None:
        self.factor.prepare(progress)

    def note_usage(self, result: StepResult) -> None:
        super().note_usage(result)
        self.factor.observe(float(result.l0))
        self.steps += 1

    def step(self, x: Tensor, target: Tensor) -> StepResult:
        """SAELens' own loss, which is a sum over dimensions and a mean over tokens."""
        factor = self.factor.coefficient()
        output = self.sae.training_forward_pass(
            TrainStepInput(
                sae_in=x,
                coefficients={name: value * factor for name, value in self.coefficients.items()},
                dead_neuron_mask=self.tokens_since_fired >= self.config.dead_after_tokens,
                n_training_steps=int(self.steps),
                is_logging_step=False,
            )
        )
        residual = (x - output.sae_out).detach()
        fired = (output.feature_acts.detach() != 0).sum(0)
        losses = [value.detach() for name, value in output.losses.items() if name != "mse_loss"]
        return StepResult(
            loss=output.loss,
            beside=output.loss - output.losses["mse_loss"],
            output=output.sae_out,
            reconstruction=residual.square().sum() / (x - x.mean(0)).square().sum(),
            auxiliary=torch.stack(losses).sum() if losses else x.new_zeros(()),
            fired=fired,
            tokens=x.shape[0],
            # Everything in it is dense: two products forward, four backward.
            flops=12.0 * x.shape[0] * self.d_in * self.config.n_latents,
        )

    def before_update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)

    @torch.no_grad()
    def inference(self, x: Standardisation, target: Standardisation, held_out: Tensor | None) -> Dictionary:
        sae = copy.deepcopy(self.sae)
        # (x − m)·s − b_dec = s·(x − (m + b_dec/s)): SAELens folds the scale, the mean joins the bias it subtracts.
        assert sae.cfg.apply_b_dec_to_input
        sae.fold_activation_norm_scaling_factor(x.scale)
        sae.b_dec.add_(x.mean)
        with tempfile.TemporaryDirectory() as folder:
            sae.save_inference_model(folder)
            dictionary = load_pretrained(folder)
        if self.calibrates and held_out is not None and isinstance(dictionary, JumpReLU):
            weights = Weights(dictionary.W_enc, dictionary.b_enc, dictionary.W_dec, dictionary.b_dec)
            dictionary.threshold.copy_(one_threshold(weights, held_out, self.config.k))
        return dictionary


def config_of(architecture: str) -> type[SAELensConfig]:
    """The config class of one of SAELens' training architectures. Raises ValueError with those there are."""
    if architecture not in SAE_TRAINING_CLASS_REGISTRY:
        raise ValueError(f"saelens:{architecture}: SAELens trains {', '.join(SAE_TRAINING_CLASS_REGISTRY)}")
    return type(f"SAELens_{architecture}", (SAELensConfig,), {"architecture": architecture, "__module__": __name__})


# One by one, so that the names are known without SAELens' import.
register("saelens:standard", config_of("standard"))
register("saelens:gated", config_of("gated"))
register("saelens:topk", config_of("topk"))
register("saelens:abstopk", config_of("abstopk"))
register("saelens:jumprelu", config_of("jumprelu"))
register("saelens:batchtopk", config_of("batchtopk"))
register("saelens:matryoshka_batchtopk", config_of("matryoshka_batchtopk"))
register("saelens:matching_pursuit", config_of("matching_pursuit"))
