"""Published pipelines on tiny ones saved by diffusers, and diffusers' own call of each, to compare with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import Cosmos2TextToImagePipeline
from torch import Tensor, nn

from selfflow_bench.by_name import names
from selfflow_bench.families.base import Family
from selfflow_bench.families.parts.packing import unpack
from selfflow_bench.pipelines import pipeline_class
from selfflow_bench.pipelines.base import PublishedPipeline
from selfflow_bench.pipelines.families.ace_step import AceStepPublished
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.registry import family_class
from tests.pipelines.tiny.cosmos import Unasked
from tests.pipelines.tiny_hub import tiny_checkpoint, tiny_transformer

FAMILIES = names("pipelines.families")
ASSEMBLED = ("sit",)
"""Families whose pipeline is assembled of parts: diffusers has none to compare with."""
CAPTION, OTHER = 'a Red fox, "far" away', "two boats"
# Its pipeline gives all of a batch the positions of the first, the caption: right only if that is not the shorter.
LONG = {"omnigen": CAPTION + " and far" * 45}
SECONDS = 0.4
SIZES = {
    "image": {"height": 64, "width": 96},
    "video": {"num_frames": 9, "height": 64, "width": 96},
    "audio": {"samples": round(48000 * SECONDS)},
}
SMALLER = {
    # An autoencoder that is slow on processors.
    "hunyuanvideo": {"num_frames": 5, "height": 32, "width": 48},
    # Its class fills oblong pictures with tokens, and the family does not.
    "hidream": {"height": 64, "width": 64},
    # Of a family of clips, but its pipeline makes pictures.
    "cosmos": {"height": 64, "width": 96},
}
# Where a pipeline writes before a caption, one token a character, more than that is needed.
LENGTHS = {
    "ace_step": 256,
    "hunyuanvideo": 1000,
    "kandinsky5_image": 300,
    "kandinsky5_video": 300,
    "lumina2": 256,
    "omnigen": 512,
    "qwen_image": 256,
    "z_image": 64,
    "flux2": 288,
}
CALLS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "omnigen": lambda call: without(call, "max_sequence_length"),
    "cosmos": lambda call: {**call, "guidance_scale": call["guidance_scale"] - 1},
    "z_image": lambda call: {**call, "guidance_scale": call["guidance_scale"] - 1},
    "qwen_image": lambda call: {
        **without(call, "guidance_scale"),
        "true_cfg_scale": call["guidance_scale"],
        "negative_prompt": "",
    },
    "sana": lambda call: {**call, "use_resolution_binning": False},
    "pixart": lambda call: {**call, "use_resolution_binning": False, "clean_caption": False},
    "sanavideo": lambda call: {
        **without(call, "num_frames"),
        "frames": call["num_frames"],
        "use_resolution_binning": False,
    },
    "hunyuanvideo": lambda call: without(call, "guidance_scale", "max_sequence_length"),
    # How long captions are is set on the pipeline itself.
    "longcat_image": lambda call: {**without(call, "max_sequence_length"), "enable_prompt_rewrite": False},
    # Padding is what its transformer attends to, and a longer prompt in the batch what makes it.
    "ace_step": lambda call: {
        "prompt": [CAPTION, " a" * call["max_sequence_length"]],
        "lyrics": ["", ""],
        "guidance_scale": call["guidance_scale"],
        "max_text_length": call["max_sequence_length"],
        "audio_duration": SECONDS,
    },
}
"""What a family's own pipeline is called with, where it differs."""


def without(call: dict[str, Any], *left_out: str) -> dict[str, Any]:
    """All but some arguments."""
    return {name: value for name, value in call.items() if name not in left_out}


class Case:
    """A family's published pipeline, loaded as the product does, and its tiny transformer."""

    def __init__(self, name: str, hub: Path) -> None:
        self.name = name
        self.snapshot = local_snapshot(tiny_checkpoint(name, hub))
        self.published: PublishedPipeline = pipeline_class(name)(self.snapshot, torch.device("cpu"), torch.float32)
        self.family: Family = family_class(name)(tiny_transformer(name))
        is_there = (self.snapshot / "transformer").exists()
        made = self.family.load(self.snapshot, torch.float32) if is_there else self.family.make()
        self.transformer: nn.Module = made.eval()
        self.caption = LONG.get(name, CAPTION)
        self.size, self.length = SMALLER.get(name, SIZES[self.family.modality]), LENGTHS.get(name, 12)
        if isinstance(self.published, AceStepPublished):
            self.published.seconds = SECONDS
        self.own: Any = self.published.pipeline
        if name == "cosmos":
            self.own = Cosmos2TextToImagePipeline(
                **dict(self.own.named_children()),
                tokenizer=self.own.tokenizer,
                scheduler=copy.deepcopy(self.own.scheduler),
                transformer=None,
                safety_checker=Unasked(),
            )
        if name == "hidream":
            self.own.default_sample_size = 8.001  # its pictures are this large, times eight, whatever is asked
        if name == "kandinsky5_image":
            self.published.pipeline.resolutions = [(self.size["width"], self.size["height"])]
        if name == "kandinsky5_video":  # one token a character is too many for the whole
            self.published.pipeline.prompt_template = self.published.pipeline.prompt_template[-300:]
        if name.startswith("kandinsky5"):
            self.family.attach(self.transformer)
        if name == "chroma":
            mend_mask(self.published.pipeline)

    def media(self, count: int = 2) -> np.ndarray[Any, Any]:
        """Random pictures, clips or sounds."""
        source, shape = np.random.default_rng(0), (count, *self.size.values())
        if self.family.modality == "audio":
            return source.integers(-(2**15), 2**15, (*shape, 2), dtype=np.int16)
        return source.integers(0, 256, (*shape, 3), dtype=np.uint8)

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Of one sample's latents, as the pipeline's own call draws it in `made`."""
        source = torch.manual_seed(0)
        if self.family.modality == "audio":
            return torch.randn(1, *reversed(shape), generator=source).transpose(1, 2)
        if self.name.startswith("kandinsky5"):
            return torch.randn(1, *shape[1:], shape[0], generator=source).movedim(-1, 1)
        return torch.randn(1, *shape, generator=source)

    def as_latents(self, made: Tensor) -> Tensor:
        """What the pipeline's own call makes, laid out as the family's latents."""
        shape = self.published.encode_media(self.media(1)).shape[1:]
        if self.family.modality == "audio":
            return made.transpose(1, 2)
        if self.name == "cosmos":
            return made[:, :, None]
        if made.ndim == 3:
            return unpack(made, self.family.token_grid(shape), self.family.patch())
        if self.name.startswith("kandinsky5"):
            return made.movedim(-1, 1).view(-1, *shape)
        return made


def mend_mask(pipeline: Any) -> None:
    """Chroma's own call hands on its mask as numbers, which attention adds: a known fault of diffusers 0.42.1."""
    prepare = pipeline._prepare_attention_mask
    pipeline._prepare_attention_mask = lambda attention_mask, **others: prepare(
        attention_mask=attention_mask if attention_mask is None else attention_mask.bool(), **others
    )


def made(case: Case, output_type: str, *, guidance: float = 1.0, steps: int = 2, **more: Any) -> Any:
    """What diffusers' own pipeline makes of the caption: the first, or only, thing it returns."""
    call = {"prompt": case.caption, "guidance_scale": guidance, "max_sequence_length": case.length, **case.size}
    pipeline = case.own
    if hasattr(pipeline, "guider"):
        pipeline.guider.guidance_scale = guidance
    pipeline.register_modules(transformer=case.transformer)
    pipeline.set_progress_bar_config(disable=True)
    try:
        return pipeline(
            **CALLS.get(case.name, dict)(call),
            **more,
            num_inference_steps=steps,
            output_type=output_type,
            generator=torch.manual_seed(0),
            return_dict=False,
        )[0]
    finally:
        pipeline.register_modules(transformer=None)


def first(output: Any) -> Tensor:
    """The prediction in what a transformer returned."""
    while not isinstance(output, Tensor):
        output = output[0]
    return output
