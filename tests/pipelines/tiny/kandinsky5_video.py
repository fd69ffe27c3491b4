"""As for pictures, with HunyuanVideo's autoencoder (4 frames, 8 cells to one, 16 channels)."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLHunyuanVideo, Kandinsky5T2VPipeline

from tests.pipelines.tiny import kandinsky5_image
from tests.pipelines.tiny.kandinsky5_image import laid_out, noise

LENGTH = kandinsky5_image.LENGTH
ATTACHED, ATOL = kandinsky5_image.ATTACHED, kandinsky5_image.ATOL
TRANSFORMER = {**kandinsky5_image.TRANSFORMER, "visual_cond": True, "rope_scale_factor": [1.0, 3.16, 3.16]}

__all__ = ["laid_out", "noise"]


def pipeline(transformer: Any) -> Kandinsky5T2VPipeline:
    """With a transformer of the configuration above."""
    vae = AutoencoderKLHunyuanVideo(block_out_channels=(4,) * 4, layers_per_block=1, norm_num_groups=2)
    return Kandinsky5T2VPipeline(vae=vae, **kandinsky5_image.others(transformer, shift=5.0))


def own(published: Any, _size: dict[str, int]) -> Any:
    """With the end of its template: one token a character is too many for the whole."""
    published.pipeline.prompt_template = published.pipeline.prompt_template[-300:]
    return published.pipeline
