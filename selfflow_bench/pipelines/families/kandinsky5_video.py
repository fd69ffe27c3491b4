"""Kandinsky 5 Video's published pipeline: Qwen 2.5-VL, CLIP, HunyuanVideo's autoencoder."""

from __future__ import annotations

from diffusers import Kandinsky5T2VPipeline

from selfflow_bench.pipelines.parts.kandinsky5 import Kandinsky5Published


class Kandinsky5VideoPublished(Kandinsky5Published):
    """Clips have one frame more than a multiple of four. Its guidance leads away from a list of faults.

    By the size of its clips the pipeline sets a scale of places; here it is the family's ``rope_scale_factor``.
    """

    pipeline_class = Kandinsky5T2VPipeline
    guidance = 5.0
    negative = (
        "Static, 2D cartoon, cartoon, 2d animation, paintings, images, worst quality, low quality, ugly, deformed, "
        "walking backwards"
    )
