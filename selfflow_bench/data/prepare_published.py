"""Turns pictures with captions into what a published transformer is trained on: shards of latents and embeddings.

Encoded by the checkpoint's own pipeline, in several processes, each making whole shards. A shard appears complete or
not at all, so that an interrupted preparation goes on with the first one missing. Knows nothing of training.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import filelock
import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from selfflow_bench import canonical
from selfflow_bench.data.codecs import Codec, Media
from selfflow_bench.data.content_folder import MANIFEST, read_manifest, write_manifest
from selfflow_bench.data.items import SPLITS, Item, Items
from selfflow_bench.data.prepare import Prepared, Split
from selfflow_bench.data.sharded import ShardedRows
from selfflow_bench.errors import DamagedFileError, FieldError, InfrastructureError
from selfflow_bench.pipelines import pipeline_class
from selfflow_bench.pipelines.base import PublishedPipeline
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.recipe import Checkpoint

FORMAT_VERSION = 1
SHARD = 64
"""Items in a shard: little is lost with one, and there are not too many files."""
_EMPTY = "empty.safetensors"
_FOLDER = "published"
_IN_FLIGHT = 2
"""Shards per process that wait to be encoded."""


@dataclass(frozen=True)
class Wanted:
    """What is to be prepared.

    Args:
        family: whose conditions are made.
        checkpoint: whose pipeline makes them.
        size: height and width of the pictures.
        text_length: tokens of a caption, at most.
        identity: of the items.
        limit: so many items of a split at most; None for all.
    """

    family: str
    checkpoint: Checkpoint
    size: tuple[int, int]
    text_length: int
    identity: Mapping[str, Any]
    limit: int | None = None

    @property
    def digest(self) -> str:
        """Equal digests mean equal shards."""
        return canonical.digest(
            {
                "family": self.family,
                "checkpoint": self.checkpoint.model_dump(mode="json"),
                "size": list(self.size),
                "text_length": self.text_length,
                "items": dict(self.identity),
                "limit": self.limit,
                "shard": SHARD,
                "format": FORMAT_VERSION,
            }
        )

    def folder(self, cache: Path) -> Path:
        """Where it lies, or will."""
        return cache / _FOLDER / self.digest


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Codec):
    """The checkpoint's own autoencoder, loaded when it is needed: nothing of it is fitted."""

    name: ClassVar[str] = "autoencoder"
    wanted: Wanted

    @property
    def pipeline(self) -> PublishedPipeline:
        """The published pipeline that it is a part of, without its text encoders."""
        return _pipeline(self.wanted, encodes_text=False)

    def fit(self, media: Media) -> Autoencoder:  # noqa: D102
        return self

    def encode(self, media: Media) -> Tensor:  # noqa: D102
        return self.pipeline.encode_media(media)

    def decode(self, latents: Tensor) -> Media:  # noqa: D102
        # One by one, so that what becomes of an item does not depend on its company, nor does memory.
        return np.concatenate([self.pipeline.decode(latent[None]) for latent in latents])

    def latent_shape(self, media_shape: Sequence[int]) -> tuple[int, ...]:  # noqa: D102
        return tuple(self.encode(np.zeros((1, *media_shape), np.uint8)).shape[1:])


def is_prepared(wanted: Wanted, cache: Path) -> bool:
    """Whether all of it is there."""
    return (wanted.folder(cache) / MANIFEST).exists()


def prepare_published(
    wanted: Wanted,
    items: Items,
    cache: Path,
    *,
    processes: int,
    progress: Callable[[str, int], None] = lambda split, done: None,
) -> Path:
    """Make what of the shards is missing; the folder.

    Args:
        wanted: what to make.
        items: what to make it of.
        cache: where prepared data lie.
        processes: how many encode at once; each loads the pipeline.
        progress: is told the items of a split that are done.

    Raises FieldError for a picture that cannot be read, and what the pipeline's loading raises.
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
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(wanted,))
        try:
            counts = {
                split: _make_split(pool, folder, items, split, wanted.limit, processes, progress) for split in SPLITS
            }
            pool.submit(_make_empty, folder).result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        files = sorted(folder.glob("*.safetensors"))
        write_manifest(folder, files, {"format": FORMAT_VERSION, "digest": wanted.digest, "counts": counts})
    return folder


def load_published(wanted: Wanted, cache: Path, remedy: str) -> Prepared:
    """Open prepared shards. Raises DamagedFileError, with ``remedy``, where they are not there or not as written."""
    folder = wanted.folder(cache)
    try:
        manifest = read_manifest(folder)
        counts = manifest["counts"]
        shards = {
            split: [_shard(folder, split, index) for index in range(-(-counts[split] // SHARD))] for split in SPLITS
        }
        everything = [folder / _EMPTY, *shards["train"], *shards["validation"]]
        with safe_open(everything[0], "pt") as empty:
            text = {name: ShardedRows(everything, name) for name in empty.keys()}  # noqa: SIM118
        splits, first = {}, 1
        for split in SPLITS:
            rows = torch.arange(first, first + counts[split])
            first += counts[split]
            splits[split] = Split(ShardedRows(shards[split], "latents"), rows, _names(shards[split]), {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(
            f"{folder}: these prepared data are not there, or damaged ({error}). {remedy}"
        ) from error
    return Prepared(
        digest=manifest["digest"],
        directory=folder,
        codec=Autoencoder(wanted=wanted),
        latent_shape=tuple(splits["train"].latents.shape[1:]),
        train=splits["train"],
        validation=splits["validation"],
        text=text,
    )


def _make_split(
    pool: ProcessPoolExecutor,
    folder: Path,
    items: Items,
    split: Any,
    limit: int | None,
    processes: int,
    progress: Callable[[str, int], None],
) -> int:
    """Have all shards of a split made; its number of items."""
    count, done = 0, 0
    going: dict[Future[None], int] = {}

    def finish(at_least: int) -> None:
        nonlocal done
        while len(going) > at_least:
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                future.result()
                done += going.pop(future)
                progress(split, done)

    for index, part in enumerate(_parts(items.read(split), limit)):
        count += len(part)
        path = _shard(folder, split, index)
        if path.exists():
            done += len(part)
            progress(split, done)
            continue
        finish(_IN_FLIGHT * processes - 1)
        going[pool.submit(_make_shard, path, part)] = len(part)
    finish(0)
    return count


def _parts(items: Iterator[Item], limit: int | None) -> Iterator[list[Item]]:
    limited = items if limit is None else islice(items, limit)
    while part := list(islice(limited, SHARD)):
        yield part


_current: Wanted | None = None
_loaded: dict[tuple[str, bool], PublishedPipeline] = {}


def _begin(wanted: Wanted) -> None:
    """In each process: a Ctrl-C is for whoever waits for it, so that a shard that is begun is finished."""
    global _current  # noqa: PLW0603 (an initializer has no other way to hand something to its process)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A pool's processes do not notice that whoever waits for them was killed.
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    if torch.cuda.is_available():
        number = (multiprocessing.current_process()._identity or (0,))[0]
        torch.cuda.set_device(number % torch.cuda.device_count())
    _current = wanted


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _pipeline(wanted: Wanted, *, encodes_text: bool = True) -> PublishedPipeline:
    """The pipeline on the process's device, loaded once per process."""
    key = wanted.digest, encodes_text
    if key not in _loaded:
        on_gpu = torch.cuda.is_available()
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        kind, dtype = pipeline_class(wanted.family), torch.bfloat16 if on_gpu else torch.float32
        _loaded[key] = kind(local_snapshot(wanted.checkpoint), device, dtype, encodes_text=encodes_text)
    return _loaded[key]


def _make_shard(path: Path, items: Sequence[Item]) -> None:
    assert _current is not None
    pipeline = _pipeline(_current)
    tensors: dict[str, list[Tensor]] = {}
    for item in items:
        # One by one, so that what becomes of an item does not depend on its company.
        made = pipeline.encode_text([item.caption], _current.text_length)
        made["latents"] = pipeline.encode_media(_picture(item, _current.size)[None])
        for name, value in made.items():
            tensors.setdefault(name, []).append(value)
    names = json.dumps([item.name for item in items])
    _save(path, {name: torch.cat(values).contiguous() for name, values in tensors.items()}, {"names": names})


def _make_empty(folder: Path) -> None:
    assert _current is not None
    _save(folder / _EMPTY, _pipeline(_current).encode_text([""], _current.text_length), {})


def _save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(dict(tensors), temporary, dict(facts))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _picture(item: Item, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """uint8 ``[H, W, 3]``: scaled to cover the size, its middle cut out."""
    try:
        with Image.open(io.BytesIO(item.medium)) as picture:
            height, width = size
            fitted = ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
            return np.asarray(fitted)
    except OSError as error:
        remedy = "Take it out of the data, or mend it."
        raise FieldError("data", "picture", item.name, f"cannot be read: {error}", remedy) from error


def _shard(folder: Path, split: str, index: int) -> Path:
    return folder / f"{split}-{index:06d}.safetensors"


def _names(shards: Sequence[Path]) -> tuple[str, ...]:
    found: list[str] = []
    for path in shards:
        with safe_open(path, "pt") as file:
            found += json.loads(file.metadata()["names"])
    return tuple(found)
