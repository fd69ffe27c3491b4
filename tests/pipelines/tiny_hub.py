"""Tiny real pipelines in a folder laid out as the hub's cache: what offline loading finds there, without a network.

Their autoencoders compress as the published ones do and have as many channels; everything else is tiny.
"""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch

from selfflow_bench.recipe import Checkpoint

REVISION = "0123456789abcdef" * 2 + "01234567"


class TinyHub(Protocol):
    """A module of `tests.pipelines.tiny`.

    It may say more, where a pipeline is otherwise than most (see `tests.pipelines.cases.Case`): ``LENGTH`` of captions
    in tokens, where a template takes many; ``SIZE`` of media; ``CAPTION``; ``ATOL``; ``ATTACHED``, if hooks are needed;
    ``call``, what its own call is given; ``own``, the pipeline that is called; ``media``; ``noise`` that it draws;
    ``laid_out``, what it makes in the family's layout, and ``as_media``; and ``beside``, which saves what is not in its
    folder.
    """

    TRANSFORMER: dict[str, Any]
    """The tiny transformer's configuration, as a recipe has it."""

    def pipeline(self, transformer: Any) -> Any:
        """diffusers' pipeline around a transformer."""


class Folder:
    """Parts that diffusers has no pipeline class of, saved as it would save them.

    Args:
        index: what names them, if something does.
        parts: by the names of their subfolders.
    """

    def __init__(self, index: str | None, **parts: Any) -> None:
        self._index, self._parts = index, parts

    def save_pretrained(self, folder: Path) -> None:
        """Each in a folder of its own."""
        folder.mkdir(parents=True)
        for name, part in self._parts.items():
            part.save_pretrained(folder / name)
        if self._index is not None:
            kinds = {
                name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in self._parts.items()
            }
            (folder / self._index).write_text(json.dumps(kinds))


def without(call: dict[str, Any], *left_out: str) -> dict[str, Any]:
    """All but some arguments."""
    return {name: value for name, value in call.items() if name not in left_out}


def tiny(family: str) -> TinyHub:
    """The tiny pipeline's maker of a family."""
    found: Any = importlib.import_module(f"tests.pipelines.tiny.{family}")
    return found


def tiny_transformer(family: str) -> dict[str, Any]:
    """The configuration of the transformer in `tiny_checkpoint`."""
    return dict(tiny(family).TRANSFORMER)


@cache
def tiny_checkpoint(family: str, hub: Path) -> Checkpoint:
    """A family's tiny pipeline, saved below ``hub`` (what HF_HUB_CACHE must name)."""
    from selfflow_bench.registry import family_class

    checkpoint = Checkpoint(id=f"tiny/{family}", revision=REVISION)
    torch.manual_seed(0)
    transformer = family_class(family)(tiny_transformer(family)).make()
    repository = hub / f"models--tiny--{family}"
    tiny(family).pipeline(transformer).save_pretrained(repository / "snapshots" / REVISION)
    if hasattr(tiny(family), "beside"):
        tiny(family).beside(hub)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return checkpoint
