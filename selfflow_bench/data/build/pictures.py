"""Builds the picture set: emoji of four vendors, drawn by people, rendered to 32x32 RGB on white.

Skin-tone variants and names the icon sets keep only for backward compatibility are left out. A subject (see
emoji_names) is in one split only, whichever vendor drew it.
"""

import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from selfflow_bench.data.build import emoji_names, webp
from selfflow_bench.data.build.embedded_set import Row, Split, split_of, write_embedded_set
from selfflow_bench.data.build.packages import NpmPackage

SIZE = 32
VALIDATION_SHARE = 0.15
VENDORS = {
    "noto": NpmPackage(
        "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
    ),
    "fluent-emoji-flat": NpmPackage(
        "@iconify-json/fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"
    ),
    "twemoji": NpmPackage(
        "@iconify-json/twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
    ),
    "emojione": NpmPackage(
        "@iconify-json/emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"
    ),
}
# emojione's own categories; it files faces and people together, so the other vendors' word goes first.
_EMOJIONE_CATEGORIES = {
    "Food": "Food & Drink",
    "Nature": "Animals & Nature",
    "People": "People & Body",
    "Travel": "Travel & Places",
    "Modifiers": "Symbols",
}
# Root mean square pixel difference (pixels in 0..1) under which two drawings of one vendor are the same picture with
# a pixel moved: the flags of Indonesia and Monaco are 0.026 apart, those of Chad and Romania 0.041.
_SAME_DRAWING = 0.045


@dataclass(frozen=True)
class IconSet:
    """What the builder needs of one Iconify package."""

    vendor: str
    icons: Mapping[str, Mapping[str, Any]]
    aliases: Mapping[str, str]
    names_of_codes: Mapping[str, str]
    categories: Mapping[str, str]
    size: tuple[int, int]

    @classmethod
    def read(cls, vendor: str, tarball: Path) -> "IconSet":
        """Read a package's tarball, keeping the icons that are neither skin-tone variants nor hidden."""
        with tarfile.open(tarball) as archive:
            content = {
                name: json.load(archive.extractfile(f"package/{name}.json"))  # type: ignore[arg-type]
                for name in ("icons", "metadata", "chars")
            }
        icons = content["icons"]
        names = frozenset(icons["icons"]) | frozenset(icons["aliases"])

        def wanted(name: str) -> bool:
            return not emoji_names.is_skin_tone(name, names)

        return cls(
            vendor=vendor,
            icons={n: icon for n, icon in icons["icons"].items() if wanted(n) and not icon.get("hidden")},
            aliases={n: alias["parent"] for n, alias in icons["aliases"].items() if wanted(n)},
            names_of_codes={code: n for code, n in content["chars"].items() if wanted(n)},
            categories={n: c for c, members in content["metadata"]["categories"].items() for n in members},
            size=(icons["width"], icons["height"]),
        )

    def render(self, name: str) -> NDArray[np.uint8]:
        """The icon [SIZE, SIZE, 3], centred on white."""
        icon = self.icons[name]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width, height = icon.get("width", self.size[0]), icon.get("height", self.size[1])
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
        )
        png = resvg_py.svg_to_bytes(
            svg_string=svg,
            skip_system_fonts=True,
            width=SIZE if width >= height else None,
            height=SIZE if height > width else None,
        )
        drawing = webp.on_white(Image.open(io.BytesIO(bytes(png))))
        canvas = Image.new("RGB", (SIZE, SIZE), "white")
        canvas.paste(drawing, ((SIZE - drawing.width) // 2, (SIZE - drawing.height) // 2))
        return np.asarray(canvas)


def fetch_icon_sets(directory: Path) -> list[IconSet]:
    """Fetch and read the four vendors' packages."""
    return [IconSet.read(vendor, package.fetch(directory)) for vendor, package in VENDORS.items()]


def subject_groups(icon_sets: Sequence[IconSet]) -> emoji_names.SubjectGroups:
    """Subjects united by every alias and every code point that any vendor gives them."""
    groups = emoji_names.SubjectGroups()
    for icons in icon_sets:
        for alias, name in icons.aliases.items():
            groups.unite(emoji_names.subject(alias), emoji_names.subject(name))
        for code, name in icons.names_of_codes.items():
            # "~" sorts after letters, so that a code point never becomes the key of a named subject.
            groups.unite(emoji_names.subject(name), "~" + emoji_names.code_key(code))
    return groups


def build(out: Path, directory: Path) -> None:
    """Fetch the packages into `directory` and write the set into `out`."""
    icon_sets = fetch_icon_sets(directory)
    groups = subject_groups(icon_sets)
    drawings = [(icons, name, icons.render(name)) for icons in icon_sets for name in sorted(icons.icons)]
    for first, second in _same_drawings(drawings):
        groups.unite(emoji_names.subject(first), emoji_names.subject(second))
    categories = _Categories(icon_sets, groups)

    splits: dict[Split, list[Row]] = {"train": [], "validation": []}
    seen: set[bytes] = set()
    for icons, name, pixels in drawings:
        image = webp.encode(pixels)
        if image in seen:
            continue
        seen.add(image)
        subject = emoji_names.subject(name)
        splits[split_of(groups.key(subject), VALIDATION_SHARE)].append(
            {
                "name": name,
                "caption": emoji_names.caption(name),
                "category": categories.of(icons, name),
                "vendor": icons.vendor,
                "image": image,
            }
        )
    write_embedded_set(out, splits)


class _Categories:
    """The category of an icon: its vendor's, or for emojione what the other vendors say of the same subject."""

    def __init__(self, icon_sets: Sequence[IconSet], groups: emoji_names.SubjectGroups) -> None:
        self._groups = groups
        self._votes: dict[str, Counter[str]] = defaultdict(Counter)
        for icons in icon_sets:
            if icons.vendor != "emojione":
                for name in icons.icons:
                    self._votes[self._key(name)][icons.categories[name]] += 1

    def _key(self, name: str) -> str:
        return self._groups.key(emoji_names.subject(name))

    def of(self, icons: IconSet, name: str) -> str:
        own = icons.categories[name]
        if icons.vendor != "emojione":
            return own
        votes = self._votes[self._key(name)]
        return votes.most_common(1)[0][0] if votes else _EMOJIONE_CATEGORIES.get(own, own)


def _same_drawings(drawings: Sequence[tuple[IconSet, str, NDArray[np.uint8]]]) -> Iterator[tuple[str, str]]:
    by_vendor: dict[str, list[tuple[str, NDArray[np.uint8]]]] = defaultdict(list)
    for icons, name, pixels in drawings:
        by_vendor[icons.vendor].append((name, pixels))
    for members in by_vendor.values():
        flat = np.stack([pixels for _, pixels in members]).reshape(len(members), -1) / 255.0
        squares = (flat**2).sum(1)
        mean_square = (squares[:, None] + squares - 2 * flat @ flat.T) / flat.shape[1]
        for first, second in np.argwhere(np.triu(mean_square < _SAME_DRAWING**2, k=1)):
            yield members[first][0], members[second][0]
