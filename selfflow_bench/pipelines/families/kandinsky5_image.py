"""Kandinsky 5 Image's published pipeline: Qwen 2.5-VL, CLIP, FLUX.1's autoencoder."""

from __future__ import annotations

from diffusers import Kandinsky5T2IPipeline

from selfflow_bench.pipelines.parts.kandinsky5 import Kandinsky5Published


class Kandinsky5ImagePublished(Kandinsky5Published):
    """Pictures whose sides are multiples of 16; the pipeline itself knows seven sizes of about a megapixel."""

    pipeline_class = Kandinsky5T2IPipeline
    guidance = 3.5
