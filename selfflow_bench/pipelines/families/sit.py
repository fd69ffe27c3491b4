"""SiT's surroundings: Stable Diffusion's autoencoder of 4 channels, and no text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from selfflow_bench.pipelines.parts.assembled import Assembled
from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class SiTPublished(ScaledAutoencoder):
    """The folder is the autoencoder's alone. Sampled by classes: what is guided away from is the class of none."""

    pipeline_class = AutoencoderKL
    steps = 250
    guidance = 1.5
    longest = 0

    def load(self, snapshot: Path, dtype: torch.dtype, absent: Sequence[str]) -> Any:
        """With Euler steps on flow sigmas, which need no settings."""
        vae = self.pipeline_class.from_pretrained(snapshot, torch_dtype=torch.float32, local_files_only=True)
        return Assembled(vae=vae, scheduler=FlowMatchEulerDiscreteScheduler())

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """None: labels are the data's."""
        return {}
