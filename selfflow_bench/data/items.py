"""What is prepared, before anything is made of it: an encoded medium with its caption or class, and what goes with it.

Knows nothing of latents, and of where items come from (see `hub_items` and `own_items`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from selfflow_bench.data.media import Encoded

SplitName = Literal["train", "validation"]
SPLITS: tuple[SplitName, ...] = ("validation", "train")
"""In the order in which they are prepared: where both come from one sequence, what is held out is taken first."""


@dataclass(frozen=True)
class Item:
    """An encoded medium and what belongs to it.

    Args:
        name: in its source.
        medium: a picture, a clip (with its sound) or a sound.
        caption: what it shows, in data of captions.
        label: its class, in data of classes.
        reference: the encoded picture that an edit starts from, in data of edits.
        missing: why there is no medium, where there is none.
    """

    name: str
    medium: Encoded
    caption: str | None = None
    label: int | None = None
    reference: Encoded | None = None
    missing: str | None = None

    @property
    def digest(self) -> str:
        """sha256 (hex) of all of it."""
        content = hashlib.sha256()
        for part in (self.name.encode(), _content(self.medium), _text(self.caption), _text(self.label)):
            content.update(hashlib.sha256(part).digest())
        if self.reference is not None:
            content.update(hashlib.sha256(_content(self.reference)).digest())
        return content.hexdigest()


@dataclass(frozen=True)
class Kind:
    """Which items a run is prepared from.

    Args:
        modality: of the medium.
        labelled: whether they have classes in place of captions.
        referenced: whether an edit starts from a picture of theirs.
    """

    modality: Literal["image", "video", "audio"]
    labelled: bool = False
    referenced: bool = False


class Stream(Protocol):
    """Items of a split in their order, from some row on."""

    def __iter__(self) -> Iterator[Item]:
        """The items."""
        ...

    def state(self) -> dict[str, Any] | None:
        """Where it stands, JSON-able, for `Items.read` to go on from; None where that costs nothing anyway."""
        ...


Read = Callable[[SplitName, int, "tuple[int, dict[str, Any]] | None"], Stream]
"""(split, row to begin with, a row not behind it and the state of a stream there) -> the stream."""


@dataclass(frozen=True)
class Items:
    """Items of both splits.

    Args:
        identity: what they are, JSON-able: equal identities mean equal items.
        counts: how many of each split are to be taken, those that cannot be used not counted; None for all.
        read: begins to read a split.
        first_row: the first row of the training split, given the row behind the last that validation has taken.
    """

    identity: dict[str, Any]
    counts: Mapping[SplitName, int | None]
    read: Read
    first_row: Callable[[int], int] = lambda behind_validation: 0


def _content(encoded: Encoded) -> bytes:
    return encoded.read_bytes() if isinstance(encoded, Path) else encoded


def _text(value: str | int | None) -> bytes:
    return b"" if value is None else str(value).encode()
