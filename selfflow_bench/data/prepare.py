"""Turns a source into what training reads: latents and encoded captions on disk, made once and found by content.

A prepared folder appears complete or not at all, whatever kills its maker. Knows nothing of models and training.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfflow_bench import canonical
from selfflow_bench.data import captions, codecs, sources
from selfflow_bench.data.spectrogram import LogSpectrogram
from selfflow_bench.data.views import SplitName
from selfflow_bench.errors import DamagedFileError

# Part of the digest: raise it when the content of a prepared folder changes for the same inputs.
FORMAT_VERSION = 2
_MANIFEST = "manifest.json"
_SPLITS: tuple[SplitName, ...] = ("train", "validation")


@dataclass(frozen=True)
class Split:
    """One split, in the source's order.

    Args:
        latents: float32 [N, *latent_shape], mapped from the file and read as it is used.
        caption: int64 [N], the row of each item's caption in the text of `Prepared`.
        names: the source's name of each item.
        conditions: tensors [N, ...] by name: a reference as latents, a sound as log spectrogram [frames, 128].
    """

    latents: Tensor
    caption: Tensor
    names: tuple[str, ...]
    conditions: Mapping[str, Tensor]


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Args:
        digest: what it was made of; equal digests mean equal content.
        directory: where it lies.
        codec: fitted to the training split; turns samples back into media.
        latent_shape: shape of one latent, channels first.
        text: tensors [M, ...] of all captions of both splits, as `captions.encode` gives them; row 0 is the empty
            caption.
    """

    digest: str
    directory: Path
    codec: codecs.Codec
    latent_shape: tuple[int, ...]
    train: Split
    validation: Split
    text: Mapping[str, Tensor]


def prepare(
    source: str,
    codec: Mapping[str, Any],
    text_length: int,
    cache: Path,
    progress: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """The prepared data set of a source, a codec's table and a caption length; made where `cache` lacks it.

    Any number of processes may ask at once: one makes it and the others wait. Raises FieldError for names and sizes
    that do not fit, DamagedFileError for a source or a cache that is not what its checksums say.
    """
    unfitted = codecs.codec_from(codec)
    content = {
        "source": {split: sources.digest(source, split) for split in _SPLITS},
        "codec": unfitted.spec(),
        "captions": {"encoder": captions.FILES, "length": text_length},
        "format": FORMAT_VERSION,
    }
    digest = canonical.digest(content)
    directory = cache / digest
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(_lock(cache, digest)):
        if not directory.exists():
            partial = _partial(cache, digest)
            # Under this digest's lock nobody else is making it: what lies there belongs to a process that died.
            shutil.rmtree(partial, ignore_errors=True)
            _remove_abandoned(cache)
            partial.mkdir()
            _write(partial, digest, source, unfitted, text_length, progress)
            partial.rename(directory)
            _sync(cache)
            progress("prepared")
    return load_prepared(directory)


def load_prepared(directory: Path, *, verify: bool = False) -> Prepared:
    """Open a prepared folder, checking the size of every file, and with `verify` its sha256 too.

    Raises DamagedFileError, naming the file and the folder to delete.
    """
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT_VERSION:
            raise ValueError(f"format {manifest['format']}, but this version reads {FORMAT_VERSION}")
        for name, expected in manifest["files"].items():
            _check(directory / name, expected, verify=verify)
        text = load_file(directory / "text.safetensors")
        train, validation = (_load_split(directory, split) for split in _SPLITS)
        codec = codecs.from_state(manifest["codec"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedFileError(
            f"{directory}: this prepared data is damaged: {error}. Delete that folder; it is made again when needed."
        ) from error
    return Prepared(
        digest=manifest["digest"],
        directory=directory,
        codec=codec,
        latent_shape=tuple(train.latents.shape[1:]),
        train=train,
        validation=validation,
        text=text,
    )


def _write(
    partial: Path, digest: str, source: str, codec: codecs.Codec, text_length: int, progress: Callable[[str], None]
) -> None:
    loaded = {split: sources.load(source, split) for split in _SPLITS}
    sound = LogSpectrogram()
    # Row 0 is the empty caption, which condition dropout puts in place of others.
    texts = ["", *sorted({text for data in loaded.values() for text in data["caption"]} - {""})]
    rows = {text: row for row, text in enumerate(texts)}
    files = []
    for split, data in loaded.items():
        media = sources.media(data)
        if split == "train":
            codec = codec.fit(media)
        tensors = {
            "latents": codec.encode(media),
            "caption": torch.tensor([rows[text] for text in data["caption"]], dtype=torch.int64),
        }
        for name in sources.conditions(data):
            encoded = sources.column(data, name)
            if name == "sound":
                sound = sound.fit(encoded) if split == "train" else sound
                tensors[f"condition.{name}"] = sound.encode(encoded).transpose(1, 2).contiguous()
            else:
                # A still picture beside clips is one latent frame of a clip that stands still.
                still = np.repeat(encoded[:, None], codec.frames_per_cell, 1) if media.ndim == 5 else encoded
                tensors[f"condition.{name}"] = codec.encode(still)
        files += [partial / f"{split}.safetensors", partial / f"{split}-names.json"]
        save_file(tensors, files[-2])
        files[-1].write_text(json.dumps(data["name"][:]), encoding="utf-8")
        progress(f"{len(data)} {split} latents")
    text = captions.encode(texts, text_length, lambda done: progress(f"{done} of {len(texts)} captions"))
    files.append(partial / "text.safetensors")
    save_file(text, files[-1])
    manifest = {
        "format": FORMAT_VERSION,
        "digest": digest,
        "codec": codec.state(),
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in files},
    }
    (partial / _MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for path in (*files, partial / _MANIFEST, partial):
        _sync(path)


def _load_split(directory: Path, split: str) -> Split:
    tensors = load_file(directory / f"{split}.safetensors")
    names = json.loads((directory / f"{split}-names.json").read_text(encoding="utf-8"))
    conditions = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith("condition.")}
    return Split(tensors["latents"], tensors["caption"], tuple(names), conditions)


def _check(path: Path, expected: Mapping[str, Any], *, verify: bool) -> None:
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise ValueError(f"{path.name} has {size} bytes, not {expected['bytes']}")
    if verify and (found := _sha256(path)) != expected["sha256"]:
        raise ValueError(f"{path.name} has sha256 {found}, not {expected['sha256']}")


def _remove_abandoned(cache: Path) -> None:
    """Remove half-made folders whose maker is gone: a lock that can be had is held by nobody."""
    for partial in cache.glob(_partial(cache, "*").name):
        digest = partial.name.removeprefix(".").removesuffix(".partial")
        with suppress(filelock.Timeout), filelock.FileLock(_lock(cache, digest), timeout=0):
            shutil.rmtree(partial, ignore_errors=True)


def _partial(cache: Path, digest: str) -> Path:
    return cache / f".{digest}.partial"


def _lock(cache: Path, digest: str) -> Path:
    return cache / f".{digest}.lock"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
