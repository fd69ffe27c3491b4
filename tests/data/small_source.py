"""A small source made of the first real clips, and a program that prepares it; run as a process by test_prepare."""

import json
import sys
import time
from pathlib import Path

from selfflow_bench.data import sources
from selfflow_bench.data.build.embedded_set import Split, write_embedded_set
from selfflow_bench.data.prepare import Prepared, prepare

CODEC = {"name": "space_to_depth", "space": 4, "time": 2}
TEXT_LENGTH = 8
ITEMS = 6


def write(directory: Path) -> None:
    splits: dict[Split, list[dict[str, object]]] = {
        split: sources.load("clips", split).select(range(ITEMS)).to_list() for split in ("train", "validation")
    }
    write_embedded_set(directory, splits)


def register(directory: Path) -> None:
    sources.register(sources.ParquetSource("small", directory))


def prepare_small(cache: Path) -> Prepared:
    return prepare("small", CODEC, TEXT_LENGTH, cache)


def main() -> None:
    """Arguments: the source's folder, the cache, and how many steps to make before waiting to be killed (-1: never)."""
    directory, cache, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    register(directory)
    done = 0

    def progress(text: str) -> None:
        nonlocal done
        done += 1
        if done == steps:
            print(json.dumps(text), flush=True)
            time.sleep(600)

    prepared = prepare("small", CODEC, TEXT_LENGTH, cache, progress)
    print(prepared.digest, flush=True)


if __name__ == "__main__":
    main()
