"""Turns a source into what training reads: latents and encoded captions on disk, made once and found by content.

A prepared folder appears complete or not at all, whatever kills its maker. Knows nothing of models and training.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfflow_bench import canonical
from selfflow_bench.data import captions, codecs, sources
from selfflow_bench.data.content_folder import made_once, read_manifest, write_manifest
from selfflow_bench.data.sharded import Rows
from selfflow_bench.data.spectrogram import LogSpectrogram
from selfflow_bench.data.views import SplitName
from selfflow_bench.errors import DamagedFileError

# Part of the digest: raise it when the content of a prepared folder changes for the same inputs.
FORMAT_VERSION = 2
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

    latents: Rows
    caption: Tensor
    names: tuple[str, ...]
    conditions: Mapping[str, Rows]


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
        negative: tensors [1, ...] of the caption that a published pipeline guides away from, where that is not the
            empty one.
    """

    digest: str
    directory: Path
    codec: codecs.Codec
    latent_shape: tuple[int, ...]
    train: Split
    validation: Split
    text: Mapping[str, Rows]
    negative: Mapping[str, Tensor] = field(default_factory=dict)


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

    def write(folder: Path) -> None:
        _write(folder, digest, source, unfitted, text_length, progress)
        progress("prepared")

    directory = made_once(cache, digest, write)
    return load_prepared(directory)


def load_prepared(directory: Path, *, verify: bool = False) -> Prepared:
    """Open a prepared folder, checking the size of every file, and with `verify` its sha256 too.

    Raises DamagedFileError, naming the file and the folder to delete.
    """
    try:
        manifest = read_manifest(directory, verify=verify)
        if manifest["format"] != FORMAT_VERSION:
            raise ValueError(f"format {manifest['format']}, but this version reads {FORMAT_VERSION}")
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
    write_manifest(partial, files, {"format": FORMAT_VERSION, "digest": digest, "codec": codec.state()})


def _load_split(directory: Path, split: str) -> Split:
    tensors = load_file(directory / f"{split}.safetensors")
    names = json.loads((directory / f"{split}-names.json").read_text(encoding="utf-8"))
    conditions = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith("condition.")}
    return Split(tensors["latents"], tensors["caption"], tuple(names), conditions)
