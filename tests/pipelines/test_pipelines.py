"""Published pipelines, on tiny ones saved by diffusers itself: against what its own call does."""

from __future__ import annotations

import inspect
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.families.base import REFERENCE
from selfflow_bench.pipelines import LACKING, pipeline_class
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.places import default_places
from selfflow_bench.recipe import Checkpoint, load_recipe
from tests.pipelines.cases import CAPTION, OTHER, Case, first, made
from tests.pipelines.tiny_hub import tiny_checkpoint

OF_NOISE = ("hidden_states", "audio_hidden_states", "x", "timestep", "timesteps", "timestep_r", "sigma", "t")
"""A transformer's arguments that are no caption's."""


def own_call(case: Case, **more: Any) -> tuple[dict[str, Any], Any]:
    """What diffusers' own pipeline, called with more or not, calls its transformer with, and what that returns."""
    found: list[tuple[dict[str, Any], Any]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        # Kandinsky's own call writes its steps into what it gave.
        given = {
            name: value[:1].clone() if isinstance(value, Tensor) else value for name, value in bound.arguments.items()
        }
        found.append((given, first(output)))

    handle = case.transformer.register_forward_hook(keep, with_kwargs=True)
    try:
        made(case, "latent", **more)
    finally:
        handle.remove()
    return found[0]


def test_text_is_what_the_pipelines_own_transformer_is_given(called: Case) -> None:
    conditions = called.published.encode_text([called.caption, "", OTHER], called.length)
    theirs, output = own_call(called)
    assert all(len(value) == 3 and value.device.type == "cpu" for value in conditions.values())
    latents = torch.zeros(called.published.encode_media(called.media(1)).shape)
    found = []
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in conditions.items()}
        time = next(theirs[name] for name in ("timestep", "timesteps", "t") if name in theirs)
        ours = called.family.arguments(latents, time, one)
        # Noise and time are the pipeline's own: what remains is what captions became.
        if called.name == "hidream":  # whose class takes latents packed or not, and the family packs them
            ours = called.family.arguments(theirs["hidden_states"], theirs["timesteps"], one)
        else:
            ours |= {name: theirs[name] for name in OF_NOISE if name in ours}
        with torch.no_grad():
            found.append(first(called.transformer(**ours, return_dict=False)))
    output = output[: len(found[0])]
    torch.testing.assert_close(found[0], output, rtol=1e-4, atol=called.atol)
    assert not torch.allclose(found[1], output, atol=10 * called.atol)
    assert not torch.allclose(found[2], output, atol=10 * called.atol)


@pytest.mark.parametrize("name", ["lumina2", "sana", "sanavideo"])
def test_the_empty_caption_is_what_the_pipeline_guides_away_from(name: str, hub: Path) -> None:
    """Where captions stand behind an instruction, and that does not."""
    case = Case(name, hub)
    found = case.published.encode_text([CAPTION, ""], case.length)
    with torch.no_grad():
        encoded = case.published.pipeline.encode_prompt(CAPTION, True, "", max_sequence_length=case.length)
    torch.testing.assert_close(found["text"][1:], encoded[2])
    assert torch.equal(found["text_mask"][1:], encoded[3].bool())


def test_a_reference_is_what_the_pipelines_own_transformer_is_given(cases: Callable[[str], Case]) -> None:
    case = cases("flux2")
    media = case.media(1)
    theirs, _ = own_call(case, image=Image.fromarray(media[0]))
    latents = case.published.encode_media(media)
    conditions = {**case.published.encode_text([CAPTION], case.length), REFERENCE: latents}
    ours = case.family.arguments(latents, torch.zeros(1), conditions)
    tokens = math.prod(case.family.token_grid(latents.shape[1:]))
    torch.testing.assert_close(ours["hidden_states"][:, tokens:], theirs["hidden_states"][:, tokens:])
    assert torch.equal(ours["img_ids"].long(), theirs["img_ids"][0])


def test_a_caption_too_long_for_omnigen_keeps_what_stands_behind_it(cases: Callable[[str], Case]) -> None:
    published = cases("omnigen").published
    whole, cut = (published.encode_text([text], 128) for text in (CAPTION, CAPTION * 9))
    length = int(whole["text_mask"].sum())
    assert length < 128
    assert cut["text_mask"].all()
    assert torch.equal(cut["text_ids"][0, -10:], whole["text_ids"][0, length - 10 : length])


def test_latents_are_of_the_recipes_shape_and_make_the_autoencoders_own_round(case: Case) -> None:
    media = case.media()
    latents = case.published.encode_media(media)
    compression = load_recipe(default_places().recipes, case.name)[1].published.compression
    frames = (1,) if case.name == "cosmos" else ()
    assert tuple(latents.shape[1:]) == compression.latent_shape((*frames, *media.shape[1:-1]))
    case.family.token_grid(latents.shape[1:])
    assert latents.dtype == torch.float32
    assert torch.equal(latents, case.published.encode_media(media))
    decoded = case.published.decode(latents)
    assert (decoded.shape, decoded.dtype) == (media.shape, media.dtype)
    is_sound = media.dtype == np.int16
    values = torch.from_numpy(media).movedim(-1, 1).float()
    values = values / 2**15 if is_sound else values / 127.5 - 1
    expected = np.moveaxis(own_round(case, values).numpy(), 1, -1)
    scaled = expected * 2**15 if is_sound else (expected + 1) * 127.5
    limits = np.iinfo(media.dtype)
    np.testing.assert_allclose(decoded, np.clip(scaled, limits.min, limits.max), atol=0.6)


def own_round(case: Case, values: Tensor) -> Tensor:
    """Through the autoencoder and back, without anything in between, one medium at a time."""
    vae, is_still = case.published.pipeline.vae, case.name in ("anima", "qwen_image", "cosmos")
    time = {"temb": torch.zeros(1)} if case.name == "ltxvideo" else {}
    found = []
    for one in values.split(1):
        with torch.no_grad():
            encoded = vae.encode(one[:, :, None] if is_still else one)
            inside = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
            decoded = vae.decode(inside, **time).sample
        found.append(decoded[:, :, 0] if is_still else decoded)
    return torch.cat(found)


def test_decoding_is_the_pipelines_own(called: Case) -> None:
    if called.family.modality == "audio":
        pytest.skip("the pipeline makes every sound equally loud, which is no part of decoding")
    latents = called.as_latents(made(called, "latent"))
    assert latents.shape == called.published.encode_media(called.media(1)).shape
    # Cosmos rounds down on its way to its safety checker.
    atol = 1.0 if called.name == "cosmos" else 0.6
    found = called.published.decode(latents)
    for name, expected in called.as_media(made(called, "np")).items():
        np.testing.assert_allclose(found[name] if name else found, expected, atol=atol)


def test_the_scheduler_is_the_folders(called: Case) -> None:
    stored = json.loads((called.snapshot / "scheduler" / "scheduler_config.json").read_text())
    classes = [kind.__name__ for kind in type(called.published.scheduler()).__mro__]
    assert stored["_class_name"] in classes


def test_weights_that_are_not_there_are_refused_with_what_to_do(hub: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"not in the hub's cache.*hf download"):
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


def test_media_are_encoded_and_decoded_without_text_encoders(case: Case) -> None:
    alone = type(case.published)(case.snapshot, torch.device("cpu"), torch.float32, encodes_text=False)
    loaded = [name for name, part in vars(alone.pipeline).items() if part is not None]
    assert not [name for name in loaded if name.startswith("text_encoder")]
    latents = case.published.encode_media(case.media(1))
    assert torch.equal(alone.encode_media(case.media(1)), latents)
    np.testing.assert_array_equal(alone.decode(latents), case.published.decode(latents))
    assert alone.schedule(latents.shape[1:], 2).timesteps.equal(case.published.schedule(latents.shape[1:], 2).timesteps)
