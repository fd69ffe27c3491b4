"""What an emoji's name and code point say about its subject, so that all drawings of one subject share a split.

The same glyph goes by different names at different vendors ("a-button", "a-button-blood-type"), and a man, a woman
and a person doing the same thing are near copies. Knows nothing of pictures.
"""

import re
from collections.abc import Iterator

# Legacy names of country flags: flag-for-flag-chad, flag-for-chad.
_FLAG = re.compile(r"^flag-for-(flag-)?")
_SKIN_TONE_NAME = re.compile(r"skin-tone|-tone-?[1-5]")
_SHADE_SUFFIX = re.compile(r"-(medium-dark|medium-light|dark|medium|light)$")
_SKIN_TONE_CODE = re.compile(r"1f3f[b-f]")
_PEOPLE = {"man", "men", "woman", "women", "person", "people", "adult"}
# Hair and age change a few pixels of a person: "person white hair" and "older person" are one animation.
_LOOKS = {"white", "red", "curly", "blond", "blonde", "hair", "haired", "bald", "beard", "bearded", "old", "older"}
# Twenty-four drawings of one dial: as one subject, or validation would hold near copies of train.
_CLOCK = re.compile(r"^[a-z]+-(oclock|thirty)$")
# Selectors, joiners and the two gender signs, which do not change the subject.
_IGNORED_CODES = {"fe0f", "200d", "2640", "2642"}


def is_skin_tone(name: str, names: frozenset[str]) -> bool:
    """Whether `name` is a skin-tone variant; bare shades count only where `names` holds the unshaded emoji too."""
    if _SKIN_TONE_NAME.search(name):
        return True
    unshaded = _SHADE_SUFFIX.sub("", name)
    return unshaded != name and unshaded in names


def is_skin_tone_code(code: str) -> bool:
    """Whether a dash-separated code point sequence carries a skin-tone modifier."""
    return bool(_SKIN_TONE_CODE.search(code))


def caption(name: str) -> str:
    """The name in words: "flag-for-chad" -> "flag chad"."""
    return _FLAG.sub("flag-", name).replace("-", " ")


def subject(name: str) -> str:
    """What is drawn, without who draws it or who does it: "woman-running-facing-right" -> "running"."""
    name = _FLAG.sub("flag-", name.lower()).removesuffix("-facing-right")
    if _CLOCK.match(name):
        return "clock"
    words = name.split("-")
    for group in ("family", "kiss", "couple"):
        if words[0] == group and (len(words) == 1 or words[1] in _PEOPLE | {"with", "adults"}):
            return group
    if _PEOPLE.isdisjoint(words):
        return name
    return "-".join(word for word in words if word not in _PEOPLE | _LOOKS | {"and"}) or "person"


def code_key(code: str) -> str:
    """A code point sequence without the parts that do not change the subject, for example "1f3c3"."""
    return "-".join(part for part in code.lower().split("-") if part not in _IGNORED_CODES)


class SubjectGroups:
    """A partition of subjects (union-find): `unite` says two are the same thing, `key` names the part of one."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def unite(self, first: str, second: str) -> None:
        """Put both subjects into one part."""
        first, second = self.key(first), self.key(second)
        if first != second:
            self._parent[max(first, second)] = min(first, second)

    def key(self, name: str) -> str:
        """The alphabetically first member of the part that holds `name`: the same whatever the order of `unite`."""
        *_, root = self._path(name)
        return root

    def _path(self, name: str) -> Iterator[str]:
        yield name
        while name in self._parent:
            name = self._parent[name]
            yield name
