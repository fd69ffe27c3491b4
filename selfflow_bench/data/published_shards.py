"""Makes the shards that a published transformer is trained on: items encoded by the checkpoint's own pipeline.

In several processes, each making whole shards. A shard appears complete or not at all, with its hash beside it, so that
an interrupted preparation goes on with the first one missing. Knows nothing of where items come from, and of training.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import filelock
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.data import media
from selfflow_bench.data.codecs import Media
from selfflow_bench.data.content_folder import sha256_of, write_manifest
from selfflow_bench.data.items import SPLITS, Item, Items, SplitName, Stream
from selfflow_bench.data.media import UnusableError
from selfflow_bench.data.prepare_published import (
    CONDITION,
    EMPTY,
    FACTS,
    FORMAT_VERSION,
    LATENTS,
    NEGATIVE,
    SHARD,
    ShardFacts,
    Wanted,
    is_prepared,
    pipeline_of,
    shard_path,
)
from selfflow_bench.data.sources import joint_media
from selfflow_bench.errors import FieldError, InfrastructureError
from selfflow_bench.families.base import LABEL, REFERENCE

SOUND = "sound"
_HASH, _STATES = ".sha256", "-states.json"
_IN_FLIGHT = 2
"""Shards per process that wait to be encoded."""


@dataclass(frozen=True)
class Done:
    """How far a split is: items kept and rows read so far, and how many were left out for each reason."""

    split: SplitName
    items: int
    rows: int
    left_out: Mapping[str, int]


def prepare_published(
    wanted: Wanted,
    items: Items,
    cache: Path,
    *,
    processes: int,
    progress: Callable[[Done], None] = lambda done: None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Make what of the shards is missing; the folder.

    Args:
        wanted: what to make.
        items: what to make it of.
        cache: where prepared data lie.
        processes: how many encode at once; each loads the pipeline.
        progress: is told how far a split is.
        say: is told of shards that were damaged and are made again.

    Raises FieldError for a split of which nothing can be used, InfrastructureError where a process dies, the disk is
    full or another preparation is at it, and what the pipeline's loading and the items' reading raise.
    """
    folder = wanted.folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(folder.with_suffix(".lock")).acquire(timeout=0)
    except filelock.Timeout as error:
        raise InfrastructureError(f"{folder}: another process is preparing it. Wait for it.") from error
    with lock:
        if is_prepared(wanted, cache):
            return folder
        for left in folder.glob(".*"):
            left.unlink()  # of a process that was killed: nobody else is at it
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(wanted, stop))
        try:
            _make(pool, wanted, items, folder, processes, progress, say)
        except BrokenProcessPool as error:
            remedy = "The same command goes on; with fewer --processes it takes less memory."
            raise InfrastructureError(f"{folder}: a process that encodes was killed. {remedy}") from error
        except OSError as error:
            raise InfrastructureError(f"{folder}: {error}. Mend that; the same command goes on.") from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    return folder


def prepared_items(folder: Path) -> dict[str, int]:
    """How many items lie in a folder that is not finished, by split."""
    found = {split: _finished(folder, split) for split in SPLITS}
    return {split: sum(len(facts.names) for facts in shards.values()) for split, shards in found.items()}


def usable_media(wanted: Wanted, items: Items, split: SplitName, count: int) -> Iterator[Media]:
    """The first media of a split that can be used, each brought to size ``[...]``: what its latents were made of."""
    made, is_picture = 0, wanted.kind.modality == "image"
    rate = None if is_picture else pipeline_of(wanted, encodes_text=False).sound_rate
    for item in items.read(split, 0, None):
        if made == count:
            return
        try:
            found = _brought(wanted, item, rate)
        except UnusableError:
            continue
        made += 1
        yield found.medium[0]


def _make(
    pool: ProcessPoolExecutor,
    wanted: Wanted,
    items: Items,
    folder: Path,
    processes: int,
    progress: Callable[[Done], None],
    say: Callable[[str], None],
) -> None:
    """All shards, and the manifest."""
    _remove_damaged(pool, folder, say)
    facts: dict[SplitName, list[ShardFacts]] = {}
    first = 0
    for split in SPLITS:
        made = _Split(pool, wanted, items, folder, split, first, processes, progress)
        made.run()
        facts[split] = made.facts
        if not sum(len(one.names) for one in made.facts):
            reasons = list(_left_out(made.facts)) or ["there is none"]
            problem = f"no item of the {split} split can be used: {', '.join(reasons)}"
            raise FieldError("data", split, wanted.kind.modality, problem, "Give others.")
        if split == "validation":
            first = items.first_row(sum(one.rows for one in made.facts))
    if not wanted.kind.labelled and not (folder / EMPTY).exists():
        pool.submit(_make_empty, folder).result()
    files = sorted(folder.glob("*.safetensors"))
    write_manifest(
        folder,
        files,
        {
            "format": FORMAT_VERSION,
            "digest": wanted.digest,
            "items": {split: sum(len(one.names) for one in found) for split, found in facts.items()},
            "shards": {split: len(found) for split, found in facts.items()},
            "rows": {split: sum(one.rows for one in found) for split, found in facts.items()},
            "left_out": {split: _left_out(found) for split, found in facts.items()},
            "sha256": {split: _content(found) for split, found in facts.items()},
        },
        {file.name: _hash_file(file).read_text(encoding="utf-8").strip() for file in files},
    )
    for file in (*map(_hash_file, files), *folder.glob(f"*{_STATES}")):
        file.unlink(missing_ok=True)


class _Split:
    """The making of one split."""

    def __init__(
        self,
        pool: ProcessPoolExecutor,
        wanted: Wanted,
        items: Items,
        folder: Path,
        split: SplitName,
        first: int,
        processes: int,
        progress: Callable[[Done], None],
    ) -> None:
        self._pool, self._folder, self._split, self._first = pool, folder, split, first
        self._in_flight, self._progress = _IN_FLIGHT * processes, progress
        self._count = min(filter(None, (items.counts[split], wanted.limit)), default=None)
        self._rows = _Rows(items, folder, split, first)
        self._made = _finished(folder, split)
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
        while self._going and self._kept() + SHARD * (len(self._going) + 1) > self._count:
            self._finish_to(len(self._going) - 1)
        return min(SHARD, self._count - self._kept() - SHARD * len(self._going))

    def _kept(self) -> int:
        return sum(len(one.names) for one in self._made.values())

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
            self._progress(Done(self._split, self._kept(), rows, _left_out(self.facts)))


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


def _finished(folder: Path, split: SplitName) -> dict[int, ShardFacts]:
    """The facts of the shards that are there, by their number."""
    found = {}
    for path in sorted(folder.glob(f"{split}-*.safetensors")):
        if _hash_file(path).exists():
            found[int(path.stem.rpartition("-")[2])] = ShardFacts.of(path)
    return found


def _remove_damaged(pool: ProcessPoolExecutor, folder: Path, say: Callable[[str], None]) -> None:
    """Look at the hashes of the shards that are there; what is not as it was written is made again."""
    files = sorted(folder.glob("*.safetensors"))
    for file, whole in zip(files, pool.map(_is_whole, files, chunksize=8), strict=True):
        if not whole:
            say(f"{file.name} is not as it was written, and is made again")
            file.unlink()
            _hash_file(file).unlink(missing_ok=True)


def _left_out(facts: Sequence[ShardFacts]) -> dict[str, int]:
    return dict(sorted(Counter(reason for one in facts for _, reason in one.left_out).items()))


def _content(facts: Sequence[ShardFacts]) -> str:
    """sha256 (hex) of a split: of the digests of its items, in order."""
    return hashlib.sha256("".join(digest for one in facts for digest in one.digests).encode()).hexdigest()


def _hash_file(shard: Path) -> Path:
    return shard.with_suffix(_HASH)


# In the processes that encode.

_current: Wanted | None = None
_stopped: Any = None


class _StoppedError(Exception):
    """Whoever waits has given up: the shard at work is left."""


def _begin(wanted: Wanted, stop: Any) -> None:
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
    _current, _stopped = wanted, stop


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _is_whole(file: Path) -> bool:
    try:
        return _hash_file(file).read_text(encoding="utf-8").strip() == sha256_of(file)
    except FileNotFoundError:
        return False


def _make_shard(path: Path, items: Sequence[Item], room: int) -> ShardFacts:
    """Make a shard of the first items that can be used, ``room`` at most."""
    assert _current is not None
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
            for name, value in encoded(_current, item).items():
                tensors.setdefault(name, []).append(value)
        except UnusableError as error:
            left_out.append((item.name, error.reason))
            continue
        names.append(item.name)
        digests.append(item.digest)
    facts = ShardFacts(rows, tuple(names), tuple(digests), tuple(left_out))
    _save(path, {name: torch.cat(values) for name, values in tensors.items()}, asdict(facts))
    return facts


def _make_empty(folder: Path) -> None:
    """The empty caption, and what the pipeline guides away from where that is another."""
    assert _current is not None
    pipeline, length = pipeline_of(_current), _current.text_length
    if pipeline.negative:
        _save(folder / NEGATIVE, pipeline.encode_text([pipeline.negative], length), {})
    _save(folder / EMPTY, pipeline.encode_text([""], length), {})


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
    replace_text(_hash_file(path), sha256_of(path) + "\n")


def encoded(wanted: Wanted, item: Item) -> dict[str, Tensor]:
    """An item's latents and conditions ``[1, ...]``, by their names in a shard. Raises UnusableError."""
    pipeline = pipeline_of(wanted)
    found = _brought(wanted, item, pipeline.sound_rate)
    made = {LATENTS: pipeline.encode_media(_of_family(wanted, found.medium))}
    if item.label is not None:
        made[CONDITION + LABEL] = torch.tensor([item.label])
    else:
        made |= pipeline.encode_text([item.caption or ""], wanted.text_length)
    if found.reference is not None:
        made[CONDITION + REFERENCE] = pipeline.encode_media(_of_family(wanted, found.reference))
    if found.sound is not None:
        made[CONDITION + SOUND] = pipeline.encode_sound(found.sound)
    return made


@dataclass(frozen=True)
class _Brought:
    """An item's media, decoded and brought to size, each ``[1, ...]``; of clips with sound structured."""

    medium: Media
    reference: Media | None = None
    sound: Media | None = None


def _brought(wanted: Wanted, item: Item, rate: int | None) -> _Brought:
    """All media of an item; ``rate`` as `PublishedPipeline.sound_rate`. Raises UnusableError where one is of no use."""
    if item.missing is not None:
        raise UnusableError(item.missing)
    size, modality = wanted.size, wanted.kind.modality
    if modality == "audio":
        assert size.seconds is not None
        return _Brought(media.sound(item.medium, size.seconds, _known(wanted, rate))[None])
    assert size.resolution is not None
    reference = None if item.reference is None else media.picture(item.reference, size.resolution)[None]
    if modality == "image":
        return _Brought(media.picture(item.medium, size.resolution)[None], reference)
    frames = media.clip(item.medium, size)[None]
    if REFERENCE in wanted.needs:
        reference = frames[:, :1]
    if SOUND in wanted.needs:
        return _Brought(frames, reference, _clip_sound(wanted, item, rate))
    if rate is None:
        return _Brought(frames, reference)
    return _Brought(joint_media({"frames": frames, "audio": _clip_sound(wanted, item, rate)}), reference)


def _clip_sound(wanted: Wanted, item: Item, rate: int | None) -> Media:
    """The sound of a clip, as long as its frames."""
    size = wanted.size
    assert size.frames is not None
    if size.fps is None:
        remedy = "Set the frames a second."
        raise FieldError("protocol", "data.hub.fps", None, "the length of a clip's sound needs it", remedy)
    return media.sound(item.medium, size.frames / size.fps, _known(wanted, rate))[None]


def _known(wanted: Wanted, rate: int | None) -> int:
    if rate is None:
        problem = "its pipeline takes no sound"
        raise FieldError("selfflow_bench/pipelines", "family", wanted.family, problem, "Use data without sound.")
    return rate


def _of_family(wanted: Wanted, medium: Media) -> Media:
    """A picture is a clip of one frame to a family of clips."""
    is_picture = medium.ndim == 4 and not medium.dtype.names
    return medium[:, None] if is_picture and wanted.makes_clips else medium
