"""Brings published weights from the hub into its cache on this machine: the files that are loaded, and no others.

Says what it is going to fetch before it does. Knows nothing of what the weights are for.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from selfflow_bench.errors import DamagedFileError, FieldError, InfrastructureError, SuiteError
from selfflow_bench.pipelines.snapshot import INDICES, LOOSE, local_snapshot, parts_in, parts_of
from selfflow_bench.recipe import Checkpoint

_WEIGHTS = (".safetensors", ".bin")
_BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab")
"""Endings of configurations and of tokenizers' files."""


@dataclass(frozen=True)
class Fetch:
    """What is going to be fetched: bytes of so many files."""

    files: int
    size: int


def snapshot_or_fetched(checkpoint: Checkpoint, say: Callable[[Fetch], None]) -> Path:
    """The folder of a checkpoint, fetched where the cache lacks it or part of it; ``say`` is told of it beforehand.

    Raises DamagedFileError where it is lacking and the hub must not be asked, FieldError for a revision that is not
    pinned, InfrastructureError where the hub does not give it, and SuiteError where the disk has not the room.
    """
    from huggingface_hub import constants

    try:
        return local_snapshot(checkpoint)
    except DamagedFileError:
        if constants.HF_HUB_OFFLINE:
            raise
    wanted = _wanted(checkpoint)
    _check_room(wanted, Path(constants.HF_HUB_CACHE))
    say(wanted.fetch)
    _asked(checkpoint, list(wanted.names))
    return local_snapshot(checkpoint)


@dataclass(frozen=True)
class _Wanted:
    names: tuple[str, ...]
    fetch: Fetch


def needed_files(names: Sequence[str], parts: Iterable[str] | None) -> list[str]:
    """Those of a repository's files that its pipeline is loaded from.

    Of each part (each folder that the index names; the repository itself where it has no index) configurations,
    tokenizers, and weights once: not in other precisions, not pickled where there are safetensors.
    """
    folders = ("",) if parts is None else tuple(parts)
    found = [name for name in names if name in INDICES]
    for folder in folders:
        here = [name for name in names if str(PurePosixPath(name).parent) == (folder or ".")]
        found += [name for name in here if name.endswith(_BESIDE) and not _is_variant(name)]
        for ending in _WEIGHTS:
            weights = [name for name in here if name.endswith(ending)]
            plain = [name for name in weights if not _is_variant(name)]
            if weights:
                found += plain or weights
                break
    return sorted(set(found) - {name for name in found if name.endswith(".bin.index.json") and _has_safe(name, names)})


def _is_variant(name: str) -> bool:
    """Whether a file of weights, or the index of some, is of a precision that its name tells of: ``model.fp16...``."""
    file = PurePosixPath(name).name
    if ".index." in file:
        return not file.endswith(".index.json")
    return file.endswith(_WEIGHTS) and re.fullmatch(r"[^.]+\.\w+", file) is None


def _has_safe(index: str, names: Sequence[str]) -> bool:
    folder = PurePosixPath(index).parent
    return any(name.endswith(".safetensors") and PurePosixPath(name).parent == folder for name in names)


def _wanted(checkpoint: Checkpoint) -> _Wanted:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        try:
            listed = snapshot_download(checkpoint.id, revision=checkpoint.revision, dry_run=True)
        except DryRunError as error:
            raise error.__cause__ or error from None
        there = {one.filename: one for one in listed}
        parts = None
        index = next((name for name in INDICES if name in there), None)
        if index is not None:
            folder = Path(_download(checkpoint, [index]))
            parts = parts_of(json.loads((folder / index).read_text(encoding="utf-8")))
        elif LOOSE in there:
            parts = parts_in(there)
    except GatedRepoError as error:
        remedy = "Accept its terms on the hub, and log in: hf auth login"
        raise InfrastructureError(f"{checkpoint.id}: the hub does not let this user have it. {remedy}") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        remedy = "Correct id and revision in the recipe, or log in if it is private: hf auth login"
        found = f"{checkpoint.id}@{checkpoint.revision}"
        raise FieldError(f"checkpoint {found}", "id", checkpoint.id, "is not on the hub", remedy) from error
    except Exception as error:  # whatever the client's own HTTP library raises where nothing answers
        raise _unreached(checkpoint, error) from error
    names = needed_files(list(there), parts)
    missing = [there[name] for name in names if there[name].will_download]
    return _Wanted(tuple(names), Fetch(len(missing), sum(one.file_size or 0 for one in missing)))


def _asked(checkpoint: Checkpoint, names: list[str]) -> None:
    try:
        _download(checkpoint, names)
    except Exception as error:  # as in `_wanted`
        raise _unreached(checkpoint, error) from error


def _download(checkpoint: Checkpoint, names: list[str]) -> str:
    """The hub's own client: shows progress, goes on with what is there in part, several files at once."""
    from huggingface_hub import snapshot_download

    return str(snapshot_download(checkpoint.id, revision=checkpoint.revision, allow_patterns=names))


def _unreached(checkpoint: Checkpoint, error: Exception) -> InfrastructureError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    remedy = f"The same command goes on; or fetch it elsewhere: hf download {checkpoint.id}"
    return InfrastructureError(f"{checkpoint.id}: cannot be fetched ({reason}). {remedy}")


def _check_room(wanted: _Wanted, cache: Path) -> None:
    there = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if wanted.fetch.size > free:
        raise SuiteError(
            f"{there}: has {free / 1e9:.3g} GB free, and {wanted.fetch.size / 1e9:.3g} GB are to be fetched. Make "
            "room, or name another place: HF_HUB_CACHE."
        )
