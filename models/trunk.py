"""The decoder that every subject shares, and the slot that its feed-forward layer fills.

Pre-norm decoder: RMSNorm, rotary attention (transformers' LlamaAttention, so SDPA, flash and KV caches come with it),
residual; RMSNorm, feed-forward, residual; final RMSNorm; tied output head. A new architecture is one file: a config, a
`FeedForward`, and `class XForCausalLM(TrunkForCausalLM)` that names the two, then `register("x", XForCausalLM)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from kernels.memory import settle
from models.config import TrunkConfig, residual_std
from models.feed_forward import FeedForward, Role
from models.subject import Subject


class Block(nn.Module):
    """x + attention(norm(x)), then + feed_forward(norm(·))."""

    def __init__(
        self, config: TrunkConfig, layer_index: int, feed_forward_class: type[FeedForward], shared: nn.Module | None
    ) -> None:
        super().__init__()
        # nn.RMSNorm and not Llama's: that one computes in float32 whatever the dtype, which float64 checks would see.
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = LlamaAttention(config, layer_index)  # pyright: ignore[reportArgumentType] (asks for names only)
        self.attention.o_proj.writes_residual = True  # pyright: ignore[reportArgumentType]
        self.feed_forward_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = feed_forward_class(config, layer_index, shared)

    def forward(
        self,
        x: Tensor,
        position_ids: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        **kwargs,
    ) -> Tensor:
        attended, _ = self.attention(
            self.attention_norm(x), position_embeddings, attention_mask, past_key_values=past_key_values, **kwargs
        )
        x = x + attended
        return x + self.feed_forward(self.feed_forward_norm(x), position_ids)


class TrunkPreTrainedModel(PreTrainedModel):
    config: TrunkConfig
    base_model_prefix = "model"
    _no_split_modules = ["Block"]  # noqa: RUF012 (transformers' own declaration)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": Block, "attentions": LlamaAttention}  # noqa: RUF012

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. What was loaded computes the same digits as what was saved (see `kernels.memory`)."""
        loaded = super().from_pretrained(*args, **kwargs)
        settle(loaded[0] if isinstance(loaded, tuple) else loaded)  # a tuple with output_loading_info=True
        return loaded

    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's: normal of std `initializer_range`; what writes to the residual stream is divided by √(2 layers)."""
        if getattr(module, "writes_residual", False):
            nn.init.normal_(module.weight, std=residual_std(self.config))  # pyright: ignore[reportArgumentType]
        elif isinstance(module, FeedForward):
            module.init_weights(self.config)
        else:
            super()._init_weights(module)


class TrunkModel(TrunkPreTrainedModel):
    """Embedding, blocks, final norm."""

    def __init__(self, config: TrunkConfig, feed_forward_class: type[FeedForward]) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.shared = feed_forward_class.build_shared(config)
        self.layers = nn.ModuleList(
            Block(config, index, feed_forward_class, self.shared) for index in range(config.n_layers)
        )
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)  # pyright: ignore[reportArgumentType]
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds  # [batch, T, d_model]
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(seen, seen + x.shape[1], device=x.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        position_embeddings = self.rotary_emb(x, position_ids)
        padding = None
        if attention_mask is not None and attention_mask.shape == x.shape[:2]:
            padding = ~attention_mask.bool().flatten()
        for block in self.layers:
            cast(FeedForward, block.feed_forward).padding = padding
            x = block(x, position_ids, position_embeddings, mask, past_key_values, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=past_key_values)


class TrunkForCausalLM(TrunkPreTrainedModel, GenerationMixin, Subject):
    """A language model. An architecture derives from it and names `config_class` and `feed_forward_class`.

    `torch.export` takes those whose shapes do not depend on what is routed where (dense, peer, monet); moex, switch and
    pools group tokens by expert, whose numbers only the data tells, and are refused there. Gradient checkpointing is
    refused by all: a layer leaves auxiliary losses and codes of its last forward, which a second forward would replace.
    """

    config_class: type[TrunkConfig]  # pyright: ignore[reportIncompatibleVariableOverride] (transformers: any config)
    feed_forward_class: type[FeedForward]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__(config)
        self.model = TrunkModel(config, self.feed_forward_class)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """input_ids `[batch, T]` -> logits `[batch, T, vocab_size]`, of the last `logits_to_keep` positions (0: all).

        labels `[batch, T]` are the input_ids (−100: not counted); the shift by one happens inside. The loss is the mean
        cross entropy in nats, computed in float32.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @property
    def carries(self) -> bool:
        return self.model.shared is not None

    def blocks(self) -> list[nn.Module]:
        return list(self.model.layers)

    def feed_forwards(self) -> list[FeedForward]:
        """The feed-forward layers, from the first to the last."""
        return [block.feed_forward for block in self.model.layers]  # pyright: ignore[reportReturnType]

    def final_norm(self) -> nn.Module:
        return self.model.norm

    def unembedding(self) -> Tensor:
        return self.lm_head.weight

    def unembed(self, x: Tensor) -> Tensor:
        return self.lm_head(self.model.norm(x))

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """Of the last forward in training mode: each auxiliary loss, mean over the layers that have it; unweighted."""
        terms: dict[str, list[Tensor]] = {}
        for layer in self.feed_forwards():
            for name, term in layer.auxiliary.items():
                terms.setdefault(name, []).append(term)
        return {name: torch.stack(layers).mean() for name, layers in terms.items()}

    def auxiliary_loss(self) -> Tensor | None:
        """Their sum weighted by the config's `<name>_coefficient`; None where there is none. It is not in `.loss`."""
        terms = [getattr(self.config, f"{name}_coefficient") * term for name, term in self.auxiliary_losses().items()]
        return torch.stack(terms).sum() if terms else None

    def parameter_roles(self) -> dict[str, Role]:
        """Parameter name -> what it is, which decides its optimiser. Names as in `named_parameters()`.

        `matrix`: hidden matrices, 2-D (Muon); `embedding`; `norm`: every vector (no weight decay); `router`: queries
        and keys; `table`: one row per expert.
        """
        named: dict[str, Role] = {
            f"model.layers.{layer}.feed_forward.{name}": role
            for layer, feed_forward in enumerate(self.feed_forwards())
            for name, role in feed_forward.roles.items()
        }
        roles: dict[str, Role] = {}
        for name, parameter in self.named_parameters():
            if name in named:
                roles[name] = named[name]
            elif name in ("model.embed_tokens.weight", "lm_head.weight"):
                roles[name] = "embedding"
            elif parameter.ndim <= 2:
                roles[name] = "matrix" if parameter.ndim == 2 else "norm"
            else:
                raise ValueError(f"{name} has {parameter.ndim} dimensions: name its role in {self.feed_forward_class}")
        return roles

    def active_parameters(self) -> int:
        """Parameters that one token touches: the whole output head, one row of the embedding where that is not the
        head's, attention and norms, and of each feed-forward layer what its `active_parameters` says. A module shared
        by the layers counts once."""
        config = self.config
        active = config.d_model * config.vocab_size + config.d_model  # head, final norm
        if not config.tie_word_embeddings:
            active += config.d_model
        if self.model.shared is not None:
            active += sum(p.numel() for p in self.model.shared.parameters())
        for block in self.model.layers:
            outside = sum(p.numel() for name, p in block.named_parameters() if not name.startswith("feed_forward."))
            active += outside + block.feed_forward.active_parameters()  # pyright: ignore
        return active

    def forward_flops_per_token(self, sequence_length: int) -> int:
        """Forward FLOPs for one token of a sequence of this length, in matrix products (a multiply-add is 2).

        Attention is counted as the full square, as `torch.utils.flop_counter` does: a causal kernel does about half of
        that part. Norms, activations, softmax, selection and the embedding look-up are not counted.
        """
        config = self.config
        attention = 2 * 4 * config.d_model**2 + 2 * 2 * sequence_length * config.d_model
        layers = sum(attention + feed_forward.flops_per_token() for feed_forward in self.feed_forwards())
        return layers + 2 * config.d_model * config.vocab_size


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "relu2": lambda h: F.relu(h).square(),
}


def second_moment(activation: str, std: float = 1.0) -> float:
    """E[act(h)²] for h ~ N(0, std²), by quadrature."""
    return moment(activation, 2, std)


def moment(activation: str, power: int, std: float = 1.0) -> float:
    """E[act(h)^power] for h ~ N(0, std²), by quadrature."""
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64, device="cpu")
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float((ACTIVATIONS[activation](z * std) ** power * density).sum() * (z[1] - z[0]))


def dense_output_std(config: TrunkConfig) -> float:
    """Std at initialisation of each component of what a dense gelu layer of width 4·d_model writes; its input, after
    RMSNorm, has components of variance 1. Other layers start their output at the same size."""
    hidden_std = config.initializer_range * math.sqrt(config.d_model)
    return residual_std(config) * math.sqrt(4 * config.d_model * second_moment("gelu", hidden_std))
