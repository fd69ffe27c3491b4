"""Builds the clip set: animated emoji, made by people, as 16 frames of 32x32 RGB on white.

Stills and skin-tone variants are left out. Names come from the code points, and a subject (see emoji_names) is in one
split only, so that a man and a woman doing the same thing are never on both sides.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from selfflow_bench.data.build import emoji_names, pictures, webp
from selfflow_bench.data.build.embedded_set import Row, Split, split_of, write_embedded_set
from selfflow_bench.data.build.packages import NpmPackage

SIZE, FRAMES = 32, 16
# Large, because the validation clips are the reference of a kernel distance, which wants many.
VALIDATION_SHARE = 0.22
PACKAGES = (
    NpmPackage(
        "@lobehub/fluent-emoji-anim-1", "1.0.0", "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea"
    ),
    NpmPackage(
        "@lobehub/fluent-emoji-anim-2", "1.0.0", "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0"
    ),
    NpmPackage(
        "@lobehub/fluent-emoji-anim-3", "1.0.0", "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43"
    ),
    NpmPackage(
        "@lobehub/fluent-emoji-anim-4", "1.0.0", "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3"
    ),
)
_ASSET = re.compile(r"package/assets/([0-9a-f-]+)\.webp")


def build(out: Path, directory: Path) -> None:
    """Fetch the packages into `directory` and write the set into `out`."""
    icon_sets = pictures.fetch_icon_sets(directory)
    groups = pictures.subject_groups(icon_sets)
    # fluent-emoji-flat first: the animations are the same vendor's, so its names fit best.
    names: dict[str, str] = {}
    for icons in sorted(icon_sets, key=lambda icons: icons.vendor != "fluent-emoji-flat"):
        for code, name in icons.names_of_codes.items():
            names.setdefault(_without_selector(code), name)

    rows: dict[str, tuple[Split, Row]] = {}
    for package in PACKAGES:
        for code, animation in _animations(package.fetch(directory)):
            name = names[_without_selector(code)]
            split = split_of(groups.key(emoji_names.subject(name)), VALIDATION_SHARE)
            frames = sample_frames(animation)
            rows[code] = (
                split,
                {
                    "name": name,
                    "caption": emoji_names.caption(name),
                    "codepoint": code,
                    "frames": webp.encode(frames.reshape(FRAMES * SIZE, SIZE, 3)),
                },
            )
    splits: dict[Split, list[Row]] = {"train": [], "validation": []}
    for code in sorted(rows):
        split, row = rows[code]
        splits[split].append(row)
    write_embedded_set(out, splits)


def sample_frames(animation: Image.Image) -> NDArray[np.uint8]:
    """`FRAMES` frames evenly over the animation, [FRAMES, SIZE, SIZE, 3]; the loop's last frame leads to the first."""
    count: int = getattr(animation, "n_frames", 1)
    frames = []
    for index in range(FRAMES):
        animation.seek(index * count // FRAMES)
        frame = webp.on_white(animation)
        # A box average, because the artwork is an exact multiple of SIZE: no ringing at the edges.
        small = ImageOps.pad(frame, (SIZE, SIZE), Image.Resampling.BOX, color="white")
        frames.append(np.asarray(small))
    return np.stack(frames)


def _animations(tarball: Path) -> Iterator[tuple[str, Image.Image]]:
    with tarfile.open(tarball) as archive:
        for member in archive:
            match = _ASSET.fullmatch(member.name)
            if match is None or emoji_names.is_skin_tone_code(match[1]):
                continue
            file = archive.extractfile(member)
            assert file is not None
            animation = Image.open(io.BytesIO(file.read()))
            if getattr(animation, "n_frames", 1) > 1:
                yield match[1], animation


def _without_selector(code: str) -> str:
    return "-".join(part for part in code.split("-") if part != "fe0f")
