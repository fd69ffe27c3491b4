"""Features that an external encoder gives to a split's clean media: made once, kept in shards, found by content.

Knows nothing of what they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from selfflow_bench import canonical, encoders
from selfflow_bench.data import sources
from selfflow_bench.data.content_folder import made_once, read_manifest, write_manifest
from selfflow_bench.data.sharded import ShardedRows
from selfflow_bench.data.views import SplitName
from selfflow_bench.encoders.base import Encoder
from selfflow_bench.errors import DamagedFileError, FieldError

# Part of the digest: raise it when the content changes for the same inputs.
_FORMAT = 1
SHARD_ITEMS = 512
"""Items per file."""


@dataclass(frozen=True, eq=False)
class EncodedFeatures:
    """Features of all items of a split, mapped from their files and read as they are used.

    Args:
        rows: half precision ``[items, *shape]``, in the split's order.
    """

    rows: ShardedRows

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one item: ``[rows, columns, D]``, of clips ``[frames, rows, columns, D]``."""
        return tuple(self.rows.shape[1:])

    @property
    def pictures_per_item(self) -> int:
        """How many pictures an item is to the encoder: a clip's frames, or one."""
        return self.shape[0] if len(self.shape) == 4 else 1

    def of(self, items: Tensor) -> Tensor:
        """float32 ``[M, *shape]`` of items, int64 ``[M]``."""
        return self.rows[items].float()


def encoded_features(
    encoder: str,
    source: str,
    split: SplitName,
    cache: Path,
    progress: Callable[[str], None] = lambda text: None,
    *,
    shard_items: int = SHARD_ITEMS,
) -> EncodedFeatures:
    """The features of a split's media by the encoder of that name; made where ``cache`` lacks them.

    Half precision is enough for what is compared by its direction. Raises FieldError for media that are no pictures
    and no clips, DamagedFileError for a source, weights or a cache that are not what their checksums say.
    """
    made_by = encoders.encoder_class(encoder)(cache)
    content = {
        "features": made_by.identity,
        "source": sources.digest(source, split),
        "format": _FORMAT,
        "torch": torch.__version__,
    }

    def write(folder: Path) -> None:
        data, files = sources.load(source, split), []
        for start in range(0, len(data), shard_items):
            media = sources.media(data.select(range(start, min(start + shard_items, len(data)))))
            files.append(folder / f"features-{start // shard_items:05d}.safetensors")
            save_file({"features": torch.from_numpy(encoded_media(made_by, media)).half()}, files[-1])
            progress(f"{min(start + shard_items, len(data))} of {len(data)} {split} items encoded by {encoder}")
        write_manifest(folder, files, content)

    directory = made_once(cache, canonical.digest(content), write)
    try:
        names = sorted(read_manifest(directory)["files"])
        return EncodedFeatures(ShardedRows([directory / name for name in names], "features"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedFileError(
            f"{directory}: these features are damaged: {error}. Delete that folder; it is made again when needed."
        ) from error


def encoded_media(encoder: Encoder, media: NDArray[Any]) -> NDArray[np.float32]:
    """Features of uint8 pictures ``[N, H, W, 3]`` or clips ``[N, frames, H, W, 3]``, frame by frame.

    Raises FieldError for other media.
    """
    frames = media["frames"] if media.dtype.names else media
    if frames.ndim not in (4, 5) or frames.dtype != np.uint8:
        found = f"{frames.dtype} {list(frames.shape)}"
        raise FieldError("encoder", "media", found, "neither pictures nor clips", "Use a method without an encoder.")
    flat = encoder.encode(frames.reshape(-1, *frames.shape[-3:]))
    return flat.reshape(*frames.shape[:-3], *flat.shape[1:])
