"""LongCat-Video's transformer (arXiv 2510.22200) from the parts of diffusers' Wan.

The published text-to-video forward: module for module the same sizes, so the same number of parameters. Left out are
what serves its continuation of clips (clean frames with their own attention, cached keys), block-sparse attention and
parallelism. Parameters start as torch makes them; the published code has no initialisation of its own.
"""

from __future__ import annotations

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding, Timesteps, apply_rotary_emb
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-6
_POSITIONS = 1024
"""Patches along an axis that the position tables cover."""
Rotary = tuple[Tensor, Tensor]
"""Cosines and sines, each ``[1, N, 1, D / heads]``."""


class LongCatVideoAttention(nn.Module):
    """Attention of tokens over themselves or over text; unlike Wan's, queries and keys are normed head by head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_q, self.norm_k = nn.RMSNorm(dim // heads, _EPS), nn.RMSNorm(dim // heads, _EPS)
        self.to_out = nn.Linear(dim, dim)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        mask: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> Tensor:
        """``[B, N, D]`` over ``[B, T, D]`` (or itself); ``mask``: bool ``[B, T]``, the text that is attended to."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = self.norm_q(self.to_q(hidden_states).unflatten(-1, (self.heads, -1))).transpose(1, 2)
        key = self.norm_k(self.to_k(source).unflatten(-1, (self.heads, -1))).transpose(1, 2)
        value = self.to_v(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        if rotary is not None:
            tables = rotary[0][0, :, 0], rotary[1][0, :, 0]
            query, key = apply_rotary_emb(query, tables), apply_rotary_emb(key, tables)
        attended = F.scaled_dot_product_attention(
            query, key, value.to(query.dtype), attn_mask=None if mask is None else mask[:, None, None]
        )
        made: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return made


class LongCatVideoBlock(nn.Module):
    """Self-attention, attention over text, SwiGLU; each block makes its six rows from the small time embedding."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, time_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(time_dim, 6 * dim)
        self.norm1 = FP32LayerNorm(dim, _EPS, elementwise_affine=False)
        self.attn1 = LongCatVideoAttention(dim, heads)
        self.norm2 = FP32LayerNorm(dim, _EPS, elementwise_affine=True)
        self.attn2 = LongCatVideoAttention(dim, heads)
        self.norm3 = FP32LayerNorm(dim, _EPS, elementwise_affine=False)
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn="swiglu", bias=False)

    def forward(self, hidden_states: Tensor, text: Tensor, mask: Tensor | None, time: Tensor, rotary: Rotary) -> Tensor:
        """``hidden_states``: ``[B, N, D]``; ``text``: ``[B, T, D]``; ``time``: ``[B, time_dim]``.

        Modulation and its norms are computed in float32, as published.
        """
        rows = self.modulation(F.silu(time)).float()[:, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = rows
        normed = (self.norm1(hidden_states.float()) * (1 + scale_a) + shift_a).type_as(hidden_states)
        attended = self.attn1(normed, rotary=rotary)
        hidden_states = (hidden_states.float() + attended.float() * gate_a).type_as(hidden_states)
        hidden_states = hidden_states + self.attn2(self.norm2(hidden_states), text, mask)
        normed = (self.norm3(hidden_states.float()) * (1 + scale_f) + shift_f).type_as(hidden_states)
        made: Tensor = (hidden_states.float() + self.ffn(normed).float() * gate_f).type_as(hidden_states)
        return made


class LongCatVideoTransformer3DModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Video tokens attend to each other with rotary positions and to text; the time modulates them block by block.

    Arguments are named as in the published configuration. ``mlp_ratio``: the feed-forward is 2/3 of it, rounded up to
    a multiple of 256. ``text_tokens_zero_pad``: text behind a caption's end is zeroed and attended to, not masked.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["LongCatVideoBlock"]
    _repeated_blocks = ["LongCatVideoBlock"]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 16,
        out_channels: int = 16,
        hidden_size: int = 4096,
        depth: int = 48,
        num_heads: int = 32,
        caption_channels: int = 4096,
        mlp_ratio: int = 4,
        adaln_tembed_dim: int = 512,
        frequency_embedding_size: int = 256,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        text_tokens_zero_pad: bool = False,
    ) -> None:
        super().__init__()
        self.rope = WanRotaryPosEmbed(hidden_size // num_heads, patch_size, _POSITIONS)
        self.patch_embedding = nn.Conv3d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)
        self.time_proj = Timesteps(frequency_embedding_size, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedder = TimestepEmbedding(frequency_embedding_size, adaln_tembed_dim)
        self.text_embedder = PixArtAlphaTextProjection(caption_channels, hidden_size, act_fn="gelu_tanh")
        ffn_dim = 256 * math.ceil(2 * hidden_size * mlp_ratio // 3 / 256)
        self.blocks = nn.ModuleList(
            LongCatVideoBlock(hidden_size, num_heads, ffn_dim, adaln_tembed_dim) for _ in range(depth)
        )
        self.modulation_out = nn.Linear(adaln_tembed_dim, 2 * hidden_size)
        self.norm_out = FP32LayerNorm(hidden_size, _EPS, elementwise_affine=False)
        self.proj_out = nn.Linear(hidden_size, out_channels * math.prod(patch_size))
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """``hidden_states``: ``[B, C, frames, height, width]``; ``timestep``: ``[B]``, 1000 sigma; text ``[B, T, D]``.

        Returns data - noise, ``[B, C, frames, height, width]``.
        """
        patch = self.config.patch_size
        grid = [cells // size for cells, size in zip(hidden_states.shape[2:], patch, strict=True)]
        rotary = self.rope(hidden_states)
        hidden_states = self.patch_embedding(hidden_states).flatten(2).transpose(1, 2).contiguous()
        time = self.time_embedder(self.time_proj(timestep).to(self.time_embedder.linear_1.weight.dtype))
        text, mask = self.text_embedder(encoder_hidden_states), encoder_attention_mask
        if self.config.text_tokens_zero_pad and mask is not None:
            text, mask = text * mask[..., None], None
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states, text, mask, time, rotary)
            else:
                hidden_states = block(hidden_states, text, mask, time, rotary)
        shift, scale = self.modulation_out(F.silu(time)).float()[:, None].chunk(2, dim=-1)
        normed = (self.norm_out(hidden_states.float()) * (1 + scale) + shift).type_as(hidden_states)
        # Each token's numbers are ordered (time, height, width, channel).
        patches = self.proj_out(normed).unflatten(2, (*patch, -1)).unflatten(1, grid)
        output = patches.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)
