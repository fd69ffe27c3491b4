"""Wan 2.2 S2V's transformer (sound to video, arXiv 2508.18621) from the parts of diffusers' Wan.

As published: module for module the same sizes, so the same number of parameters. The noisy video's tokens stand first,
then those of a reference picture and of the frames before the clip, at time 0 whatever the video's time is. After
chosen blocks each latent frame of the video attends to its own piece of the sound. Built is the published
configuration's path (packed motion frames, adaptive norms in the injectors), not its alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding, Timesteps
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNorm, FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F

AUDIO_FRAMES = 4
"""Frames of sound features per latent frame."""
MOTION_FRAMES = (1, 2, 16)
"""Latent frames before the clip, the nearest first, that share a patch size: 1, 2 and 4 times that of the video."""
REFERENCE_TIME = 30
"""Where the reference picture stands on the time axis of the positions."""
Rotary = tuple[Tensor, Tensor]
"""Cosines and sines, each ``[1, S, 1, D / heads]``."""


def rotary_tables(positions: Tensor, head_dim: int) -> Rotary:
    """``positions``: int64 ``[S, 3]``, (time, height, width), of any sign."""
    width = 2 * (head_dim // 6)
    angles = [
        positions[:, axis, None] * 10000.0 ** (-torch.arange(0, size, 2, device=positions.device).double() / size)
        for axis, size in enumerate((head_dim - 2 * width, width, width))
    ]
    pairs = torch.cat(angles, -1).repeat_interleave(2, -1)[None, :, None]
    return pairs.cos().float(), pairs.sin().float()


def _attention(dim: int, heads: int, eps: float, *, cross: bool) -> Any:
    """Wan's attention over the tokens themselves, or over others: it norms queries and keys across heads."""
    width = dim // heads
    across = width if cross else None
    return WanAttention(dim, heads, width, eps, cross_attention_dim_head=across, processor=WanAttnProcessor())


def _thinned(count: int, length: int, device: torch.device) -> Tensor:
    """``count`` of the positions 0 .. length - 1, evenly, from the first to the last."""
    return torch.arange(count, device=device) * (length - 1) // max(count - 1, 1)


def _tokens(patches: Tensor) -> Tensor:
    """``[B, D, *grid] -> [B, N, D]``."""
    return patches.flatten(2).transpose(1, 2)


class FramePacker(nn.Module):
    """The frames before the clip as tokens, fewer for older frames."""

    def __init__(self, in_channels: int, dim: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        sizes = [(factor * patch[0], factor * patch[1], factor * patch[2]) for factor in (1, 2, 4)]
        self.projections = nn.ModuleList(nn.Conv3d(in_channels, dim, size, size) for size in sizes)

    def forward(self, motion: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        """``motion``: ``[B, C, F, height, width]``, the newest frame last; older ones than given are zero.

        Returns tokens ``[B, M, D]`` and their positions ``[M, 3]`` on the video's ``grid``, before its time 0.
        """
        frames = F.pad(motion, (0, 0, 0, 0, sum(MOTION_FRAMES) - motion.shape[2], 0))
        tokens, positions, end = [], [], 0
        for project, length in zip(self.projections, MOTION_FRAMES, strict=True):
            start = end - length
            patches = project(frames[:, :, start : end or None])
            axes = [
                _thinned(n, to, motion.device) for n, to in zip(patches.shape[2:], (length, *grid[1:]), strict=True)
            ]
            tokens.append(_tokens(patches))
            positions.append(torch.cartesian_prod(axes[0] + start, axes[1], axes[2]))
            end = start
        return torch.cat(tokens, 1), torch.cat(positions)


class CausalAudioEncoder(nn.Module):
    """Sound features to a few tokens per latent frame, by convolutions that see no later sound than that frame's."""

    def __init__(self, channels: int, layers: int, dim: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.layer_weights = nn.Parameter(torch.full((1, layers, 1, 1), 0.01))
        self.conv_local = nn.Conv1d(channels, dim // 4 * tokens, 3)
        self.conv_global = nn.Conv1d(channels, dim // 4, 3)
        self.conv2 = nn.Conv1d(dim // 4, dim // 2, 3, stride=2)
        self.conv3 = nn.Conv1d(dim // 2, dim, 3, stride=2)
        self.linear_global = nn.Linear(dim, dim)
        self.padding_token = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, layers, 4 T, channels]`` to one vector ``[B, T, D]`` and tokens ``[B, T, tokens + 1, D]`` a frame."""
        weights = F.silu(self.layer_weights)
        # One more first frame puts the end of each stride of four on the last of a latent frame's four.
        mixed = ((audio * weights).sum(1) / weights.sum(1)).transpose(1, 2)
        mixed = torch.cat([mixed[..., :1], mixed], -1)
        local = torch.unflatten(_causal(self.conv_local, mixed), 1, (self.tokens, -1))
        streams = torch.cat([_causal(self.conv_global, mixed)[:, None], local], 1).flatten(0, 1)
        streams = _activated(_causal(self.conv3, _activated(_causal(self.conv2, _activated(streams)))))
        frames = torch.unflatten(streams[..., 1:], 0, (-1, self.tokens + 1)).permute(0, 3, 1, 2)
        padding = self.padding_token.expand(*frames.shape[:2], 1, -1).to(frames.dtype)
        return self.linear_global(frames[:, :, 0]), torch.cat([frames[:, :, 1:], padding], 2)


def _causal(convolution: nn.Module, signal: Tensor) -> Tensor:
    made: Tensor = convolution(torch.cat([signal[..., :1], signal[..., :1], signal], -1))
    return made


def _activated(signal: Tensor) -> Tensor:
    normed = F.layer_norm(signal.transpose(1, 2), signal.shape[1:2], eps=1e-6)
    return F.silu(normed).transpose(1, 2)


class AudioInjector(nn.Module):
    """Attention of each latent frame's video tokens over its sound tokens; starts as the identity."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.norm = AdaLayerNorm(dim, output_dim=2 * dim, chunk_dim=1)
        self.attn = _attention(dim, heads, eps, cross=True)
        for added in (*self.norm.linear.parameters(), *self.attn.to_out[0].parameters()):
            nn.init.zeros_(added)

    def forward(self, hidden_states: Tensor, whole: Tensor, tokens: Tensor) -> Tensor:
        """``[B, N, D]`` with ``whole`` ``[B, T, D]`` and ``tokens`` ``[B, T, A, D]``."""
        frames = torch.unflatten(hidden_states, 1, (whole.shape[1], -1)).flatten(0, 1)
        attended: Tensor = self.attn(self.norm(frames, temb=whole.flatten(0, 1)), tokens.flatten(0, 1))
        return hidden_states + attended.reshape(hidden_states.shape)


class WanS2VBlock(nn.Module):
    """Wan's block with two times: that of the first tokens (the video), and 0 for the others."""

    def __init__(self, dim: int, ffn_dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)
        self.norm1 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.attn1 = _attention(dim, heads, eps, cross=False)
        self.norm2 = FP32LayerNorm(dim, eps, elementwise_affine=True)
        self.attn2 = _attention(dim, heads, eps, cross=True)
        self.norm3 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate")

    def forward(
        self, hidden_states: Tensor, video: int, text: Tensor, time: Tensor, clean: Tensor, rotary: Rotary
    ) -> Tensor:
        """``hidden_states``: ``[B, S, D]``, the first ``video`` of them at ``time`` ``[B, 6, D]``.

        ``clean``: ``[1, 6, D]``, the rows of time 0. Modulation and its norms are computed in float32, as in Wan.
        """
        rows = [(self.scale_shift_table + of.float()).chunk(6, dim=1) for of in (time, clean)]

        def modulated(tokens: Tensor, shift: int, scale: int) -> Tensor:
            parts = zip((tokens[:, :video], tokens[:, video:]), rows, strict=True)
            return torch.cat([part * (1 + row[scale]) + row[shift] for part, row in parts], 1)

        def gated(tokens: Tensor, gate: int) -> Tensor:
            parts = zip((tokens[:, :video], tokens[:, video:]), rows, strict=True)
            return torch.cat([part * row[gate] for part, row in parts], 1)

        normed = modulated(self.norm1(hidden_states.float()), 0, 1).type_as(hidden_states)
        attended = self.attn1(normed, rotary_emb=rotary)
        hidden_states = (hidden_states.float() + gated(attended.float(), 2)).type_as(hidden_states)
        hidden_states = hidden_states + self.attn2(self.norm2(hidden_states), text)
        normed = modulated(self.norm3(hidden_states.float()), 3, 4).type_as(hidden_states)
        return (hidden_states.float() + gated(self.ffn(normed).float(), 5)).type_as(hidden_states)


class WanS2VTransformer3DModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Arguments are named as in the published configuration, and the two sizes that it takes from its audio encoder.

    ``audio_layers``: sets of features per frame (the layers of wav2vec); they are averaged with learnt weights.
    ``audio_inject_layers``: the blocks, counted from 0, after which sound comes in. ``cond_dim``: channels of a pose
    video, added to the noisy one; without it they are zero.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["WanS2VBlock"]
    _repeated_blocks = ["WanS2VBlock"]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        in_dim: int = 16,
        out_dim: int = 16,
        cond_dim: int = 16,
        dim: int = 5120,
        ffn_dim: int = 13824,
        freq_dim: int = 256,
        text_dim: int = 4096,
        num_heads: int = 40,
        num_layers: int = 40,
        audio_dim: int = 1024,
        audio_layers: int = 25,
        num_audio_token: int = 4,
        audio_inject_layers: tuple[int, ...] = (0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39),
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv3d(in_dim, dim, kernel_size=patch_size, stride=patch_size)
        self.pose_embedding = nn.Conv3d(cond_dim, dim, kernel_size=patch_size, stride=patch_size)
        self.frame_packer = FramePacker(in_dim, dim, patch_size)
        self.kind_embedding = nn.Embedding(3, dim)
        self.time_proj = Timesteps(freq_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedder = TimestepEmbedding(freq_dim, dim)
        self.time_modulation = nn.Linear(dim, 6 * dim)
        self.text_embedder = PixArtAlphaTextProjection(text_dim, dim, act_fn="gelu_tanh")
        self.audio_encoder = CausalAudioEncoder(audio_dim, audio_layers, dim, num_audio_token)
        self.blocks = nn.ModuleList(WanS2VBlock(dim, ffn_dim, num_heads, eps) for _ in range(num_layers))
        self.injectors = nn.ModuleDict({str(k): AudioInjector(dim, num_heads, eps) for k in audio_inject_layers})
        self.norm_out = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.proj_out = nn.Linear(dim, out_dim * math.prod(patch_size))
        # As published: what Wan's own weights do not know starts without a say.
        for added in (*self.kind_embedding.parameters(), *self.pose_embedding.parameters()):
            nn.init.zeros_(added)
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        reference: Tensor,
        audio: Tensor,
        motion: Tensor | None = None,
        pose: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """One forward.

        Args:
            hidden_states: noisy latents ``[B, C, frames, height, width]``.
            timestep: ``[B]``, 1000 sigma.
            encoder_hidden_states: text ``[B, T, text_dim]``.
            reference: clean latents of a picture, ``[B, C, 1, height, width]``.
            audio: ``[B, audio_layers, 4 frames, audio_dim]``.
            motion: clean latents before the clip, ``[B, C, any number, height, width]``, or none.
            pose: latents of a pose video, ``[B, cond_dim, frames, height, width]``, or none.
            return_dict: whether to return diffusers' output class or a tuple.

        Returns:
            noise - data, ``[B, out_dim, frames, height, width]``.
        """
        if audio.shape[2] != AUDIO_FRAMES * hidden_states.shape[2]:
            raise ValueError(f"{hidden_states.shape[2]} latent frames and {audio.shape[2]} of sound: not 4 to each")
        if pose is None:
            batch, _, *cells = hidden_states.shape
            pose = hidden_states.new_zeros(batch, self.config.cond_dim, *cells)
        patches = self.patch_embedding(hidden_states) + self.pose_embedding(pose)
        grid = patches.shape[2:]
        times, rows, columns = (torch.arange(size, device=patches.device) for size in grid)
        parts = [_tokens(patches), _tokens(self.patch_embedding(reference))]
        positions = [torch.cartesian_prod(axis, rows, columns) for axis in (times, times[:1] + REFERENCE_TIME)]
        if motion is not None:
            before, where = self.frame_packer(motion, grid)
            parts.append(before)
            positions.append(where)
        video = parts[0].shape[1]
        tokens = torch.cat([part + kind for part, kind in zip(parts, self.kind_embedding.weight, strict=False)], 1)
        rotary = rotary_tables(torch.cat(positions), self.config.dim // self.config.num_heads)

        embedded, time = self._time(timestep)
        _, clean = self._time(torch.zeros(1, device=tokens.device))
        text = self.text_embedder(encoder_hidden_states)
        sound = self.audio_encoder(audio)
        checkpointed = torch.is_grad_enabled() and self.gradient_checkpointing
        for index, block in enumerate(self.blocks):
            arguments = (tokens, video, text, time, clean, rotary)
            tokens = self._gradient_checkpointing_func(block, *arguments) if checkpointed else block(*arguments)
            if str(index) in self.injectors:
                heard = self.injectors[str(index)](tokens[:, :video], *sound)
                tokens = torch.cat([heard, tokens[:, video:]], 1)

        shift, scale = (self.scale_shift_table + embedded[:, None]).chunk(2, dim=1)
        normed = (self.norm_out(tokens[:, :video].float()) * (1 + scale) + shift).type_as(tokens)
        # Each token's numbers are ordered (time, height, width, channel).
        made = self.proj_out(normed).unflatten(2, (*self.config.patch_size, -1)).unflatten(1, tuple(grid))
        output = made.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _time(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """The time embedding ``[B, D]`` and the blocks' rows ``[B, 6, D]``."""
        embedded = self.time_embedder(self.time_proj(timestep).to(self.time_embedder.linear_1.weight.dtype))
        return embedded, self.time_modulation(F.silu(embedded)).unflatten(1, (6, -1))
