"""Data sets made of the embedded ones when they are loaded: smaller clips, pairs of drawings, clips with sounds.

A view is a function of its base's content, so its digest is theirs and its own name and version; nothing is stored.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

SplitName = Literal["train", "validation"]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class View:
    """A source computed from others.

    Args:
        name: what a protocol calls it.
        bases: the sources it is made of.
        version: part of the digest; raised when `make` gives something else for the same bases.
        make: from the bases' rows, in order, the view's rows.
        source: finds a base by name.
    """

    name: str
    bases: tuple[str, ...]
    version: int
    make: Callable[..., Rows]
    source: Callable[[str], Any]

    def load(self, split: SplitName) -> datasets.Dataset:
        """The split, held in memory."""
        bases = [self.source(base).load(split) for base in self.bases]
        return datasets.Dataset.from_list(self.make(*bases), split=datasets.Split(split))

    def digest(self, split: SplitName) -> str:
        """sha256 over the bases' digests and the view's name and version."""
        parts = [f"{self.name}@{self.version}", *(self.source(base).digest(split) for base in self.bases)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


SMALL_SIZE, SHORT_SAMPLES = 16, 6144
_KEPT = ("name", "caption", "codepoint")


def small_clips(clips: datasets.Dataset) -> Rows:
    """Every second frame, each averaged over 2x2 pixels: 8 frames of 16x16."""
    return [{**{key: row[key] for key in _KEPT}, "frames": _small(row["frames"])} for row in clips]


def drawn_pairs(pictures: datasets.Dataset) -> Rows:
    """Each drawing with another vendor's of the same name as its ``reference``; names drawn once are left out.

    The reference is the next vendor's in alphabetical order, the first one's after the last.
    """
    drawings: dict[str, list[Mapping[str, Any]]] = {}
    for row in pictures:
        drawings.setdefault(row["name"], []).append(row)
    made = []
    for same in drawings.values():
        ordered = sorted(same, key=lambda row: row["vendor"])
        for row, other in zip(ordered, ordered[1:] + ordered[:1], strict=True):
            if row["vendor"] != other["vendor"]:
                made.append({**row, "reference": other["image"]})
    return made


def sounding_clips(clips: datasets.Dataset, notes: datasets.Dataset) -> Rows:
    """Small clips, each with its first frame as ``reference`` and a note as its ``sound``.

    The pairing is ours: no clip has a sound of its own.

    What the note tells of the clip: its instrument is chosen by the clip's mean colour (the hue's sixth), its pitch by
    how much the clip moves, so that there is something to learn. Within those a hash of the name chooses.
    """
    rows = small_clips(clips)
    by_program: dict[int, list[Mapping[str, Any]]] = {}
    for note in notes:
        by_program.setdefault(note["program"] * _HUES // _PROGRAMS, []).append(note)
    groups = [sorted(by_program[key], key=lambda note: note["pitch"]) for key in sorted(by_program)]
    motions = [_motion(row["frames"]) for row in rows]
    ranks = np.argsort(np.argsort(motions)) / len(rows)
    for row, rank in zip(rows, ranks, strict=True):
        group = groups[int(_hue(row["frames"]) * len(groups)) % len(groups)]
        third = int(rank * 3)
        choices = group[third * len(group) // 3 : (third + 1) * len(group) // 3] or group
        chosen = choices[
            int.from_bytes(hashlib.blake2b(row["codepoint"].encode(), digest_size=8).digest()) % len(choices)
        ]
        row["reference"], row["sound"] = _png(_strip(row["frames"])[0]), chosen["audio"]
    return rows


def clips_with_audio(clips: datasets.Dataset, notes: datasets.Dataset) -> Rows:
    """As `sounding_clips`, with the first 0.77 s of the note as part of the medium (``audio``) and no condition."""
    return [
        {**{key: row[key] for key in (*_KEPT, "frames")}, "audio": _shortened(row["sound"])}
        for row in sounding_clips(clips, notes)
    ]


_HUES, _PROGRAMS = 6, 128


def _strip(encoded: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(encoded)) as picture:
        strip = np.asarray(picture.convert("RGB"))
    return strip.reshape(-1, strip.shape[1], strip.shape[1], 3)


def _small(encoded: bytes) -> bytes:
    frames = _strip(encoded)[::2].astype(np.uint16)
    sums = frames[:, ::2, ::2] + frames[:, 1::2, ::2] + frames[:, ::2, 1::2] + frames[:, 1::2, 1::2]
    small = ((sums + 2) // 4).astype(np.uint8)
    return _png(small.reshape(-1, SMALL_SIZE, 3))


def _png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _shortened(note: bytes) -> bytes:
    samples, rate = soundfile.read(io.BytesIO(note), dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, samples[:SHORT_SAMPLES], rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _hue(encoded: bytes) -> float:
    """Of the mean colour of what is not white, in [0, 1)."""
    pixels = _strip(encoded).reshape(-1, 3).astype(np.float64)
    drawn = pixels[pixels.min(1) < 240]
    red, green, blue = drawn.mean(0) if len(drawn) else (0.0, 0.0, 0.0)
    angle = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
    return float(angle / (2 * np.pi) % 1.0)


def _motion(encoded: bytes) -> float:
    """Mean absolute difference between successive frames."""
    return float(np.abs(np.diff(_strip(encoded).astype(np.int16), axis=0)).mean())


def views(source: Callable[[str], Any]) -> Sequence[View]:
    """All views, over a function that finds their bases."""
    return (
        View("clips-8x16x16", ("clips",), 1, small_clips, source),
        View("picture-pairs", ("pictures",), 1, drawn_pairs, source),
        View("sounding-clips-8x16x16", ("clips", "notes"), 1, sounding_clips, source),
        View("clips-8x16x16-with-audio", ("clips", "notes"), 1, clips_with_audio, source),
    )
