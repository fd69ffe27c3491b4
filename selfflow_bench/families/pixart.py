"""PixArt-Sigma (arXiv 2403.04692): a DDPM that predicts the noise, one modulation shared by all blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family
from selfflow_bench.families.parts.ddpm import DDPM


class PixArt(Family):
    """Images. Output: noise, then variances that are not trained. Time: the DDPM step, a whole number from 0 to 999."""

    modality = "image"
    transformer_class = PixArtTransformer2DModel
    noising: ClassVar[DDPM] = DDPM()

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide in the published models."""
        size = int(self.config.get("patch_size", 2))
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the image tokens."""
        return list(transformer.get_submodule("transformer_blocks").children())

    def model_time(self, sigma: Tensor) -> Tensor:
        """The step that a sigma stands for."""
        return self.noising.step(sigma)

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions are attended under their mask."""
        return {
            "hidden_states": latents,
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "encoder_attention_mask": conditions["text_mask"],
        }

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """The first half of the channels."""
        return output[:, : latents.shape[1]]

    def scheduler(self, shift: float) -> DPMSolverMultistepScheduler:
        """As in the published pipeline: second-order DPM-Solver++ on the DDPM's steps, which know no shift."""
        if shift != 1:
            raise ValueError(f"pixart's DDPM schedule takes no timestep shift, not {shift}; set shift = 1.0")
        return DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02)

    def sampler_sigma(self, scheduler: Any, timestep: Tensor) -> Tensor:
        """Steps 0 to 999 on the sigma axis."""
        return timestep.float() / (DDPM.STEPS - 1)
