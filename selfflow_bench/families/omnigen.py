"""OmniGen (arXiv 2409.11340): a language model over [text, time, image]; time is a token, and in the last norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, OmniGenTransformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family
from selfflow_bench.families.parts.context_rows import put_out_context_row


class OmniGen(Family):
    """Images. Output: data - noise. Time: 1 - sigma.

    No block is modulated: a token's own time reaches its last norm alone, and the blocks see the time token, which
    takes the context's row. Text comes as token numbers, for the model's own embedding.
    """

    modality = "image"
    modulates_context = True
    transformer_class = OmniGenTransformer2DModel

    def attach(self, transformer: nn.Module) -> None:
        """The time token has the mean over the target tokens."""
        put_out_context_row(transformer.get_submodule("time_token"))

    def countable(self, transformer: nn.Module) -> nn.Module:
        """Rotary tables of the right size: making them asks for an autocast type that meta tensors do not have."""
        width, heads = self.config.get("hidden_size", 3072), self.config.get("num_attention_heads", 32)
        transformer.rope = _Tables(int(width) // int(heads))
        return transformer

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide in the published model."""
        size = int(self.config.get("patch_size", 2))
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All layers are alike; each returns [text, time, image]."""
        return list(transformer.get_submodule("layers").children())

    def model_time(self, sigma: Tensor) -> Tensor:
        """Runs from noise to data."""
        return 1 - sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions padded on the left; text and time see what came before them, the image sees all, as published.

        Positions count from the padding's start in every sample, because the class gives all samples the first one's
        (diffusers 0.42.1); rotary embeddings only know distances, so this changes nothing else.
        """
        ids, mask = conditions["text_ids"], conditions["text_mask"]
        rows, columns = self.token_grid(latents.shape[1:])
        length, tokens = mask.shape[1], rows * columns
        padding = length - mask.sum(1, keepdim=True)
        source = torch.arange(length, device=ids.device) - padding
        place = torch.arange(length + 1 + tokens, device=ids.device)
        real = place >= padding
        seen = (place <= place[:, None]) | (place[:, None] > length)
        attention = (seen & real[:, None]) | ~real[:, :, None]
        return {
            "hidden_states": latents,
            "timestep": time,
            "input_ids": torch.where(source >= 0, ids.gather(1, source.clamp_min(0)), 0),
            "input_img_latents": [],
            "input_image_sizes": {},
            "attention_mask": attention.to(latents.dtype),
            "position_ids": place.expand(len(ids), -1),
        }

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """Turned round."""
        return -output

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """The image comes last."""
        rows, columns = self.token_grid(latents.shape[1:])
        tokens: Tensor = output[:, -rows * columns :]
        return tokens

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on flow sigmas (there counted from the other end)."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)


class _Tables(nn.Module):
    """Cosines and sines ``[S, D]`` without values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        table = tokens.new_empty(tokens.shape[1], self.width)
        return table, table
