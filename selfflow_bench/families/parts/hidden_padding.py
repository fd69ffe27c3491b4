"""Captions of several lengths at once in Kandinsky 5's transformer, whose class attends to all text it is given.

The published pipeline gives it one caption without padding. Here what is not attended is zero all the way through the
text's blocks, and attention does not read rows of zeros, so that every caption is what it is alone. The mask is in the
text itself, because gradient checkpointing hands blocks nothing else. Without a mask all is as in the class.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_kandinsky import Kandinsky5AttnProcessor
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ARGUMENT = "text_attended"
"""Of the forward, by keyword: bool ``[B, T]``."""


def hide_padding(transformer: nn.Module) -> None:
    """Let a transformer take `ARGUMENT`. By hooks, and by another processor in the attention to text."""
    attention = _AttentionToText()
    embedding = transformer.get_submodule("text_embeddings")
    # What hooks need is found from the module they are called with, so that a copy of it has its own.
    embedding.attention_to_text = attention
    transformer.register_forward_pre_hook(_take, with_kwargs=True)
    embedding.register_forward_hook(_emptied)
    for block in transformer.get_submodule("text_transformer_blocks").children():
        block.get_submodule("self_attention").set_processor(attention)  # type: ignore[operator]
        block.register_forward_pre_hook(_with_mask)
        block.register_forward_hook(_emptied_again)
    for block in transformer.get_submodule("visual_transformer_blocks").children():
        block.get_submodule("cross_attention").set_processor(attention)  # type: ignore[operator]


def _take(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    attention: Any = module.get_submodule("text_embeddings").attention_to_text
    attention.attended = kwargs.pop(ARGUMENT, None)
    # Stays so until the next forward: blocks run again in backward.
    attention.hides = attention.attended is not None
    return args, kwargs


def _emptied(module: Any, _args: Any, text: Tensor) -> Tensor:
    attended, module.attention_to_text.attended = module.attention_to_text.attended, None
    return text if attended is None else text * attended[..., None].to(text.dtype)


def _with_mask(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    text, time, rotary = args
    return (text, time, (rotary, _seen(text))) if module.self_attention.processor.hides else args


def _emptied_again(module: Any, args: tuple[Any, ...], text: Tensor) -> Tensor:
    return text * _seen(args[0])[..., None].to(text.dtype) if module.self_attention.processor.hides else text


class _AttentionToText(Kandinsky5AttnProcessor):  # type: ignore[misc]
    """The class's own, unless there is something to hide."""

    hides = False
    attended: Tensor | None = None
    """On its way to the text's embeddings."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        rotary_emb: Any = None,
        sparse_params: Any = None,
    ) -> Tensor:
        """From the text to itself, or from the picture's tokens to the text."""
        if not self.hides:
            made: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, rotary_emb, sparse_params)
            return made
        if encoder_hidden_states is None:
            source, (rotary, seen) = hidden_states, rotary_emb
        else:
            source, rotary, seen = encoder_hidden_states, None, _seen(encoder_hidden_states)
        query, key, value = (
            layer(states).unflatten(-1, (attn.num_heads, -1))
            for layer, states in ((attn.to_query, hidden_states), (attn.to_key, source), (attn.to_value, source))
        )
        query = _turned(attn.query_norm(query.float()), rotary).type_as(query)
        key = _turned(attn.key_norm(key.float()), rotary).type_as(key)
        found = scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=seen[:, None, None, :]
        )
        out: Tensor = attn.out_layer(found.transpose(1, 2).flatten(-2))
        return out


def _seen(text: Tensor) -> Tensor:
    """Rows that are not all zero."""
    return (text != 0).any(-1)


def _turned(states: Tensor, rotary: Tensor | None) -> Tensor:
    """By the class's rotary embedding, matrices of two by two; rounded as there."""
    if rotary is None:
        return states
    pairs = torch.unflatten(states.float(), -1, (-1, 1, 2))
    return torch.mul(rotary, pairs).sum(-1).flatten(-2).bfloat16()
