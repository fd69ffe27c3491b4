"""Which programs of a SoundFont 2 file play which recordings, so that no recording is in both splits.

Reads only the preset tables (SoundFont 2.04, section 7); knows nothing of how notes sound.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INSTRUMENT, _SAMPLE = 41, 53  # generator numbers that link a preset to an instrument, an instrument to a sample
_GENERATOR = np.dtype([("kind", "<u2"), ("value", "<u2")])
_BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_TABLES: dict[bytes, np.dtype[Any]] = {
    b"phdr": np.dtype([("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("reserved", "<u4", 3)]),
    b"pbag": _BAG,
    b"pgen": _GENERATOR,
    b"inst": np.dtype([("name", "S20"), ("bag", "<u2")]),
    b"ibag": _BAG,
    b"igen": _GENERATOR,
}


def samples_of_programs(path: Path) -> dict[int, frozenset[int]]:
    """For each General MIDI program (bank 0), the numbers of the samples it can play."""
    tables = {name: np.frombuffer(data, _TABLES[name]) for name, data in _preset_chunks(path) if name in _TABLES}
    instruments = list(_links(tables[b"inst"], tables[b"ibag"], tables[b"igen"], _SAMPLE))
    programs = {}
    for header, linked in zip(
        tables[b"phdr"], _links(tables[b"phdr"], tables[b"pbag"], tables[b"pgen"], _INSTRUMENT), strict=False
    ):
        if header["bank"] == 0:
            programs[int(header["program"])] = frozenset().union(*(instruments[number] for number in linked))
    return programs


def sharing_groups(samples: dict[int, frozenset[int]]) -> list[frozenset[int]]:
    """The programs in groups such that programs of different groups share no sample."""
    groups: list[tuple[frozenset[int], frozenset[int]]] = []
    for program, own in sorted(samples.items()):
        members, recordings = frozenset({program}), own
        apart = []
        for group in groups:
            if group[1] & own:
                members, recordings = members | group[0], recordings | group[1]
            else:
                apart.append(group)
        groups = [*apart, (members, recordings)]
    return [members for members, _ in groups]


def _preset_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Chunks of the "pdta" list; every header is four letters and a little-endian size, padded to even."""
    with path.open("rb") as file:
        file.seek(12)
        while header := file.read(8):
            name, size = header[:4], struct.unpack("<I", header[4:])[0]
            if name == b"LIST" and file.read(4) == b"pdta":
                continue  # its chunks follow, with headers of their own
            if name == b"LIST":
                file.seek(size - 4 + size % 2, 1)
            else:
                yield name, file.read(size)
                file.seek(size % 2, 1)


def _links(headers: NDArray[Any], bags: NDArray[Any], generators: NDArray[Any], kind: int) -> Iterator[frozenset[int]]:
    """For each header but the closing one, the values of its generators of one kind."""
    for first, last in zip(headers["bag"][:-1], headers["bag"][1:], strict=True):
        own = generators[bags["generator"][first] : bags["generator"][last]]
        yield frozenset(own["value"][own["kind"] == kind].tolist())
