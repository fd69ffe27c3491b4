"""Published pipelines, on tiny ones saved by diffusers itself: against what its own call does."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfflow_bench.by_name import names
from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.families.base import Family
from selfflow_bench.pipelines import LACKING, pipeline_class
from selfflow_bench.pipelines.base import PublishedPipeline
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.places import default_places
from selfflow_bench.recipe import Checkpoint, load_recipe
from selfflow_bench.registry import family_class
from tests.pipelines.tiny_hub import tiny_checkpoint, tiny_transformer

FAMILIES = names("pipelines.families")
LENGTH = 12
CAPTION = "a Red fox, far away"
PICTURE = {"height": 64, "width": 96}
CLIP = {"num_frames": 9, "height": 64, "width": 96}
CALLS: Mapping[str, Mapping[str, Any]] = {
    "sana": {"use_resolution_binning": False},
}
"""What a family's own pipeline is called with, beside the prompt and the size, to run without guidance."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty hub cache."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        yield folder


class Case:
    """A family's published pipeline, loaded as the product does, and its tiny transformer."""

    def __init__(self, name: str, hub: Path) -> None:
        self.name = name
        self.snapshot = local_snapshot(tiny_checkpoint(name, hub))
        self.published: PublishedPipeline = pipeline_class(name)(self.snapshot, torch.device("cpu"), torch.float32)
        self.family: Family = family_class(name)(tiny_transformer(name))
        self.transformer: nn.Module = self.family.load(self.snapshot, torch.float32).eval()
        self.size = {"image": PICTURE, "video": CLIP}.get(self.family.modality, {})

    def media(self, count: int = 2) -> np.ndarray[Any, Any]:
        """Smooth random pictures, clips or sounds."""
        return np.random.default_rng(0).integers(0, 256, (count, *self.size.values(), 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, hub: Path) -> Case:
    return Case(request.param, hub)


def own_call(case: Case) -> tuple[dict[str, Any], Any]:
    """What diffusers' own pipeline calls its transformer with, and what that returns."""
    found: list[tuple[dict[str, Any], Any]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        found.append((dict(bound.arguments), output))

    case.published.pipeline.register_modules(transformer=case.transformer)
    handle = case.transformer.register_forward_hook(keep, with_kwargs=True)
    try:
        call = {"guidance_scale": 1.0, "max_sequence_length": LENGTH, **case.size, **CALLS.get(case.name, {})}
        case.published.pipeline.set_progress_bar_config(disable=True)
        case.published.pipeline(
            prompt=CAPTION, num_inference_steps=2, output_type="latent", generator=torch.manual_seed(0), **call
        )
    finally:
        handle.remove()
        case.published.pipeline.register_modules(transformer=None)
    return found[0]


def test_text_is_what_the_pipelines_own_transformer_is_given(case: Case) -> None:
    theirs, output = own_call(case)
    conditions = case.published.encode_text([CAPTION, ""], LENGTH)
    assert all(len(value) == 2 and value.device.type == "cpu" for value in conditions.values())
    shape = case.published.encode_media(case.media(1)).shape
    one = {name: value[:1] for name, value in conditions.items()}
    # The suite's latents are float32; what stands for time is the pipeline's own.
    ours = case.family.arguments(torch.zeros(shape), torch.zeros(1), one)
    shared = {name: theirs[name] for name in ("hidden_states", "timestep", "timestep_r") if name in ours}
    with torch.no_grad():
        found = case.transformer(**{**ours, **shared}, return_dict=False)
    torch.testing.assert_close(first(found), first(output), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        other = {name: value[1:] for name, value in conditions.items()}
        empty = case.transformer(
            **{**case.family.arguments(torch.zeros(shape), torch.zeros(1), other), **shared}, return_dict=False
        )
    assert not torch.allclose(first(empty), first(output), atol=1e-5)


def first(output: Any) -> Tensor:
    """The prediction in what a transformer returned."""
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def test_latents_are_of_the_recipes_shape_and_decode_as_the_autoencoder_does(case: Case) -> None:
    media = case.media()
    latents = case.published.encode_media(media)
    compression = load_recipe(default_places().recipes, case.name)[1].published.compression
    assert tuple(latents.shape[1:]) == compression.latent_shape(media.shape[1:-1])
    case.family.token_grid(latents.shape[1:])
    assert latents.dtype == torch.float32
    assert torch.equal(latents, case.published.encode_media(media))
    decoded = case.published.decode(latents)
    assert (decoded.shape, decoded.dtype) == (media.shape, media.dtype)


def test_the_scheduler_is_the_folders(case: Case) -> None:
    stored = json.loads((case.snapshot / "scheduler" / "scheduler_config.json").read_text())
    assert type(case.published.scheduler()).__name__ == stored["_class_name"]


def test_weights_that_are_not_there_are_refused_with_what_to_do(hub: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"not in the hub's cache.*selfflow-bench prepare"):
        local_snapshot(Checkpoint(id="tiny/absent", revision="0" * 40))
    with pytest.raises(FieldError, match="selfflow-bench pin"):
        local_snapshot(Checkpoint(id="tiny/sana", revision="unpinned"))


def test_a_folder_that_lacks_a_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    checkpoint = tiny_checkpoint("sana", tmp_path)
    shutil.rmtree(local_snapshot(checkpoint) / "vae")
    with pytest.raises(DamagedFileError, match="lacks vae/"):
        local_snapshot(checkpoint)


@pytest.mark.parametrize("family", sorted(LACKING))
def test_a_family_without_a_pipeline_says_why(family: str) -> None:
    with pytest.raises(FieldError, match="no pipeline"):
        pipeline_class(family)
