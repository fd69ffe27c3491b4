"""Families of two-stream blocks (text beside image) and then one-stream blocks over [text, image], as FLUX has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import GUIDANCE, REFERENCE, Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean, take_context_row
from selfflow_bench.families.parts.packing import grid_positions, pack, unpack


def text_and_image_levels(target: Tensor, context: int, conditions: Conditions) -> list[Tensor]:
    """The image sequence [target, reference] and the joint one [text, target, reference].

    The published pipelines call these models with one time for all tokens, so that a reference, whose latents are
    clean, is modulated as context is.
    """
    batch, text = conditions["text"].shape[:2]
    image = target
    if REFERENCE in conditions:
        image = torch.cat([target, torch.full_like(target, context)], 1)
    return [image, torch.cat([target.new_full((batch, text), context), image], 1)]


def embedded_guidance(latents: Tensor, conditions: Conditions) -> Tensor:
    """``[B]``: the scale for models that embed it, 1 unless the conditions say otherwise."""
    if GUIDANCE in conditions:
        return conditions[GUIDANCE]
    return torch.ones(latents.shape[0], device=latents.device)


class TwoStreams(Family):
    """Packed 2x2 latents; blocks return (text, image); the text's modulation is in ``norm1_context``."""

    modality = "image"
    modulates_context = True
    time_embedding = "time_text_embed"

    def attach(self, transformer: nn.Module) -> None:
        """Text gets the mean of the time embedding, in its own norms as one row per sample."""
        fill_context_mean(transformer.get_submodule(self.time_embedding))
        for block in transformer.get_submodule("transformer_blocks").children():
            take_context_row(block.get_submodule("norm1_context"))

    def patch(self) -> tuple[int, ...]:
        """The caller packs 2x2 cells into a token."""
        return (2, 2)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Two-stream blocks, then one-stream ones."""
        return [
            *transformer.get_submodule("transformer_blocks").children(),
            *transformer.get_submodule("single_transformer_blocks").children(),
        ]

    def model_time(self, sigma: Tensor) -> Tensor:
        """The class multiplies by 1000 itself."""
        return sigma

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The image's tokens, and the one-stream blocks' [text, image]."""
        return text_and_image_levels(target, context, conditions)

    def image_arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Packed target and, behind it, reference tokens, with what all such families take."""
        packed = [pack(latents, self.patch())]
        if REFERENCE in conditions:
            packed.append(pack(conditions[REFERENCE], self.patch()))
        return {
            "hidden_states": torch.cat(packed, 1),
            "encoder_hidden_states": conditions["text"],
            "timestep": time,
            "img_ids": self.image_positions(latents, conditions),
            "txt_ids": self.text_positions(conditions["text"]),
        }

    def image_positions(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """``[N, 3]``: an index of the picture, row, column."""
        places = grid_positions(self.token_grid(latents.shape[1:]), latents.device)
        return torch.cat([torch.zeros_like(places[:, :1]), places], 1)

    def text_positions(self, text: Tensor) -> Tensor:
        """``[T, 3]``: all at the origin."""
        return torch.zeros(text.shape[1], 3, device=text.device)

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """The target's tokens, unpacked."""
        grid = self.token_grid(latents.shape[1:])
        return unpack(output[:, : grid[0] * grid[1]], grid, self.patch())

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Of (text, image) the image, without reference tokens."""
        _, image = output
        grid = self.token_grid(latents.shape[1:])
        tokens: Tensor = image[:, : grid[0] * grid[1]]
        return tokens
