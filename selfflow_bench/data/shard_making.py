"""Makes a folder of shards of items, in several processes, each making whole shards.

A shard appears complete or not at all, with its hash beside it, so that an interrupted preparation goes on with the
first one missing. Knows nothing of what items are encoded to (see `ShardMaker`), of where they come from, and of
training.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import filelock
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.data.content_folder import MANIFEST, sha256_of, write_manifest
from selfflow_bench.data.items import SPLITS, Item, Items, SplitName, Stream
from selfflow_bench.data.media import UnusableError
from selfflow_bench.data.shard_files import FACTS, SHARD, ShardFacts, finished_shards, hash_path, shard_path
from selfflow_bench.errors import DamagedFileError, FieldError, InfrastructureError

_STATES = "-states.json"
_IN_FLIGHT = 2
"""Shards per process that wait to be encoded."""


class ShardMaker(ABC):
    """Which shards a folder holds, and what an item becomes in them. Is sent to the processes that encode."""

    splits: ClassVar[tuple[SplitName, ...]]
    """Of which shards are made, in this order."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where they lie, or will."""

    @property
    @abstractmethod
    def limit(self) -> int | None:
        """So many items of a split at most; None for all."""

    @property
    def follows(self) -> Path | None:
        """A finished folder whose shards' items these are made of, shard by shard; None if they choose their own."""
        return None

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """What the manifest says of them, JSON-able."""

    @abstractmethod
    def encoded(self, item: Item) -> dict[str, Tensor]:
        """An item's tensors ``[1, ...]`` by their names. Raises UnusableError for one that is left out."""

    def beside(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Further files of the folder and their tensors, made after all shards."""
        return {}

    @property
    def is_made(self) -> bool:
        """Whether all of it is there."""
        return (self.folder / MANIFEST).exists()

    def items_made(self) -> dict[SplitName, int]:
        """How many items lie in a folder that is not finished, by split."""
        return {split: _kept(finished_shards(self.folder, split).values()) for split in self.splits}


@dataclass(frozen=True)
class Done:
    """How far a split is: items kept and rows read so far, and how many were left out for each reason."""

    split: SplitName
    items: int
    rows: int
    left_out: Mapping[str, int]


def make_shards(
    maker: ShardMaker,
    items: Items,
    *,
    processes: int,
    progress: Callable[[Done], None] = lambda done: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Make what is missing of a folder.

    Args:
        maker: what to make.
        items: what to make it of.
        processes: how many encode at once; each loads what it encodes with.
        progress: is told how far a split is.
        say: is told of shards that were damaged and are made again.

    Raises FieldError for a split of which nothing can be used, DamagedFileError for items that are not those of the
    shards to follow, InfrastructureError where a process dies, the disk is full or another preparation is at it, and
    what loading the encoders and reading the items raise.
    """
    folder = maker.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(folder.with_suffix(".lock")).acquire(timeout=0)
    except filelock.Timeout as error:
        raise InfrastructureError(f"{folder}: another process is preparing it. Wait for it.") from error
    with lock:
        if maker.is_made:
            return
        for left in folder.glob(".*"):
            left.unlink()  # of a process that was killed: nobody else is at it
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(maker, stop))
        try:
            _make(pool, maker, items, processes, progress, say)
        except BrokenProcessPool as error:
            remedy = "The same command goes on; with fewer --processes it takes less memory."
            raise InfrastructureError(f"{folder}: a process that encodes was killed. {remedy}") from error
        except OSError as error:
            raise InfrastructureError(f"{folder}: {error}. Mend that; the same command goes on.") from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _make(
    pool: ProcessPoolExecutor,
    maker: ShardMaker,
    items: Items,
    processes: int,
    progress: Callable[[Done], None],
    say: Callable[[str], None],
) -> None:
    """All shards, and the manifest."""
    folder = maker.folder
    _remove_damaged(pool, folder, say)
    facts: dict[SplitName, list[ShardFacts]] = {}
    for split in maker.splits:
        first = 0 if split == SPLITS[0] else items.first_row(_validation_rows(maker))
        made = _Split(pool, maker, items, split, first, processes, progress)
        made.run()
        facts[split] = made.facts
        if not _kept(made.facts):
            reasons = list(_left_out(made.facts)) or ["there is none"]
            problem = f"no item of the {split} split can be used: {', '.join(reasons)}"
            raise FieldError("data", split, items.identity, problem, "Give others.")
    pool.submit(_make_beside).result()
    files = sorted(folder.glob("*.safetensors"))
    write_manifest(
        folder,
        files,
        {
            **maker.facts,
            "items": {split: _kept(found) for split, found in facts.items()},
            "shards": {split: len(found) for split, found in facts.items()},
            "rows": {split: sum(one.rows for one in found) for split, found in facts.items()},
            "left_out": {split: _left_out(found) for split, found in facts.items()},
            "sha256": {split: _content(found) for split, found in facts.items()},
        },
        {file.name: hash_path(file).read_text(encoding="utf-8").strip() for file in files},
    )
    for file in (*map(hash_path, files), *folder.glob(f"*{_STATES}")):
        file.unlink(missing_ok=True)


def _validation_rows(maker: ShardMaker) -> int:
    """How many rows of the source the validation split has taken."""
    if maker.follows is not None:
        return int(json.loads((maker.follows / MANIFEST).read_text(encoding="utf-8"))["rows"][SPLITS[0]])
    return sum(one.rows for one in finished_shards(maker.folder, SPLITS[0]).values())


def _kept(facts: Iterable[ShardFacts]) -> int:
    return sum(len(one.names) for one in facts)


class _Split:
    """The making of one split."""

    def __init__(
        self,
        pool: ProcessPoolExecutor,
        maker: ShardMaker,
        items: Items,
        split: SplitName,
        first: int,
        processes: int,
        progress: Callable[[Done], None],
    ) -> None:
        self._pool, self._folder, self._split, self._first = pool, maker.folder, split, first
        self._in_flight, self._progress = _IN_FLIGHT * processes, progress
        self._count = min(filter(None, (items.counts[split], maker.limit)), default=None)
        self._rows = _Rows(items, maker.folder, split, first)
        self._made = finished_shards(maker.folder, split)
        self._going: dict[Future[ShardFacts], int] = {}
        self._told = 0

    @property
    def facts(self) -> list[ShardFacts]:
        """Of all shards, in order."""
        return [self._made[index] for index in sorted(self._made)]

    def run(self) -> None:
        """Make the shards that are missing, until there are items enough or no more rows."""
        index, last = 0, False
        while not last:
            room = self._room()
            if room <= 0:
                break
            if index not in self._made:
                part = self._rows.take(self._first + SHARD * index)
                if not part:
                    break
                self._finish_to(self._in_flight - 1)
                future = self._pool.submit(_make_shard, shard_path(self._folder, self._split, index), part, room)
                self._going[future] = index
                last = len(part) < SHARD
            else:
                last = self._made[index].rows < SHARD
            index += 1
            self._tell()
        self._rows.close()
        self._finish_to(0)

    def _room(self) -> int:
        """How many items the next shard may hold. Waits where that depends on what those at work keep."""
        if self._count is None:
            return SHARD
        while self._going and _kept(self._made.values()) + SHARD * (len(self._going) + 1) > self._count:
            self._finish_to(len(self._going) - 1)
        return min(SHARD, self._count - _kept(self._made.values()) - SHARD * len(self._going))

    def _finish_to(self, at_most: int) -> None:
        """Wait until so many shards are at work."""
        while len(self._going) > at_most:
            for future in wait(self._going, return_when=FIRST_COMPLETED).done:
                self._made[self._going[future]] = future.result()
                del self._going[future]
            begun = min(self._going.values(), default=None)
            self._rows.keep(None if begun is None else self._first + SHARD * begun)
            self._tell()

    def _tell(self) -> None:
        if self._told != len(self._made):
            self._told = len(self._made)
            rows = sum(one.rows for one in self._made.values())
            self._progress(Done(self._split, _kept(self._made.values()), rows, _left_out(self.facts)))


class _Rows:
    """A split's rows, read in order; where a stream has read to is kept on disk, to begin there the next time."""

    def __init__(self, items: Items, folder: Path, split: SplitName, first: int) -> None:
        self._items, self._split, self._row = items, split, first
        self._path = folder / f"{split}{_STATES}"
        self._stream: Stream | None = None
        self._iterator: Iterator[Item] = iter(())
        self._states: dict[int, dict[str, Any]] = {}
        if self._path.exists():
            self._states = {int(row): state for row, state in json.loads(self._path.read_text("utf-8")).items()}

    def take(self, row: int) -> list[Item]:
        """The items of the next `SHARD` rows from ``row`` on; fewer at the end."""
        if self._stream is None or row != self._row:
            known = max((one for one in self._states if one <= row), default=None)
            state = None if known is None else (known, self._states[known])
            self._stream = self._items.read(self._split, row, state)
            self._iterator, self._row = iter(self._stream), row
        part = list(islice(self._iterator, SHARD))
        self._row += len(part)
        reached = self._stream.state() if part else None
        if reached is not None:
            self._states[self._row] = reached
        return part

    def close(self) -> None:
        """Leave the stream: what reads ahead of it ends now, and not with the interpreter."""
        if isinstance(self._iterator, Generator):
            self._iterator.close()

    def keep(self, oldest: int | None) -> None:
        """Write the states down that may be needed: the newest, and those of shards that are not finished."""
        if not self._states:
            return
        needed = self._row if oldest is None else oldest
        before = max((row for row in self._states if row <= needed), default=min(self._states))
        self._states = {row: state for row, state in self._states.items() if row >= before}
        replace_text(self._path, json.dumps(self._states))


def _remove_damaged(pool: ProcessPoolExecutor, folder: Path, say: Callable[[str], None]) -> None:
    """Look at the hashes of the shards that are there; what is not as it was written is made again."""
    files = sorted(folder.glob("*.safetensors"))
    for file, whole in zip(files, pool.map(_is_whole, files, chunksize=8), strict=True):
        if not whole:
            say(f"{file.name} is not as it was written, and is made again")
            file.unlink()
            hash_path(file).unlink(missing_ok=True)


def _left_out(facts: Sequence[ShardFacts]) -> dict[str, int]:
    return dict(sorted(Counter(reason for one in facts for _, reason in one.left_out).items()))


def _content(facts: Sequence[ShardFacts]) -> str:
    """sha256 (hex) of a split: of the digests of its items, in order."""
    return hashlib.sha256("".join(digest for one in facts for digest in one.digests).encode()).hexdigest()


# In the processes that encode.

_current: ShardMaker | None = None
_stopped: Any = None


class _StoppedError(Exception):
    """Whoever waits has given up: the shard at work is left."""


def _begin(maker: ShardMaker, stop: Any) -> None:
    """A Ctrl-C is for whoever waits for the processes, and tells them."""
    global _current, _stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A pool's processes do not notice that whoever waits for them was killed.
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()  # of loads: several processes' would be mixed into the command's own lines
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    if torch.cuda.is_available():
        number = (multiprocessing.current_process()._identity or (0,))[0]
        torch.cuda.set_device(number % torch.cuda.device_count())
    _current, _stopped = maker, stop


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _is_whole(file: Path) -> bool:
    try:
        return hash_path(file).read_text(encoding="utf-8").strip() == sha256_of(file)
    except FileNotFoundError:
        return False


def _make_shard(path: Path, items: Sequence[Item], room: int) -> ShardFacts:
    """Make a shard of the first items that can be used, ``room`` at most."""
    assert _current is not None
    followed = None if _current.follows is None else ShardFacts.of(_current.follows / path.name)
    known = {} if followed is None else dict(followed.left_out)
    tensors: dict[str, list[Tensor]] = {}
    names: list[str] = []
    digests: list[str] = []
    left_out: list[tuple[str, str]] = []
    rows = 0
    for item in items:
        if len(names) == room:
            break
        if _stopped.is_set():
            raise _StoppedError
        rows += 1
        try:
            # One by one, so that what becomes of an item does not depend on its company.
            if item.name in known:
                raise UnusableError(known[item.name])
            for name, value in _current.encoded(item).items():
                tensors.setdefault(name, []).append(value)
        except UnusableError as error:
            left_out.append((item.name, error.reason))
            continue
        names.append(item.name)
        digests.append(item.digest)
    facts = ShardFacts(rows, tuple(names), tuple(digests), tuple(left_out))
    if followed is not None and facts != followed:
        problem = f"{path}: its items are no longer those that {path.name} in {_current.follows} was made of"
        raise DamagedFileError(f"{problem}. Restore the data, or delete that folder and prepare again.")
    _save(path, {name: torch.cat(values) for name, values in tensors.items()}, asdict(facts))
    return facts


def _make_beside() -> None:
    assert _current is not None
    for name, tensors in _current.beside().items():
        _save(_current.folder / name, tensors, {})


def _save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a shard, then its hash: without that it counts for nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        content = {name: value.contiguous() for name, value in tensors.items()}
        save_file(content, temporary, {FACTS: json.dumps(facts)})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    replace_text(hash_path(path), sha256_of(path) + "\n")
