"""Cosmos Predict2's published pipeline for pictures: T5, Wan's autoencoder, EDM's noise levels.

diffusers' class cannot be made without a safety checker of another package, so its parts are loaded one by one. It is
for whoever makes pictures for others; NVIDIA's licence asks for one there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, Cosmos2TextToImagePipeline, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.cosmos.pipeline_cosmos2_text2image import DEFAULT_NEGATIVE_PROMPT
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel

from selfflow_bench.pipelines.parts.assembled import Assembled
from selfflow_bench.pipelines.parts.standardized import StandardizedAutoencoder

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002
"""Noise levels of EDM (standard deviations), which the pipeline writes into its scheduler's configuration."""


class CosmosPublished(StandardizedAutoencoder):
    """Pictures, as clips of one frame. Its guidance leads away from a list of faults; its scale, 7, counts from 0."""

    pipeline_class = Cosmos2TextToImagePipeline
    steps = 35
    guidance = 8.0
    negative = DEFAULT_NEGATIVE_PROMPT
    longest = 512

    def load(self, snapshot: Path, dtype: torch.dtype, absent: Sequence[str]) -> Any:
        """Without the safety checker."""
        return Assembled.of(
            snapshot,
            absent,
            vae=(AutoencoderKLWan, torch.float32),
            text_encoder=(T5EncoderModel, dtype),
            tokenizer=(AutoTokenizer, None),
            scheduler=(FlowMatchEulerDiscreteScheduler, None),
        )

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``, zero behind a caption's end and attended without a mask."""
        text: Tensor = self.pipeline_class._get_t5_prompt_embeds(self.pipeline, captions, length, self.device)
        return {"text": text}

    def latents(self, values: Tensor) -> Tensor:
        """A picture is a clip of one frame, and stays one."""
        return super().latents(values[:, :, None] if values.ndim == 4 else values)

    def decoded(self, latents: Tensor) -> Tensor:
        """The one frame."""
        return super().decoded(latents)[:, :, 0]

    def scheduler(self) -> Any:
        """EDM's steps as steps of rectified flow."""
        scheduler = EDMFlowScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.register_to_config(sigma_max=SIGMA_MAX, sigma_min=SIGMA_MIN)
        return scheduler

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """As many; where they lie is the scheduler's configuration."""
        return {"sigmas": np.linspace(0.0, 1.0, steps)}

    @property
    def noise_scale(self) -> float:
        """Not pure noise: EDM's highest level on the flow's scale."""
        return SIGMA_MAX / (1 + SIGMA_MAX)


class EDMFlowScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler steps of EDM, x0 + s noise, for latents and velocities of rectified flow.

    Latents of one are the other's divided by 1 + s, and a sigma is s / (1 + s): a step is the same step in both. The
    last one leads nowhere, as in the pipeline, and ends on EDM's scale.
    """

    def set_timesteps(self, *args: Any, **values: Any) -> None:
        """From EDM's levels to sigmas."""
        super().set_timesteps(*args, **values)
        levels: Tensor = self.sigmas
        self.sigmas: Tensor = levels / (1 + levels)
        self.sigmas[-1] = self.sigmas[-2]
        self.timesteps = self.sigmas[:-1] * self.config.num_train_timesteps

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **values: Any) -> Any:
        """Returns a tuple, whatever is asked."""
        made = super().step(model_output, timestep, sample, *args, **{**values, "return_dict": False})[0]
        return (made / (1 - self.sigmas[-1]) if self.step_index == len(self.timesteps) else made,)
