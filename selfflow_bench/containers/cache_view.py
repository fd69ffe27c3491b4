"""The shared cache as a container sees it: what is there is read-only, what is new lands in the run's own folder.

A container may write nothing but its output folder. So that folder gets the cache's tree with links to the read-only
mount for files, and what the run adds is taken over into the shared cache afterwards, by the host: whole files and
folders, never a link. Knows nothing of what is cached and of engines.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def open_view(cache: Path, view: Path, mounted_at: str) -> None:
    """Make `view` anew as a tree of links to the files of `cache`, which the container has at `mounted_at`."""
    remove_view(view)
    view.mkdir(parents=True)
    for folder, names, files in os.walk(cache.resolve()):
        names[:] = [name for name in names if not _is_private(name)]
        inside = Path(folder).relative_to(cache.resolve())
        (view / inside).mkdir(exist_ok=True)
        for name in files:
            if not _is_private(name):
                (view / inside / name).symlink_to(Path(mounted_at) / inside / name)


def take_over(view: Path, cache: Path) -> None:
    """Move what a run has added to its view into the shared cache, each entry at once and never over another."""
    if not view.is_dir() or view.is_symlink():
        return
    for path in sorted(view.iterdir()):
        target = cache / path.name
        if _is_private(path.name) or path.is_symlink():
            continue
        if path.is_dir() and target.is_dir():
            take_over(path, target)
        elif not target.exists() and _is_plain(path):
            _move_whole(path, target)


def remove_view(view: Path) -> None:
    """Remove a view and all that is in it; the cache behind its links stays."""
    if view.is_symlink() or view.is_file():
        view.unlink()
    elif view.exists():
        shutil.rmtree(view)


def _is_private(name: str) -> bool:
    """Locks, half-written files and compilers' caches begin with a dot."""
    return name.startswith(".")


def _is_plain(path: Path) -> bool:
    """Regular files and folders only: a link that a container has planted would lead anywhere on the host."""
    if path.is_symlink():
        return False
    if path.is_dir():
        return all(_is_plain(inner) for inner in path.iterdir())
    return path.is_file()


def _move_whole(path: Path, target: Path) -> None:
    """Rename, over a temporary name where the cache is on another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(dir=target.parent, prefix=".taking-over-"))
    try:
        shutil.move(path, holder / path.name)
        try:
            os.rename(holder / path.name, target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
