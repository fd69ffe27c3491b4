"""Anima (circlestone labs): the Cosmos transformer for pictures, behind a text conditioner of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AnimaTextConditioner, CosmosTransformer3DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.architectures.anima import AnimaModel
from selfflow_bench.families.base import IDS_MASK, Conditions, Family

_PARTS = {"transformer": CosmosTransformer3DModel, "text_conditioner": AnimaTextConditioner}


class Anima(Family):
    """Images, as clips of one frame. Output: noise - data. Time: sigma itself."""

    modality = "image"
    transformer_class = AnimaModel
    adapter_prefix = ""  # its own layers' names begin with the part's

    def load(self, snapshot: Path, dtype: torch.dtype) -> nn.Module:
        """Two folders of the checkpoint."""
        with torch.device("meta"):
            made = self.make()
        for name, kind in _PARTS.items():
            part = kind.from_pretrained(snapshot / name, torch_dtype=dtype, local_files_only=True)
            setattr(made, name, part)
        return made

    def save(self, transformer: nn.Module, folder: Path) -> None:
        """Two folders."""
        for name in _PARTS:
            getattr(transformer, name).save_pretrained(folder / name)

    def patch(self) -> tuple[int, ...]:
        """(height, width)."""
        return tuple(int(size) for size in self.config["transformer_config"].get("patch_size", (1, 2, 2))[1:])

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the image tokens."""
        return list(transformer.get_submodule("transformer.transformer_blocks").children())

    def model_time(self, sigma: Tensor) -> Tensor:
        """Not scaled."""
        return sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """The caption's states are the conditioner's source, its token numbers the conditioner's target."""
        arguments = {
            "hidden_states": latents[:, :, None],
            "timestep": time,
            "text": conditions["text"],
            "text_mask": conditions["text_mask"],
            "text_ids": conditions["text_ids"],
            "padding_mask": latents.new_zeros(1, 1, *latents.shape[-2:]),
        }
        if IDS_MASK in conditions:
            arguments["text_ids_mask"] = conditions[IDS_MASK]
        return arguments

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """Without the frame axis."""
        return output[:, :, 0]

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
