"""A published dictionary made fit for a subject as it is, where TransformerLens had changed the model it learnt from.

Two changes matter at our sites, and both can be allowed for exactly: writes to the residual stream without their mean
(saes/centred.py), and the input of a feed-forward layer before its norm's gain and bias, which are read off the norm
itself and folded into the encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.systems.system import Site
from models.norms import Norm, norm_of
from saes.centred import Centred
from saes.claims import BEHIND_GAIN, Claims
from saes.dictionary import Dictionary, EncoderDecoder

if TYPE_CHECKING:
    from models.subject import Subject


def attached(dictionary: Dictionary, claims: Claims, model: Subject, site: Site, few: Tensor) -> Dictionary:
    """The dictionary of a site, reading what this model has there. few: some sequences of tokens.

    Raises ValueError where that cannot be done.
    """
    place = claims.place()
    if place is not None and place.before_gain:
        return _behind_gain(dictionary, norm_before(model, site.layer, few))
    if site.point == "mlp" or not claims.centred(centres=True):
        return dictionary
    return Centred(dictionary) if norm_of(model.final_norm(), model.config.hidden_size).centred else dictionary


@torch.no_grad()
def norm_before(model: Subject, layer: int, few: Tensor) -> Norm:
    """The norm whose output a layer's feed-forward reads, found by running the model: no family's names are needed.

    Raises ValueError where what it reads is no module's output, or that of something else than a norm.
    """
    block, feed_forward = model.blocks()[layer], model.feed_forwards()[layer]
    made: list[tuple[nn.Module, Tensor]] = []
    read: list[Tensor] = []

    def keep(module: nn.Module, _args: object, y: object) -> None:
        if isinstance(y, Tensor):
            made.append((module, y))

    inside = set(feed_forward.modules())
    hooks = [module.register_forward_hook(keep) for module in block.modules() if module not in inside | {block}]
    hooks.append(feed_forward.register_forward_pre_hook(lambda _module, args: read.append(args[0])))
    try:
        model(few, use_cache=False)  # pyright: ignore[reportCallIssue] (a module, as every subject is)
    finally:
        for hook in hooks:
            hook.remove()
    for module, y in made:
        if read and y is read[0]:
            return norm_of(module, y.shape[-1])
    raise ValueError(f"no norm was found before the feed-forward layer of layer {layer}")


def _behind_gain(dictionary: Dictionary, norm: Norm) -> Dictionary:
    """Of a dictionary on n, one on gain · n + bias with the same codes and outputs."""
    if not isinstance(dictionary, EncoderDecoder):
        raise ValueError("it reads its layer's input before the norm's gain, and its architecture cannot take that in")
    gain, bias = norm.gain.to(dictionary.W_enc), norm.bias.to(dictionary.W_enc)
    if bool((gain == 0).any()):
        raise ValueError(
            f"it reads before a gain that is 0 at {int((gain == 0).sum())} places, behind which it is gone"
        )
    with torch.no_grad():
        dictionary.W_enc.div_(gain[:, None])
        dictionary.b_enc.sub_(bias @ dictionary.W_enc)
        if dictionary.W_skip is not None:
            dictionary.W_skip.div_(gain[None])
            dictionary.b_dec.sub_(dictionary.W_skip @ bias)
    dictionary.metadata[BEHIND_GAIN] = True
    return dictionary
