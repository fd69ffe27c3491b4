"""A shard of prepared items on disk: its name, what it says of itself, and the hash beside it until all are there.

Knows nothing of what lies in one, of how shards are made, and of training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

SHARD = 64
"""Rows of the source that a shard is made of: little is lost with one, and there are not too many files."""
FACTS = "facts"
"""Under which a shard says of what it is made, in JSON (see `ShardFacts`)."""
_HASH = ".sha256"


@dataclass(frozen=True)
class ShardFacts:
    """What a shard is made of.

    Args:
        rows: of the source, from the first behind the shard before it on.
        names: of the items kept.
        digests: of the items kept.
        left_out: names of other items, and why.
    """

    rows: int
    names: tuple[str, ...]
    digests: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, shard: Path) -> ShardFacts:
        """As the shard says. Raises what `safe_open` does where it is none."""
        with safe_open(shard, "pt") as file:
            found = json.loads(file.metadata()[FACTS])
        left_out = tuple((name, reason) for name, reason in found["left_out"])
        return cls(found["rows"], tuple(found["names"]), tuple(found["digests"]), left_out)


def shard_path(folder: Path, split: str, index: int) -> Path:
    """Where a split's shard lies, or will."""
    return folder / f"{split}-{index:06d}.safetensors"


def hash_path(shard: Path) -> Path:
    """Where its hash lies as long as the folder is not finished: without one it counts for nothing."""
    return shard.with_suffix(_HASH)


def filled_shards(folder: Path, split: str, count: int) -> list[Path]:
    """Those of a split's shards that hold items."""
    paths = [shard_path(folder, split, index) for index in range(count)]
    return [path for path in paths if ShardFacts.of(path).names]


def finished_shards(folder: Path, split: str) -> dict[int, ShardFacts]:
    """The facts of the shards that are there in a folder that is not finished, by their number."""
    found = {}
    for path in sorted(folder.glob(f"{split}-*.safetensors")):
        if hash_path(path).exists():
            found[int(path.stem.rpartition("-")[2])] = ShardFacts.of(path)
    return found
