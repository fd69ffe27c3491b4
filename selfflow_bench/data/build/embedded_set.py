"""Writes one embedded data set: two parquet files and their checksums; and assigns keys to splits by hash.

Knows nothing of pictures, clips or notes: rows are plain dictionaries of strings, integers and bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

Split = Literal["train", "validation"]
Row = Mapping[str, object]


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone, so that adding rows never moves another row's split."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64


def split_of(key: str, validation_share: float) -> Split:
    """The split of everything that bears this key; about `validation_share` of all keys go to validation."""
    return "validation" if hash_fraction(key) < validation_share else "train"


def write_embedded_set(directory: Path, splits: Mapping[Split, Sequence[Row]]) -> None:
    """Write `train.parquet`, `validation.parquet` and `checksums.json` into `directory`.

    The same rows give the same bytes under the same pyarrow. Rows keep the order given; media columns are stored
    uncompressed because WebP and FLAC bytes do not compress again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for split, rows in splits.items():
        path = directory / f"{split}.parquet"
        pq.write_table(
            pa.Table.from_pylist([dict(row) for row in rows]), path, compression="none", write_statistics=False
        )
        checksums[path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rows": len(rows)}
    (directory / "checksums.json").write_text(json.dumps(checksums, indent=2, sort_keys=True) + "\n")
