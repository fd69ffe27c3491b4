"""What must not stand in a published record: paths of a machine, its name, its user's name.

Paths are recognised anywhere, by their form. Names are recognised only on the machine itself, when it writes: a check
that depends on who reads would call one record good here and bad there.
"""

import contextlib
import getpass
import re
import socket
from collections.abc import Iterator
from typing import Any

_POSIX = r"(?<![\w:/.@])/(?:[\w.@+~-]+/)+[\w.@+~-]*"
_PATH = re.compile(rf"{_POSIX}|^/[\w.-]+|file:/\S+|(?<!\w)~\w*/[\w./-]+|(?<!\w)[A-Za-z]:\\[\w.\\ -]+")
_COMMON_NAMES = frozenset({"root", "user", "runner", "admin", "ubuntu", "debian", "localhost", "none", "nobody"})


def strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every string within JSON-like data, keys included, with its dotted place."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            place = f"{where}.{key}" if where else str(key)
            yield place, str(key)
            yield from strings(item, place)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from strings(item, f"{where}[{index}]")


def path_in(text: str) -> str | None:
    """The first absolute path in a text, or None. Addresses (https://...) and names with a slash are no paths."""
    found = _PATH.search(text)
    return found.group() if found else None


def machine_name_in(text: str) -> str | None:
    """This machine's or user's name, as a whole word of a text, or None. Names that say nothing are let through."""
    for name in _names():
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE):
            return name
    return None


def scrub(text: str) -> str:
    """A text with each absolute path reduced to its last part and this machine's names taken out. For messages."""
    cleaned = _PATH.sub(lambda found: "<path>/" + re.split(r"[/\\]", found.group().rstrip("/\\"))[-1], text)
    for name in _names():
        cleaned = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "<name>", cleaned, flags=re.IGNORECASE)
    return cleaned


def _names() -> list[str]:
    host = socket.gethostname()
    found = {host, host.partition(".")[0]}
    with contextlib.suppress(KeyError, OSError):  # no user database, as in a bare container
        found.add(getpass.getuser())
    return sorted(name for name in found if len(name) >= 3 and name.lower() not in _COMMON_NAMES)
