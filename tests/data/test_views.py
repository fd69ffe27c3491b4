"""The views: what they are made of, what they leave out, and that they leak nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfflow_bench.data import sources
from selfflow_bench.data.codecs import codec_from
from selfflow_bench.data.prepare import prepare
from selfflow_bench.data.views import views

NAMES = [view.name for view in views(lambda name: name)]


@pytest.mark.parametrize("name", NAMES)
def test_a_view_keeps_its_bases_splits(name: str) -> None:
    """Names of a view's split are of the same split of its first base, so nothing can leak."""
    base = next(view.bases[0] for view in views(lambda other: other) if view.name == name)
    seen = set()
    for split in ("train", "validation"):
        rows = sources.load(name, split)
        assert set(rows["name"]) <= set(sources.load(base, split)["name"])
        assert len(rows) > 100
        seen.add(sources.digest(name, split))
    assert len(seen) == 2
    assert sources.load(name, "validation").to_dict() == sources.load(name, "validation").to_dict()


def test_small_clips_are_averages_of_every_second_frame() -> None:
    large = sources.media(sources.load("clips", "validation").select(range(5))).astype(np.float64)
    small = sources.media(sources.load("clips-8x16x16", "validation").select(range(5)))
    assert small.shape == (5, 8, 16, 16, 3)
    expected = large[:, ::2].reshape(5, 8, 16, 2, 16, 2, 3).mean((3, 5))
    assert np.abs(small - expected).max() <= 0.5


def test_a_pair_is_one_name_by_two_vendors() -> None:
    pictures = sources.load("pictures", "validation")
    by_image = {row["image"]: row for row in pictures}
    pairs = sources.load("picture-pairs", "validation")
    for row in pairs:
        other = by_image[row["reference"]]
        assert other["name"] == row["name"]
        assert other["vendor"] != row["vendor"]
    vendors: dict[str, set[str]] = {}
    for row in pictures:
        vendors.setdefault(row["name"], set()).add(row["vendor"])
    assert set(pairs["name"]) == {name for name, drawn in vendors.items() if len(drawn) > 1}
    assert sources.conditions(pairs) == ("reference",)


def test_sounds_are_notes_of_the_same_split_and_tell_of_the_clip() -> None:
    for split in ("train", "validation"):
        notes = {row["audio"]: row for row in sources.load("notes", split)}
        sounding = sources.load("sounding-clips-8x16x16", split)
        chosen = [notes[row["sound"]] for row in sounding]
        assert len({note["family"] for note in chosen}) > 3
        motion = np.abs(np.diff(sources.media(sounding).astype(np.int16), axis=1)).mean((1, 2, 3, 4))
        pitches = np.array([note["pitch"] for note in chosen])
        calm, lively = motion <= np.quantile(motion, 0.3), motion >= np.quantile(motion, 0.7)
        assert pitches[lively].mean() > pitches[calm].mean() + 5


def test_prepared_conditions_belong_to_their_items(tmp_path) -> None:
    pairs = prepare("picture-pairs", {"name": "space_to_depth", "space": 4}, 4, tmp_path)
    for split, part in (("train", pairs.train), ("validation", pairs.validation)):
        rows = sources.load("picture-pairs", split).select(range(40))
        decoded = pairs.codec.decode(part.conditions["reference"][:40])
        assert np.array_equal(decoded, sources.column(rows, "reference"))
    sounding = prepare("sounding-clips-8x16x16", {"name": "space_to_depth", "space": 2, "time": 2}, 4, tmp_path)
    sound = sounding.train.conditions["sound"]
    assert sound.shape == (len(sounding.train.latents), 64, 128)
    assert abs(float(sound.mean())) < 0.01
    assert set(sounding.train.conditions) == {"sound", "reference"}
    # A clip's reference is its first frame, standing still for one latent frame.
    first = sources.media(sources.load("sounding-clips-8x16x16", "train").select(range(5)))[:, :1]
    still = sounding.codec.decode(sounding.train.conditions["reference"][:5])
    assert np.array_equal(still, np.repeat(first, 2, 1))


def test_clips_with_audio_go_through_their_codec(tmp_path) -> None:
    spec = {"name": "clip_and_note", "space": 4, "time": 2, "frames": 8, "size": 16, "samples": 6144}
    prepared = prepare("clips-8x16x16-with-audio", spec, 4, tmp_path)
    assert prepared.latent_shape == (96, 4 * 4 * 4 + 64)
    media = sources.media(sources.load("clips-8x16x16-with-audio", "validation").select(range(6)))
    decoded = prepared.codec.decode(prepared.validation.latents[:6])
    assert decoded.dtype == media.dtype
    assert np.array_equal(decoded["frames"], media["frames"])
    note = codec_from({"name": "log_spectrogram", "channels": 96}).fit(
        sources.media(sources.load("clips-8x16x16-with-audio", "train"))["audio"]
    )
    torch.testing.assert_close(prepared.validation.latents[:6, :, 64:], note.encode(media["audio"]))
    train = prepared.train.latents
    assert abs(float(train[..., :64].std()) - 1) < 0.01
    assert abs(float(train[..., 64:].std()) - 1) < 0.01
