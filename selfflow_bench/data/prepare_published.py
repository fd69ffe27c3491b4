"""What a published transformer is trained on: shards of latents and conditions, and how they are read.

They are made by `selfflow_bench.data.published_shards`, with the checkpoint's own pipeline, which is loaded here. Knows
nothing of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from selfflow_bench import canonical
from selfflow_bench.data.codecs import Codec, Media
from selfflow_bench.data.content_folder import MANIFEST, read_manifest
from selfflow_bench.data.items import SPLITS, Kind
from selfflow_bench.data.media import MediaSize
from selfflow_bench.data.prepare import Prepared, Split
from selfflow_bench.data.shard_files import SHARD, ShardFacts, filled_shards
from selfflow_bench.data.sharded import Rows, ShardedRows
from selfflow_bench.errors import DamagedFileError
from selfflow_bench.families.base import LABEL
from selfflow_bench.pipelines import pipeline_class
from selfflow_bench.pipelines.base import PublishedPipeline
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.recipe import Checkpoint

FORMAT_VERSION = 2
EMPTY, NEGATIVE, LATENTS, CONDITION = "empty.safetensors", "negative.safetensors", "latents", "condition."
_FOLDER = "published"


@dataclass(frozen=True)
class Wanted:
    """What is to be prepared.

    Args:
        family: whose conditions are made.
        checkpoint: whose pipeline makes them.
        kind: of the items.
        size: of the media.
        text_length: tokens of a caption, at most.
        identity: of the items.
        limit: so many items of a split at most; None for all.
        needs: conditions that the family cannot do without.
        makes_clips: whether the family makes clips: to it a picture is one of one frame.
    """

    family: str
    checkpoint: Checkpoint
    kind: Kind
    size: MediaSize
    text_length: int
    identity: Mapping[str, Any]
    limit: int | None = None
    needs: tuple[str, ...] = ()
    makes_clips: bool = False

    @property
    def digest(self) -> str:
        """Equal digests mean equal shards."""
        return canonical.digest(
            {
                "family": self.family,
                "checkpoint": self.checkpoint.model_dump(mode="json"),
                "kind": asdict(self.kind),
                "size": asdict(self.size) | {"resolution": list(self.size.resolution or ())},
                "text_length": self.text_length,
                "items": dict(self.identity),
                "limit": self.limit,
                "shard": SHARD,
                "format": FORMAT_VERSION,
            }
        )

    def folder(self, cache: Path) -> Path:
        """Where it lies, or will."""
        return cache / _FOLDER / self.digest


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Codec):
    """The checkpoint's own autoencoder, loaded when it is needed: nothing of it is fitted."""

    name: ClassVar[str] = "autoencoder"
    wanted: Wanted

    @property
    def pipeline(self) -> PublishedPipeline:
        """The published pipeline that it is a part of, without its text encoders."""
        return pipeline_of(self.wanted, encodes_text=False)

    def fit(self, media: Media) -> Autoencoder:  # noqa: D102
        return self

    def encode(self, media: Media) -> Tensor:  # noqa: D102
        return self.pipeline.encode_media(media)

    def decode(self, latents: Tensor) -> Media:  # noqa: D102
        # One by one, so that what becomes of an item does not depend on its company, nor does memory.
        return np.concatenate([self.pipeline.decode(latent[None]) for latent in latents])

    def latent_shape(self, media_shape: Sequence[int]) -> tuple[int, ...]:  # noqa: D102
        dtype = np.int16 if self.wanted.kind.modality == "audio" else np.uint8
        return tuple(self.encode(np.zeros((1, *media_shape), dtype)).shape[1:])


def is_prepared(wanted: Wanted, cache: Path) -> bool:
    """Whether all of it is there."""
    return (wanted.folder(cache) / MANIFEST).exists()


def load_published(wanted: Wanted, cache: Path, remedy: str) -> Prepared:
    """Open prepared shards. Raises DamagedFileError, with ``remedy``, where they are not there or not as written."""
    folder = wanted.folder(cache)
    try:
        manifest = read_manifest(folder)
        shards = {split: filled_shards(folder, split, manifest["shards"][split]) for split in SPLITS}
        empty = [folder / EMPTY] if (folder / EMPTY).exists() else []
        text: dict[str, Rows] = {}
        if empty:
            with safe_open(empty[0], "pt") as file:
                names = list(file.keys())
            text = {name: ShardedRows([*empty, *shards["train"], *shards["validation"]], name) for name in names}
        negative = load_file(folder / NEGATIVE) if (folder / NEGATIVE).exists() else {}
        counts = {split: manifest["items"][split] for split in SPLITS}
        splits = {
            "train": _split(shards["train"], 1, counts["train"]),
            "validation": _split(shards["validation"], 1 + counts["train"], counts["validation"]),
        }
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedFileError(
            f"{folder}: these prepared data are not there, or damaged ({error}). {remedy}"
        ) from error
    return Prepared(
        digest=manifest["digest"],
        directory=folder,
        codec=Autoencoder(wanted=wanted),
        latent_shape=tuple(splits["train"].latents.shape[1:]),
        train=splits["train"],
        validation=splits["validation"],
        text=text,
        negative=negative,
    )


def pipeline_of(wanted: Wanted, *, encodes_text: bool = True) -> PublishedPipeline:
    """The pipeline on the process's device, loaded once per process."""
    return _loaded(wanted.family, wanted.checkpoint, wanted.size.seconds, encodes_text)


@cache
def _loaded(family: str, checkpoint: Checkpoint, seconds: float | None, encodes_text: bool) -> PublishedPipeline:
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    pipeline = pipeline_class(family)(local_snapshot(checkpoint), device, dtype, encodes_text=encodes_text)
    if seconds is not None:
        pipeline.seconds = seconds
    return pipeline


def _split(shards: Sequence[Path], first: int, count: int) -> Split:
    """A split whose captions stand from row ``first`` on."""
    names = tuple(name for path in shards for name in ShardFacts.of(path).names)
    if len(names) != count:
        raise ValueError(f"{len(names)} items where the manifest has {count}")
    with safe_open(shards[0], "pt") as file:
        found = [name for name in file.keys() if name.startswith(CONDITION)]  # noqa: SIM118
    conditions: dict[str, Rows] = {name.removeprefix(CONDITION): ShardedRows(shards, name) for name in found}
    if LABEL in conditions:
        # A number an item: read whole, and asked for its largest.
        conditions[LABEL] = conditions[LABEL][torch.arange(count)]
    return Split(ShardedRows(shards, LATENTS), torch.arange(first, first + count), names, conditions)
