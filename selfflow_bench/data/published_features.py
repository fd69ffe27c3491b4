"""An external encoder's features of the media that a published transformer is trained on: shards beside the latents'.

They follow the latents' shards item by item, so that a row is the same item in both. Knows nothing of what features are
for, and of where items come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from selfflow_bench import canonical
from selfflow_bench.data import media
from selfflow_bench.data.codecs import Media
from selfflow_bench.data.content_folder import read_manifest
from selfflow_bench.data.encoded import EncodedFeatures, encoded_media
from selfflow_bench.data.items import Item, SplitName
from selfflow_bench.data.media import UnusableError
from selfflow_bench.data.prepare_published import Wanted
from selfflow_bench.data.published_shards import as_family_takes
from selfflow_bench.data.shard_files import filled_shards
from selfflow_bench.data.shard_making import ShardMaker
from selfflow_bench.data.sharded import ShardedRows
from selfflow_bench.encoders import encoder_class
from selfflow_bench.encoders.base import Encoder
from selfflow_bench.errors import DamagedFileError, FieldError

_FORMAT = 1
_DTYPE = torch.bfloat16
_FEATURES = "features"
_TRAIN: SplitName = "train"


@dataclass(frozen=True)
class FeatureShards(ShardMaker):
    """Features of the training media, bfloat16 ``[n, rows, columns, channels]``, of clips of each frame.

    Args:
        wanted: what the latents are.
        encoder: its name.
        storage: where prepared data lie, and converted networks.
    """

    splits = (_TRAIN,)

    wanted: Wanted
    encoder: str
    storage: Path

    @property
    def folder(self) -> Path:
        """In the latents' own, by the encoder's name and by all that decides on the features."""
        return self.follows / f"{_FEATURES}-{self.encoder}-{self._digest[:16]}"

    @property
    def follows(self) -> Path:  # noqa: D102
        return self.wanted.folder(self.storage)

    @property
    def limit(self) -> int | None:  # noqa: D102
        return self.wanted.limit

    @property
    def facts(self) -> Mapping[str, Any]:
        """With the encoder's weights, by hash or revision."""
        return {"digest": self._digest, **self._content}

    @property
    def item_bytes(self) -> int:
        """What an item takes."""
        kind = encoder_class(self.encoder)
        return (self.wanted.size.frames or 1) * math.prod(kind.grid) * kind.channels * _DTYPE.itemsize

    def check(self) -> None:
        """Raises FieldError for media that it does not see, DamagedFileError where its weights are not here."""
        if self.wanted.kind.modality == "audio":
            problem = "sees pictures and clips, and these data are sounds"
            raise FieldError("command line", "--encoder", self.encoder, problem, "Leave it out.")
        encoder_class(self.encoder)(self.storage)

    def encoded(self, item: Item) -> dict[str, Tensor]:  # noqa: D102
        features = encoded_media(_loaded(self.encoder, self.storage), _seen(self.wanted, item))
        return {_FEATURES: torch.from_numpy(features).to(_DTYPE)}

    @property
    def _digest(self) -> str:
        return canonical.digest(self._content)

    @property
    def _content(self) -> dict[str, Any]:
        return {
            "encoder": encoder_class(self.encoder).identity,
            "latents": self.wanted.digest,
            "format": _FORMAT,
        }


def load_features(shards: FeatureShards, remedy: str) -> EncodedFeatures:
    """Open prepared features. Raises DamagedFileError, with ``remedy``, where they are not there or not as written."""
    folder = shards.folder
    try:
        manifest = read_manifest(folder)
        rows = ShardedRows(filled_shards(folder, _TRAIN, manifest["shards"][_TRAIN]), _FEATURES)
        if len(rows) != manifest["items"][_TRAIN]:
            raise ValueError(f"{len(rows)} items where the manifest has {manifest['items'][_TRAIN]}")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        text = f"{folder}: features of {shards.encoder} are not there, or damaged ({error}). {remedy}"
        raise DamagedFileError(text) from error
    return EncodedFeatures(rows)


def _seen(wanted: Wanted, item: Item) -> Media:
    """Of an item's media the picture or the frames, ``[1, ...]``, of the latents' size."""
    if item.missing is not None:
        raise UnusableError(item.missing)
    assert wanted.size.resolution is not None
    if wanted.size.frames is not None:
        return media.clip(item.medium, wanted.size)[None]
    return as_family_takes(wanted, media.picture(item.medium, wanted.size.resolution)[None])


@cache
def _loaded(encoder: str, storage: Path) -> Encoder:
    """On the process's device, once per process."""
    return encoder_class(encoder)(storage)
