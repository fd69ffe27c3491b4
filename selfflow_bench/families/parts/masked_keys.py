"""A mask over keys for FLUX's attention, on its way to every block, gradient checkpointing or not.

Chroma's class takes a mask of tokens, but hands its one-stream blocks none under gradient checkpointing, and lets what
is masked attend to nothing. Here the mask travels with the rotary embedding, which all blocks are given, and hides keys
alone: what is hidden is never read, so that everything else is the same. Hooks on the model's own modules; without a
mask they do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def mask_keys(transformer: nn.Module, rotary: nn.Module, attentions: Sequence[nn.Module]) -> None:
    """Take the forward's ``attention_mask``, bool ``[B, N]`` over all tokens, to the attentions.

    Args:
        transformer: whose forward is called by keyword.
        rotary: its module that makes ``(cos, sin)``, once per forward.
        attentions: modules that are given these as ``image_rotary_emb``, by keyword.
    """
    given: list[Tensor] = []

    def take(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given[:] = [mask for mask in [kwargs.pop("attention_mask", None)] if mask is not None]
        return args, kwargs

    def add(_module: nn.Module, _args: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (*output, given.pop()[:, None, None, :]) if given else output

    transformer.register_forward_pre_hook(take, with_kwargs=True)
    rotary.register_forward_hook(add)
    for attention in attentions:
        attention.register_forward_pre_hook(_split, with_kwargs=True)


def _split(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    cos, sin, *mask = kwargs["image_rotary_emb"]
    kwargs["image_rotary_emb"] = (cos, sin)
    if mask:
        kwargs["attention_mask"] = mask[0]
    return args, kwargs
