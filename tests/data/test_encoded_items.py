"""What becomes of an item of each kind: real media through tiny real pipelines, and into the transformer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor

from selfflow_bench.data import media, published_shards
from selfflow_bench.data.items import Item, Items, Kind
from selfflow_bench.data.media import MediaSize, UnusableError
from selfflow_bench.data.prepare_published import Wanted, pipeline_of
from selfflow_bench.data.published_shards import encoded
from selfflow_bench.places import default_places
from selfflow_bench.recipe import load_recipe
from selfflow_bench.registry import family_class
from tests.data.made_media import samples, write_clip
from tests.data.test_media import png
from tests.pipelines.tiny_hub import tiny, tiny_checkpoint, tiny_transformer

CLIP = MediaSize((64, 96), frames=9, fps=12.0)
SOUND = MediaSize(seconds=0.4)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        yield folder


def wanted(hub: Path, family: str, kind: Kind, size: MediaSize) -> Wanted:
    """As a run's, with tiny weights."""
    made, length = family_class(family), getattr(tiny(family), "LENGTH", 12)
    checkpoint = tiny_checkpoint(family, hub)
    return Wanted(family, checkpoint, kind, size, length, {}, None, made.needs, made.modality == "video")


def picture(seed: int) -> bytes:
    return png(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 110, 3), dtype=np.uint8)))


def flac(seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples(seconds, 44100), 44100, format="FLAC")
    return file.getvalue()


def predicted(family: str, found: dict[str, Tensor]) -> Tensor:
    """By a tiny transformer, for these latents and conditions."""
    made = family_class(family)(tiny_transformer(family))
    conditions = {name.removeprefix("condition."): value for name, value in found.items() if name != "latents"}
    with torch.no_grad():
        return made.predict(made.build().eval(), found["latents"], torch.full((1,), 0.5), conditions)


@pytest.mark.parametrize("family", ["sit", "flux2", "sana", "cosmos", "wan", "wan_s2v", "ltxvideo2", "ace_step"])
def test_an_item_becomes_what_its_transformer_takes(family: str, hub: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", frames=12, fps=12, size=(80, 100), sound_s=1.0)
    still = MediaSize((64, 96))
    cases: dict[str, tuple[Kind, MediaSize, Item]] = {
        "sit": (Kind("image", labelled=True), MediaSize((64, 64)), Item("one", picture(0), label=3)),
        "flux2": (Kind("image", referenced=True), still, Item("one", picture(0), "darker", reference=picture(1))),
        "sana": (Kind("image"), still, Item("one", picture(0), "a picture")),
        "cosmos": (Kind("image"), still, Item("one", picture(0), "a picture")),
        "wan": (Kind("video"), CLIP, Item("one", clip, "a clip")),
        "wan_s2v": (Kind("video"), CLIP, Item("one", clip, "a clip that follows its sound")),
        "ltxvideo2": (Kind("video"), MediaSize((64, 96), 9, 24.0), Item("one", clip, "a clip with sound")),
        "ace_step": (Kind("audio"), SOUND, Item("one", flac(0.5), "a tone")),
    }
    kind, size, item = cases[family]
    asked = wanted(hub, family, kind, size)
    found = encoded(asked, item)
    assert all(len(value) == 1 for value in found.values())
    made = predicted(family, found)
    assert made.shape == found["latents"].shape
    assert torch.isfinite(made).all()
    # The latents are those of the medium as it is brought to size, of the shape that the recipe says.
    pipeline = pipeline_of(asked)
    compression = load_recipe(default_places().recipes, family)[1].published.compression
    brought: Any
    if family == "ace_step":
        brought = media.sound(item.medium, 0.4, 48000)[None]
        assert pipeline.seconds == 0.4
        shape = compression.latent_shape(brought.shape[1:2])
    elif size.frames:
        brought = media.clip(item.medium, size)[None]
        shape = compression.latent_shape(brought.shape[1:4], size.fps)
        if family == "ltxvideo2":
            tone = media.sound(item.medium, 9 / 24, pipeline.sound_rate or 0)[None]
            brought = published_shards.joint_media({"frames": brought, "audio": tone})
    else:
        assert size.resolution is not None
        brought = media.picture(item.medium, size.resolution)[None]
        brought = brought[:, None] if family == "cosmos" else brought
        shape = compression.latent_shape(brought.shape[1:-1])
    assert tuple(found["latents"].shape[1:]) == shape
    assert torch.equal(found["latents"], pipeline.encode_media(brought))
    if family == "sit":
        assert found.keys() == {"latents", "condition.label"}
        assert found["condition.label"].tolist() == [3]
    if family == "wan_s2v":
        assert torch.equal(found["condition.reference"], pipeline.encode_media(brought[:, :1]))
        tone = media.sound(item.medium, 9 / 12, pipeline.sound_rate or 0)[None]
        assert torch.equal(found["condition.sound"], pipeline.encode_sound(tone))
    if family == "flux2":
        other = media.picture(picture(1), (64, 96))[None]
        assert torch.equal(found["condition.reference"], pipeline.encode_media(other))


class Listed(list[Item]):
    """Items as a stream."""

    def state(self) -> None:
        return None


def test_a_clip_without_the_sound_that_is_needed_is_left_out(hub: Path, tmp_path: Path) -> None:
    asked = wanted(hub, "wan_s2v", Kind("video"), CLIP)
    clip = write_clip(tmp_path / "clip.mkv", frames=12, fps=12, sound_s=1.0)
    silent = write_clip(tmp_path / "silent.mkv", frames=12, fps=12)
    with pytest.raises(UnusableError, match=media.SOUNDLESS):
        encoded(asked, Item("two", silent, "a silent clip"))
    # What is looked at for comparison is what was encoded, and no more.
    items = Items({}, {}, lambda split, row, state: Listed([Item("two", silent, ""), Item("one", clip, "")]))
    assert [medium.shape for medium in published_shards.usable_media(asked, items, "validation", 5)] == [(9, 64, 96, 3)]


def test_media_that_were_not_unpacked_are_left_out(hub: Path) -> None:
    asked = wanted(hub, "sana", Kind("image"), MediaSize((64, 64)))
    with pytest.raises(UnusableError, match="is not among"):
        encoded(asked, Item("one", b"", "a picture", missing="is not among the unpacked files"))
