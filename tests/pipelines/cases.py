"""Published pipelines on tiny ones saved by diffusers, and diffusers' own call of each, to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfflow_bench.by_name import names
from selfflow_bench.families.base import Family
from selfflow_bench.families.parts.packing import unpack
from selfflow_bench.pipelines import pipeline_class
from selfflow_bench.pipelines.base import PublishedPipeline
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.registry import family_class
from tests.pipelines.tiny_hub import tiny, tiny_checkpoint, tiny_transformer

FAMILIES = names("pipelines.families")
ASSEMBLED = ("anima", "longcat_video", "sit", "wan_s2v")
"""Families whose pipeline is assembled of parts: diffusers has none of that class to compare with."""
CAPTION, OTHER = 'a Red fox, "far" away', "two boats"
SIZES = {"image": {"height": 64, "width": 96}, "video": {"num_frames": 9, "height": 64, "width": 96}}


class Case:
    """A family's published pipeline, loaded as the product does, and its tiny transformer."""

    def __init__(self, name: str, hub: Path) -> None:
        self.name = name
        self._tiny: Any = tiny(name)
        self.snapshot = local_snapshot(tiny_checkpoint(name, hub))
        self.published: PublishedPipeline = pipeline_class(name)(self.snapshot, torch.device("cpu"), torch.float32)
        self.family: Family = family_class(name)(tiny_transformer(name))
        is_there = any((self.snapshot / name).exists() for name in ("transformer", "dit"))
        made = self.family.load(self.snapshot, torch.float32) if is_there else self.family.make()
        self.transformer: nn.Module = made.eval()
        self.caption = getattr(self._tiny, "CAPTION", CAPTION)
        self.atol: float = getattr(self._tiny, "ATOL", 1e-5)
        self.length = getattr(self._tiny, "LENGTH", 12)
        self.size: dict[str, int] = getattr(self._tiny, "SIZE", None) or SIZES[self.family.modality]
        if getattr(self._tiny, "ATTACHED", False):
            self.family.attach(self.transformer)
        self.own: Any = self.published.pipeline
        if hasattr(self._tiny, "own"):
            self.own = self._tiny.own(self.published, self.size)

    def media(self, count: int = 2) -> np.ndarray[Any, Any]:
        """Random pictures, clips or sounds."""
        source, shape = np.random.default_rng(0), (count, *self.size.values())
        if hasattr(self._tiny, "media"):
            drawn: np.ndarray[Any, Any] = self._tiny.media(count, source)
            return drawn
        if self.family.modality == "audio":
            return source.integers(-(2**15), 2**15, (*shape, 2), dtype=np.int16)
        return source.integers(0, 256, (*shape, 3), dtype=np.uint8)

    def noise(self, shape: tuple[int, ...]) -> Tensor:
        """Of one sample's latents, as the pipeline's own call draws it in `made`."""
        source = torch.manual_seed(0)
        if hasattr(self._tiny, "noise"):
            drawn: Tensor = self._tiny.noise(shape, source)
            return drawn
        return torch.randn(1, *shape, generator=source)

    def as_latents(self, made: Any) -> Tensor:
        """What the pipeline's own call makes, laid out as the family's latents."""
        shape = tuple(self.published.encode_media(self.media(1)).shape[1:])
        if hasattr(self._tiny, "laid_out"):
            latents: Tensor = self._tiny.laid_out(made, shape)
            return latents
        return unpack(made, self.family.token_grid(shape), self.family.patch()) if made.ndim == 3 else made

    def as_media(self, made: Any) -> dict[str, Any]:
        """What the pipeline's own call makes of all, in the steps of media: by streams, or one without a name."""
        found: dict[str, Any] = self._tiny.as_media(made) if hasattr(self._tiny, "as_media") else {"": made * 255}
        return found

    def call(self, **settings: Any) -> Any:
        """All that diffusers' own pipeline returns for the caption."""
        given = {"prompt": self.caption, "max_sequence_length": self.length, **self.size, **settings}
        self.own.register_modules(transformer=self.transformer)
        self.own.set_progress_bar_config(disable=True)
        if self.name == "longcat_image":
            self.own.tokenizer_max_length = self.length  # of this call, whatever was encoded before it
        if hasattr(self.own, "guider"):
            self.own.guider.guidance_scale = given["guidance_scale"]
        try:
            return self.own(
                **getattr(self._tiny, "call", dict)(given), generator=torch.manual_seed(0), return_dict=False
            )
        finally:
            self.own.register_modules(transformer=None)


def made(case: Case, output_type: str, *, guidance: float = 1.0, steps: int = 2, **more: Any) -> Any:
    """What diffusers' own pipeline makes of the caption: several things, or the one that it returns."""
    found = case.call(output_type=output_type, guidance_scale=guidance, num_inference_steps=steps, **more)
    return found[0] if len(found) == 1 else found


def first(output: Any) -> Tensor:
    """The prediction in what a transformer returned."""
    while not isinstance(output, Tensor):
        output = output[0]
    return output
