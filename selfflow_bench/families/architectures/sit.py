"""SiT (arXiv 2401.08740): DiT's class-conditional transformer (arXiv 2212.09748), trained as a flow.

diffusers' `DiTTransformer2DModel` is near but another: it embeds time and class anew in every block. This one is module
for module the published model, with its names of parameters, so that published weights load as they are (see
`selfflow_bench.families.architectures.sit_weights`). It knows nothing of training: labels are dropped by who makes the
batches.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import Timesteps, get_2d_sincos_pos_embed
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-6
_FREQUENCIES = 256


class PatchEmbedder(nn.Module):
    """Latents to tokens, row by row."""

    def __init__(self, in_channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, N, D]``."""
        tokens: Tensor = self.proj(latents)
        return tokens.flatten(2).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """A time, unscaled, to its embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sinusoids = Timesteps(_FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, time: Tensor) -> Tensor:
        """``[B] -> [B, D]``."""
        embedded: Tensor = self.mlp(self.sinusoids(time).to(self.mlp[0].weight.dtype))
        return embedded


class LabelEmbedder(nn.Module):
    """A class to its embedding; the row behind the last class stands for none."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, dim)

    def forward(self, labels: Tensor) -> Tensor:
        """int64 ``[B] -> [B, D]``."""
        embedded: Tensor = self.embedding_table(labels)
        return embedded


class SiTAttention(nn.Module):
    """Attention of the tokens over themselves."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``[B, N, D]``."""
        query, key, value = self.qkv(hidden_states).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        made: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return made


class SiTFeedForward(nn.Module):
    """Two layers with GELU in its approximation by tanh."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``[B, N, D]``."""
        made: Tensor = self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))
        return made


class SiTBlock(nn.Module):
    """Attention and feed-forward, each shifted, scaled and gated by what the block makes of time and class."""

    def __init__(self, dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, _EPS, elementwise_affine=False)
        self.attn = SiTAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, _EPS, elementwise_affine=False)
        self.mlp = SiTFeedForward(dim, inner)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, hidden_states: Tensor, conditioning: Tensor) -> Tensor:
        """``hidden_states``: ``[B, N, D]``; ``conditioning``: ``[B, D]``."""
        rows = self.adaLN_modulation(conditioning).unsqueeze(1).chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = rows
        hidden_states = hidden_states + gate_a * self.attn(self.norm1(hidden_states) * (1 + scale_a) + shift_a)
        made: Tensor = hidden_states + gate_f * self.mlp(self.norm2(hidden_states) * (1 + scale_f) + shift_f)
        return made


class SiTFinalLayer(nn.Module):
    """Tokens to the numbers of their patches."""

    def __init__(self, dim: int, numbers: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, _EPS, elementwise_affine=False)
        self.linear = nn.Linear(dim, numbers)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, hidden_states: Tensor, conditioning: Tensor) -> Tensor:
        """``hidden_states``: ``[B, N, D]``; ``conditioning``: ``[B, D]``."""
        shift, scale = self.adaLN_modulation(conditioning).unsqueeze(1).chunk(2, dim=-1)
        made: Tensor = self.linear(self.norm_final(hidden_states) * (1 + scale) + shift)
        return made


class SiTTransformer2DModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Square latents of one size; positions are fixed sinusoids, kept with the weights as published.

    Arguments are named as in the published code. ``learn_sigma``: the output has as many channels again, a relic of
    DiT's variances, which nothing trains and the forward drops. ``time_of_data``: 1 in SiT, whose output is then
    data - noise; 0 in REPA's code, with noise - data.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["SiTBlock"]
    _repeated_blocks = ["SiTBlock"]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        learn_sigma: bool = True,
        time_of_data: int = 1,
    ) -> None:
        super().__init__()
        self.x_embedder = PatchEmbedder(in_channels, hidden_size, patch_size)
        self.t_embedder = TimeEmbedder(hidden_size)
        self.y_embedder = LabelEmbedder(num_classes, hidden_size)
        side = input_size // patch_size
        positions = get_2d_sincos_pos_embed(hidden_size, side, base_size=side).float()
        self.pos_embed = nn.Parameter(positions[None], requires_grad=False)
        inner = int(hidden_size * mlp_ratio)
        self.blocks = nn.ModuleList(SiTBlock(hidden_size, num_heads, inner) for _ in range(depth))
        out_channels = 2 * in_channels if learn_sigma else in_channels
        self.final_layer = SiTFinalLayer(hidden_size, patch_size**2 * out_channels)
        self.gradient_checkpointing = False
        self._initialise()

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor, return_dict: bool = True
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """``hidden_states``: ``[B, C, H, W]``; ``timestep``: ``[B]`` in [0, 1]; ``class_labels``: int64 ``[B]``.

        Returns the velocity along its own time, ``[B, C, H, W]``.
        """
        rows, columns = (cells // self.config.patch_size for cells in hidden_states.shape[2:])
        tokens = self.x_embedder(hidden_states) + self.pos_embed
        conditioning = self.t_embedder(timestep) + self.y_embedder(class_labels)
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(block, tokens, conditioning)
            else:
                tokens = block(tokens, conditioning)
        # Each token's numbers are ordered (row, column, channel).
        patch = self.config.patch_size
        patches = self.final_layer(tokens, conditioning).unflatten(2, (patch, patch, -1)).unflatten(1, (rows, columns))
        output = patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)[:, : self.config.in_channels]
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _initialise(self) -> None:
        """As published: every block starts as the identity, and the output as zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patches = self.get_parameter("x_embedder.proj.weight")
        nn.init.xavier_uniform_(patches.view(len(patches), -1))
        nn.init.zeros_(self.get_parameter("x_embedder.proj.bias"))
        for name in ("y_embedder.embedding_table", "t_embedder.mlp.0", "t_embedder.mlp.2"):
            nn.init.normal_(self.get_parameter(f"{name}.weight"), std=0.02)
        for module in (*self.blocks, self.final_layer):
            _set_to_zero(module.get_submodule("adaLN_modulation.1"))
        _set_to_zero(self.final_layer.linear)


def _set_to_zero(layer: nn.Module) -> None:
    for value in layer.parameters():
        nn.init.zeros_(value)
