"""Z-Image (Tongyi, arXiv 2511.22699): refiners, then one stream of [image, text], each part padded to 32 tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import ATTENDED, Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean
from selfflow_bench.families.parts.padded_parts import padded


class ZImage(Family):
    """Images. Output: data - noise. Time: 1 - sigma. Padding is modulated as text is.

    Captions go in at their full padded length, unless the conditions say what of them is attended: cutting each at its
    end waits for the device.
    """

    modality = "image"
    modulates_context = True
    transformer_class = ZImageTransformer2DModel

    def attach(self, transformer: nn.Module) -> None:
        """Text and padding get the mean of the time embedding."""
        fill_context_mean(transformer.get_submodule("t_embedder"))

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide in the published models."""
        size = int(self.config.get("all_patch_size", (2,))[0])
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """The noise refiners over the image alone, then the joint layers."""
        return [
            *transformer.get_submodule("noise_refiner").children(),
            *transformer.get_submodule("layers").children(),
        ]

    def model_time(self, sigma: Tensor) -> Tensor:
        """Runs from noise to data."""
        return 1 - sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """The class takes lists of samples, pictures as clips of one frame."""
        return {
            "x": list(latents[:, :, None].unbind()),
            "t": time,
            "cap_feats": _captions(conditions),
            "patch_size": self.patch()[0],
        }

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        """Turned round, without the frame axis."""
        return -torch.stack(list(output))[:, :, 0]

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The refiners' [image, padding] and the layers' [image, padding, text, padding]."""
        batch, tokens = target.shape
        image = torch.cat([target, target.new_full((batch, padded(tokens) - tokens), context)], 1)
        longest = max(len(caption) for caption in _captions(conditions))
        text = target.new_full((batch, padded(longest)), context)
        return [image, torch.cat([image, text], 1)]

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """The image comes first."""
        rows, columns = self.token_grid(latents.shape[1:])
        tokens: Tensor = output[:, : rows * columns]
        return tokens

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)


def _captions(conditions: Conditions) -> list[Tensor]:
    """``[T, D]`` of each sample, without what is not attended behind it."""
    captions = conditions["text"].unbind()
    if ATTENDED not in conditions:
        return list(captions)
    lengths = conditions[ATTENDED].sum(1).tolist()
    return [caption[:length] for caption, length in zip(captions, lengths, strict=True)]
