"""Other people's language models as subjects: GPT-2, Pythia, Llama and their relatives, and mixtures of experts, run by
transformers; MonetLLM's releases are read into our own `monet` (models/monet_release.py).

A neuron is a unit: what comes into the output projection of a feed-forward layer is its activation, that projection's
column is what it writes. So one adapter serves plain and gated layers. A family is a line that names its modules
(`FAMILIES`); nothing else of a family is known here. Where a norm follows the layer (OLMo 2, Gemma 2 and 3), it belongs
to the layer: what is read is what is added to the residual stream, with the norm's scale as it is at the token. In a
mixture (OLMoE, Mixtral, Qwen-MoE) a unit is a neuron inside an expert (models/pretrained_experts.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, PreTrainedModel

from kernels import sparse_dictionary
from kernels.codes import Codes
from kernels.memory import settle
from kernels.registry import nearest
from models import monet_release
from models.feed_forward import FeedForward
from models.norms import Norm, norm_of
from models.pretrained_experts import ExpertsLayer, Mixture
from models.subject import Subject
from models.trunk import TrunkForCausalLM
from models.wrapped import Wrapped


@dataclass(frozen=True)
class Names:
    """Where a family keeps what is read. blocks, final_norm: in the model; mlp, norm_after: in a block; out: the output
    projection, in the mlp. norm_after: the norm between the mlp and the residual stream, where there is one. mixture:
    what an mlp of experts has in place of `out`."""

    blocks: str = "model.layers"
    final_norm: str = "model.norm"
    mlp: str = "mlp"
    out: str = "down_proj"
    norm_after: str | None = None
    mixture: Mixture | None = None


_LLAMA = Names()
_EXPERTS = Names(mixture=Mixture())
_NORM_AFTER = Names(norm_after="post_feedforward_layernorm")
# By `model_type`. Families whose blocks scale what the mlp wrote (Granite, MiniCPM) do not fit a line.
FAMILIES: dict[str, Names] = {
    "gpt2": Names("transformer.h", "transformer.ln_f", out="c_proj"),
    "gpt_neox": Names("gpt_neox.layers", "gpt_neox.final_layer_norm", out="dense_4h_to_h"),
    "phi": Names(final_norm="model.final_layernorm", out="fc2"),
    "starcoder2": Names(out="c_proj"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "olmo", "phi3", "smollm3", "stablelm"), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3_text", "olmo2", "olmo3"), _NORM_AFTER),
    **dict.fromkeys(("olmoe", "mixtral", "qwen3_moe"), _EXPERTS),
    "qwen2_moe": Names(mixture=Mixture(shared="shared_expert", shared_gate="shared_expert_gate")),
}
# How many experts a mixture has, as families call it.
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class PretrainedLayer(Wrapped):
    """A feed-forward layer of a pretrained model; its neurons are the units, in the order of its output projection.

    Native forward is the model's own. Looked into, a token's write is the sum over its neurons of activation times
    column, through the frozen norm where one follows; `rest` is the output projection's bias (and that norm's).
    """

    def __init__(self, mlp: nn.Module, out: nn.Module, norm_after: nn.Module | None, layer_index: int) -> None:
        super().__init__(mlp, layer_index)
        self.norm_after = norm_after
        self._out = (out,)  # in a tuple: it belongs to the mlp already
        self.n_units, self.d_model = self.columns().shape
        self._norm: Norm | None = None

    def columns(self) -> Tensor:
        """What neurons write, before a norm that follows. `[n_units, d_model]`"""
        out = cast(nn.Linear, self._out[0])
        return out.weight.T if isinstance(out, nn.Linear) else out.weight  # Conv1D keeps it turned

    def fused(self, x: Tensor) -> Tensor:
        y = super().fused(x)
        return y if self.norm_after is None else self.norm_after(y)

    def read(self, x: Tensor, rows: Tensor) -> Codes:
        return Codes.from_dense(self._activations(x), rows)

    def write(self, codes: Codes, x: Tensor) -> Tensor:
        return self._after(sparse_dictionary.decode(codes, self.columns()), x)

    def writes(self, codes: Codes, x: Tensor, entries: Tensor) -> Tensor:
        each = self.columns().index_select(0, codes.units[entries])
        return self._after(each, x if self.norm_after is None else x[codes.token_of_entry()[entries]])

    def strengths(self, codes: Codes, x: Tensor) -> Tensor:
        if self.norm_after is not None:
            return super().strengths(codes, x)
        return codes.values.abs() * self.columns().norm(dim=-1).index_select(0, codes.units)

    def rest(self, x: Tensor) -> Tensor:
        bias = cast(Tensor | None, getattr(self._out[0], "bias", None))
        rest = torch.zeros_like(x) if bias is None else self._after(bias.expand_as(x), x)
        norm = self._read_norm()
        return rest if norm is None else rest + norm.bias.to(x.dtype)

    def flops_per_token(self) -> int:
        return sum(2 * p.numel() for p in self.mlp.parameters() if p.ndim == 2)

    def active_parameters(self) -> int:
        return self.parameter_count()

    def _activations(self, x: Tensor) -> Tensor:
        """x `[tokens, d_model]` -> `[tokens, n_units]`: what the output projection reads."""
        found: list[Tensor] = []
        handle = self._out[0].register_forward_pre_hook(lambda _out, args: found.append(args[0]))
        try:
            self.mlp(x[None])
        finally:
            handle.remove()
        return found[0][0]

    def _after(self, y: Tensor, x: Tensor) -> Tensor:
        """What y `[n, d_model]`, a part of what the layer makes of x, is behind the norm that follows."""
        norm = self._read_norm()
        return y if norm is None else norm.still(y, self.mlp(x[None])[0]).to(y.dtype)

    def _read_norm(self) -> Norm | None:
        if self.norm_after is not None and (self._norm is None or self._norm.gain.device != self.columns().device):
            self._norm = norm_of(self.norm_after, self.d_model)
        return self._norm


class PretrainedSubject(Subject):
    """A transformers model, whose feed-forward layers can be looked into.

    The model is changed in place: its feed-forward modules are `Wrapped`, and a norm behind them is theirs.
    """

    def __init__(self, inner: PreTrainedModel, names: Names | None = None) -> None:
        """names: where its modules are; None: by its family. Raises ValueError where they are not there."""
        super().__init__()
        self.inner = inner.eval().requires_grad_(False)
        self.names = names or _named(inner)
        layers: list[FeedForward] = []
        for index, block in enumerate(_module(inner, self.names.blocks)):
            layer = _layer(block, self.names, index)
            setattr(block, self.names.mlp, layer)
            if self.names.norm_after is not None:
                setattr(block, self.names.norm_after, nn.Identity())
            layers.append(layer)
        self._layers = tuple(layers)

    @property
    def config(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.config

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.device

    @property
    def carries(self) -> bool:
        return False

    @property
    def dtype(self) -> torch.dtype:
        return self.inner.dtype

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.generate(*args, **kwargs)  # pyright: ignore[reportCallIssue]

    def blocks(self) -> Sequence[nn.Module]:
        return list(_module(self.inner, self.names.blocks))

    def feed_forwards(self) -> list[FeedForward]:
        return list(self._layers)

    def final_norm(self) -> nn.Module:
        return _module(self.inner, self.names.final_norm)

    def unembedding(self) -> Tensor:
        return cast(nn.Linear, self.inner.get_output_embeddings()).weight

    def unembed(self, x: Tensor) -> Tensor:
        logits = cast(nn.Module, self.inner.get_output_embeddings())(self.final_norm()(x))
        most = getattr(self.config, "final_logit_softcapping", None)
        return logits if most is None else most * torch.tanh(logits / most)

    def active_parameters(self) -> int:
        """All but the rows of the embeddings that a token does not touch, and the experts that it does not visit."""
        embeddings = {id(m): m for m in self.inner.modules() if isinstance(m, nn.Embedding)}
        tied = cast(nn.Linear, self.inner.get_output_embeddings()).weight
        idle = sum(m.weight.numel() - m.weight.shape[1] for m in embeddings.values() if m.weight is not tied)
        idle += sum(p.numel() for layer in self._layers for p in layer.parameters())
        active = sum(layer.active_parameters() for layer in self._layers)
        return sum(p.numel() for p in self.inner.parameters()) - idle + active

    def forward_flops_per_token(self, sequence_length: int) -> int:
        """Of matrix products, as for our own trunks: two for every weight of a matrix, the head's too, and attention's
        full square. Of experts those that a token visits."""
        inside = {id(p) for layer in self._layers for p in layer.parameters()}
        matrices = [p for block in self.blocks() for p in block.parameters() if p.ndim == 2 and id(p) not in inside]
        layers = sum(layer.flops_per_token() for layer in self._layers)
        config = self.config
        heads = config.num_attention_heads
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
        attention = 2 * 2 * sequence_length * width * len(self._layers)
        return sum(2 * p.numel() for p in matrices) + layers + attention + 2 * self.unembedding().numel()


def load(
    folder: Path, dtype: str, gguf_file: str | None = None, names: dict[str, str] | None = None
) -> PretrainedSubject | TrunkForCausalLM:
    """The model in a folder, as `save_pretrained` writes it, or in one GGUF file of it. Raises ValueError, one line."""
    if gguf_file is None and _is_monet(folder, names):
        return monet_release.load(folder, dtype)
    more: dict[str, Any] = {"use_safetensors": True}
    if gguf_file is not None:
        more = {"gguf_file": gguf_file, "quantization_config": GgufConfig(dequantize=True)}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), trust_remote_code=False, output_loading_info=True, **more
        )
    except (OSError, ValueError, KeyError, NotImplementedError, ImportError, RuntimeError) as error:
        raise ValueError(f"{folder} cannot be read as a causal language model ({_one_line(error)})") from error
    inner, found = loaded
    # transformers only warns, and initialises what is not there.
    if gguf_file is None and (missing := sorted(found["missing_keys"])):
        raise ValueError(f"{folder} lacks {len(missing)} of the model's tensors: {', '.join(missing[:3])}")
    settle(inner)
    return PretrainedSubject(inner, _given(inner, names))


def initial(
    folder: Path, gguf_file: str | None = None, names: dict[str, str] | None = None
) -> PretrainedSubject | TrunkForCausalLM:
    """A model of the same shape as it is initialised, by torch's global generator: the control."""
    if gguf_file is None and _is_monet(folder, names):
        return monet_release.initial(folder)
    more = {"gguf_file": gguf_file} if gguf_file else {}
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **more)
    inner = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return PretrainedSubject(inner, _given(inner, names))


def save(subject: PretrainedSubject | TrunkForCausalLM, folder: Path) -> None:
    """As `load` reads it: the model's own layout, without the harness's layers around its feed-forward modules."""
    if isinstance(subject, TrunkForCausalLM):
        subject.save_pretrained(folder)
        return
    model = subject.inner
    layers = {f"{name}.mlp.": f"{name}." for name, m in model.named_modules() if isinstance(m, Wrapped)}
    norms = {}
    if subject.names.norm_after is not None:
        for name, module in model.named_modules():
            if isinstance(module, PretrainedLayer):
                block = name.rpartition(".")[0]
                norms[f"{name}.norm_after."] = f"{block}.{subject.names.norm_after}."

    def native(name: str) -> str:
        for ours, theirs in (layers | norms).items():
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    weights = {native(name): tensor for name, tensor in model.state_dict().items()}
    # A model that was read from GGUF refuses to be saved, unpacked or not: its weights go into a plain one.
    config = type(model.config).from_dict(
        {k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config).to(model.dtype)
    plain.load_state_dict(weights)
    plain.save_pretrained(folder)


def _layer(block: nn.Module, names: Names, index: int) -> Wrapped:
    mlp = _module(block, names.mlp)
    if names.mixture is not None and hasattr(mlp, names.mixture.experts):  # some layers of a mixture are dense
        return ExpertsLayer(mlp, names.mixture, index)
    after = None if names.norm_after is None else _module(block, names.norm_after)
    return PretrainedLayer(mlp, _module(mlp, names.out), after, index)


def _is_monet(folder: Path, names: dict[str, str] | None) -> bool:
    if not monet_release.reads(folder):
        return False
    if names:
        raise ValueError(f"names={{{', '.join(names)}}} are of families that transformers runs; a monet has none")
    return True


def _given(model: PreTrainedModel, names: dict[str, str] | None) -> Names:
    """The family's names with those that are given by hand in their place."""
    if not names or _is_unknown_mixture(model):
        return _named(model)
    return dataclasses.replace(FAMILIES.get(model.config.model_type, Names()), **names)


def _is_unknown_mixture(model: PreTrainedModel) -> bool:
    counts = (getattr(model.config, name, None) for name in EXPERT_COUNTS)
    return model.config.model_type not in FAMILIES and any(counts)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _named(model: PreTrainedModel) -> Names:
    kind = model.config.model_type
    if kind in FAMILIES:
        return FAMILIES[kind]
    if _is_unknown_mixture(model):  # how it routes and gates no name can tell
        mixtures = [name for name, names in FAMILIES.items() if names.mixture is not None]
        raise ValueError(f"model_type {kind!r} has experts, and is none of the mixtures known: {', '.join(mixtures)}")
    inside = [name for name, _ in model.named_children()]
    deeper = [f"{name}.{child}" for name in inside for child, _ in getattr(model, name).named_children()]
    raise ValueError(
        f"model_type {kind!r} is no family that is known here ({nearest(kind, FAMILIES)}); give names of its modules: "
        f"names={{blocks, final_norm, mlp, out, norm_after}}; it has {', '.join([*inside, *deeper][:12])}"
    )


def _module(parent: nn.Module, name: str) -> Any:
    try:
        return parent.get_submodule(name)
    except AttributeError:
        there = [child for child, _ in parent.named_modules() if child.count(".") <= name.count(".") and child]
        raise ValueError(f"{type(parent).__name__} has no module {name!r}: {nearest(name, there)}") from None
