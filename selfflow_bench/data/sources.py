"""Where data sets come from, by name: loads a split and decodes its media to arrays.

A further source (a folder, the hub) is one more class with the shape of `Source`, given to `register`.
Knows nothing of codecs, captions' encoding or caches.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from selfflow_bench.data.views import SplitName, views
from selfflow_bench.errors import DamagedFileError, FieldError

# Nothing here asks a hub; set before the import, because datasets reads it then.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import pyarrow.parquet as pq  # type: ignore[import-untyped]

EMBEDDED = Path(__file__).parent / "embedded"


class Source(Protocol):
    """A named data set with a train and a validation split, each with the columns `name`, `caption` and one medium."""

    @property
    def name(self) -> str:
        """What a protocol calls it."""
        ...

    def load(self, split: SplitName) -> datasets.Dataset:
        """The split, media still encoded. Raises DamagedFileError where the content is not what it should be."""
        ...

    def digest(self, split: SplitName) -> str:
        """sha256 (hex) of the split's content."""
        ...


@dataclass(frozen=True)
class ParquetSource:
    """A folder with one parquet file per split and their sha256 in `checksums.json`, like those in this package."""

    name: str
    directory: Path

    def load(self, split: SplitName) -> datasets.Dataset:
        """The split, read into memory: nothing is written to a cache of the `datasets` package."""
        self.digest(split)
        table = datasets.table.InMemoryTable(pq.read_table(self._path(split)))
        return datasets.Dataset(table, split=datasets.Split(split))

    def digest(self, split: SplitName) -> str:
        """sha256 of the parquet file, after comparing it with `checksums.json`."""
        path = self._path(split)
        try:
            expected = json.loads((self.directory / "checksums.json").read_text())[path.name]["sha256"]
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(f"{path}: cannot be checked against checksums.json: {error}. {_RESTORE}") from error
        if found != expected:
            raise DamagedFileError(f"{path}: sha256 is {found}, but checksums.json says {expected}. {_RESTORE}")
        return found

    def _path(self, split: SplitName) -> Path:
        if split not in ("train", "validation"):
            raise FieldError(f"data set {self.name}", "split", split, "unknown split", "Use train or validation.")
        return self.directory / f"{split}.parquet"


_RESTORE = "Restore the folder from the repository, or rebuild it as its CARD.md says."
_SOURCES: dict[str, Source] = {name: ParquetSource(name, EMBEDDED / name) for name in ("clips", "notes", "pictures")}
_SOURCES |= {view.name: view for view in views(lambda name: _SOURCES[name])}


def register(source: Source) -> None:
    """Make a source available under its name; a later one replaces an earlier one of the same name."""
    _SOURCES[source.name] = source


def available() -> tuple[str, ...]:
    """Names of all sources, in alphabetical order."""
    return tuple(sorted(_SOURCES))


def load(name: str, split: SplitName) -> datasets.Dataset:
    """A split of a source, media still encoded (see `media`).

    Raises:
        FieldError: there is no such source or split.
        DamagedFileError: its file is not the one its checksum names.
    """
    return _source(name).load(split)


def digest(name: str, split: SplitName) -> str:
    """sha256 (hex) of a split's content; raises as `load` does."""
    return _source(name).digest(split)


def media(dataset: datasets.Dataset) -> NDArray[Any]:
    """The media of a data set or of a part of one (`dataset.select`).

    Returns uint8 [N, 32, 32, 3] for a column `image`, uint8 [N, frames, H, W, 3] for `frames`, int16 [N, 8192] (8 kHz,
    mono) for `audio`; a structured array of both for clips with audio. Raises FieldError where the data set has none of
    these columns.
    """
    found = [name for name in _MEDIA if name in dataset.column_names]
    if not found:
        raise FieldError(
            "data set", "columns", dataset.column_names, "no medium among them", f"Name it one of {', '.join(_MEDIA)}."
        )
    arrays = {name: column(dataset, name) for name in found}
    return arrays[found[0]] if len(found) == 1 else joint_media(arrays)


def media_shape(name: str) -> tuple[int, ...]:
    """Shape of one medium of a source; of several streams, the first one's (see `media`)."""
    first = load(name, "validation").select([0])
    return column(first, next(field for field in _MEDIA if field in first.column_names)).shape[1:]


def joint_media(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Media of several streams as one structured array [N], a field for each."""
    joint = np.empty(
        len(next(iter(arrays.values()))), dtype=[(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
    )
    for name, array in arrays.items():
        joint[name] = array
    return joint


def column(dataset: datasets.Dataset, name: str) -> NDArray[Any]:
    """One column of encoded media, decoded: a medium or a condition."""
    return np.stack([_DECODERS[name](encoded) for encoded in dataset[name]])


def conditions(dataset: datasets.Dataset) -> tuple[str, ...]:
    """The columns that condition an item, beside its caption."""
    return tuple(name for name in _CONDITIONS if name in dataset.column_names)


def _source(name: str) -> Source:
    if name not in _SOURCES:
        raise FieldError("data", "source", name, "unknown data set", f"Known: {', '.join(available())}.")
    return _SOURCES[name]


def _picture(encoded: bytes) -> NDArray[Any]:
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture.convert("RGB"))


def _clip(encoded: bytes) -> NDArray[Any]:
    """Frames stacked from top to bottom, each as high as wide."""
    strip = _picture(encoded)
    return strip.reshape(-1, strip.shape[1], strip.shape[1], 3)


def _note(encoded: bytes) -> NDArray[Any]:
    samples: NDArray[Any] = soundfile.read(io.BytesIO(encoded), dtype="int16")[0]
    return samples


_MEDIA, _CONDITIONS = ("image", "frames", "audio"), ("reference", "sound")
_DECODERS: dict[str, Callable[[bytes], NDArray[Any]]] = {
    "image": _picture,
    "frames": _clip,
    "audio": _note,
    "reference": _picture,
    "sound": _note,
}
