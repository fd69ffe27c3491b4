"""What items become for a published transformer: latents and conditions by the checkpoint's own pipeline, in shards.

Knows nothing of where items come from, of how shards are made of them (`shard_making`), and of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfflow_bench.data import media
from selfflow_bench.data.codecs import Media
from selfflow_bench.data.items import SPLITS, Item, Items, SplitName
from selfflow_bench.data.media import UnusableError
from selfflow_bench.data.prepare_published import (
    CONDITION,
    EMPTY,
    FORMAT_VERSION,
    LATENTS,
    NEGATIVE,
    Wanted,
    pipeline_of,
)
from selfflow_bench.data.shard_making import ShardMaker
from selfflow_bench.data.sources import joint_media
from selfflow_bench.errors import FieldError
from selfflow_bench.families.base import LABEL, REFERENCE

SOUND = "sound"


@dataclass(frozen=True)
class LatentShards(ShardMaker):
    """Latents and conditions of both splits, and the empty caption's.

    Args:
        wanted: what they are.
        cache: where prepared data lie.
    """

    splits = SPLITS

    wanted: Wanted
    cache: Path

    @property
    def folder(self) -> Path:  # noqa: D102
        return self.wanted.folder(self.cache)

    @property
    def limit(self) -> int | None:  # noqa: D102
        return self.wanted.limit

    @property
    def facts(self) -> Mapping[str, Any]:  # noqa: D102
        return {"format": FORMAT_VERSION, "digest": self.wanted.digest}

    def encoded(self, item: Item) -> dict[str, Tensor]:  # noqa: D102
        return encoded(self.wanted, item)

    def beside(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The empty caption, and what the pipeline guides away from where that is another."""
        if self.wanted.kind.labelled:
            return {}
        pipeline, length = pipeline_of(self.wanted), self.wanted.text_length
        negative = {NEGATIVE: pipeline.encode_text([pipeline.negative], length)} if pipeline.negative else {}
        return {**negative, EMPTY: pipeline.encode_text([""], length)}


def usable_media(wanted: Wanted, items: Items, split: SplitName, count: int) -> Iterator[Media]:
    """The first media of a split that can be used, each brought to size ``[...]``: what its latents were made of."""
    made, is_picture = 0, wanted.kind.modality == "image"
    rate = None if is_picture else pipeline_of(wanted, encodes_text=False).sound_rate
    for item in items.read(split, 0, None):
        if made == count:
            return
        try:
            found = _brought(wanted, item, rate)
        except UnusableError:
            continue
        made += 1
        yield found.medium[0]


def encoded(wanted: Wanted, item: Item) -> dict[str, Tensor]:
    """An item's latents and conditions ``[1, ...]``, by their names in a shard. Raises UnusableError."""
    pipeline = pipeline_of(wanted)
    found = _brought(wanted, item, pipeline.sound_rate)
    made = {LATENTS: pipeline.encode_media(as_family_takes(wanted, found.medium))}
    if item.label is not None:
        made[CONDITION + LABEL] = torch.tensor([item.label])
    else:
        made |= pipeline.encode_text([item.caption or ""], wanted.text_length)
    if found.reference is not None:
        made[CONDITION + REFERENCE] = pipeline.encode_media(as_family_takes(wanted, found.reference))
    if found.sound is not None:
        made[CONDITION + SOUND] = pipeline.encode_sound(found.sound)
    return made


@dataclass(frozen=True)
class _Brought:
    """An item's media, decoded and brought to size, each ``[1, ...]``; of clips with sound structured."""

    medium: Media
    reference: Media | None = None
    sound: Media | None = None


def _brought(wanted: Wanted, item: Item, rate: int | None) -> _Brought:
    """All media of an item; ``rate`` as `PublishedPipeline.sound_rate`. Raises UnusableError where one is of no use."""
    if item.missing is not None:
        raise UnusableError(item.missing)
    size, modality = wanted.size, wanted.kind.modality
    if modality == "audio":
        assert size.seconds is not None
        return _Brought(media.sound(item.medium, size.seconds, _known(wanted, rate))[None])
    assert size.resolution is not None
    reference = None if item.reference is None else media.picture(item.reference, size.resolution)[None]
    if modality == "image":
        return _Brought(media.picture(item.medium, size.resolution)[None], reference)
    frames = media.clip(item.medium, size)[None]
    if REFERENCE in wanted.needs:
        reference = frames[:, :1]
    if SOUND in wanted.needs:
        return _Brought(frames, reference, _clip_sound(wanted, item, rate))
    if rate is None:
        return _Brought(frames, reference)
    return _Brought(joint_media({"frames": frames, "audio": _clip_sound(wanted, item, rate)}), reference)


def _clip_sound(wanted: Wanted, item: Item, rate: int | None) -> Media:
    """The sound of a clip, as long as its frames."""
    size = wanted.size
    assert size.frames is not None
    if size.fps is None:
        remedy = "Set the frames a second."
        raise FieldError("protocol", "data.hub.fps", None, "the length of a clip's sound needs it", remedy)
    return media.sound(item.medium, size.frames / size.fps, _known(wanted, rate))[None]


def _known(wanted: Wanted, rate: int | None) -> int:
    if rate is None:
        problem = "its pipeline takes no sound"
        raise FieldError("selfflow_bench/pipelines", "family", wanted.family, problem, "Use data without sound.")
    return rate


def as_family_takes(wanted: Wanted, medium: Media) -> Media:
    """A picture is a clip of one frame to a family of clips."""
    is_picture = medium.ndim == 4 and not medium.dtype.names
    return medium[:, None] if is_picture and wanted.makes_clips else medium
