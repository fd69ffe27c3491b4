"""Z-Image Omni: Z-Image's class with reference pictures. A structural stand-in: no checkpoint was ever released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import REFERENCE, Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean
from selfflow_bench.families.parts.packing import pack
from selfflow_bench.families.parts.padded_parts import MULTIPLE, padded


class ZImageOmni(Family):
    """Images. Output: data - noise. Time: 1 - sigma; the class itself gives clean parts the time 1.

    A sample is [caption's first token, the rest of it, reference, target, reference's features], each part padded to 32
    tokens; those of the reference are clean. The features, SigLIP's in the class's plan, are here the reference's own
    latent patches, unless there is a condition ``reference_features`` ``[B, h, w, D]``.
    """

    modality = "image"
    modulates_context = True
    needs = (REFERENCE,)
    transformer_class = ZImageTransformer2DModel

    def attach(self, transformer: nn.Module) -> None:
        """Text and padding get the mean of the time embedding."""
        fill_context_mean(transformer.get_submodule("t_embedder"))

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide."""
        size = int(self.config.get("all_patch_size", (2,))[0])
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """The noise refiners over [reference, target], then the joint layers."""
        return [
            *transformer.get_submodule("noise_refiner").children(),
            *transformer.get_submodule("layers").children(),
        ]

    def model_time(self, sigma: Tensor) -> Tensor:
        """Runs from noise to data."""
        return 1 - sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Lists of lists: of each sample its captions, pictures and features; 0 marks a clean picture."""
        reference, text = conditions[REFERENCE], conditions["text"]
        grid = self.token_grid(latents.shape[1:])
        features = conditions.get("reference_features")
        if features is None:
            features = torch.unflatten(pack(reference, self.patch()), 1, grid)
        return {
            "x": [list(pair) for pair in zip(reference[:, :, None], latents[:, :, None], strict=True)],
            "t": time,
            "cap_feats": [[caption[:1], caption[1:]] for caption in text],
            "siglip_feats": [[feature, None] for feature in features],
            "image_noise_mask": [[0, 1]] * latents.shape[0],
            "patch_size": self.patch()[0],
        }

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        """Turned round, without the frame axis."""
        return -torch.stack(list(output))[:, :, 0]

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The refiners' [reference, target] and the layers' whole, padding with its part."""
        batch, tokens = target.shape

        def part(level: int, length: int) -> Tensor:
            return target.new_full((batch, length), level)

        room = padded(tokens)
        pictures = torch.cat([part(clean, room), target, part(context, room - tokens)], 1)
        captions = [part(clean, MULTIPLE), part(context, padded(conditions["text"].shape[1] - 1))]
        signs = tokens
        if "reference_features" in conditions:
            signs = math.prod(conditions["reference_features"].shape[1:3])
        features = [part(clean, padded(signs)), part(context, MULTIPLE)]
        return [pictures, torch.cat([*captions, pictures, *features], 1)]

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Behind the reference, and in the layers behind the caption too."""
        rows, columns = self.token_grid(latents.shape[1:])
        room = padded(rows * columns)
        start = room if output.shape[1] == 2 * room else MULTIPLE + padded(conditions["text"].shape[1] - 1) + room
        tokens: Tensor = output[:, start : start + rows * columns]
        return tokens

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
