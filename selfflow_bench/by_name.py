"""Finds classes by name: one module of that name in a package, holding one class. Nothing to list.

Names are known without importing anything, so that `list` and messages need no torch. Knows nothing of what the classes
are.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from selfflow_bench.errors import FieldError


def names(kind: str) -> tuple[str, ...]:
    """The modules of the package ``selfflow_bench.<kind>`` but its base, in alphabetical order."""
    folder = Path(__file__).parent.joinpath(*kind.split("."))
    return tuple(sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "base")))


def only_subclass(kind: str, field: str, name: str, base: type[Any]) -> type[Any]:
    """The one class of ``base`` in the module ``name`` of a kind. Raises FieldError where there is no such module."""
    known = names(kind)
    if name not in known:
        folder = f"selfflow_bench/{kind.replace('.', '/')}"
        raise FieldError(folder, field, name, f"unknown {field}", f"Known: {', '.join(known)}.")
    module = import_module(f"selfflow_bench.{kind}.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise RuntimeError(f"{module.__name__} must define exactly one {base.__name__}, not {len(found)}")
    return found[0]
