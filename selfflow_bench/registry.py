"""Finds families and methods by name: one module of that name in their folder, holding one class. Nothing to list.

Names are known without importing anything, so that `list` and messages need no torch.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfflow_bench.errors import FieldError

if TYPE_CHECKING:
    from selfflow_bench.families.base import Family
    from selfflow_bench.methods.base import Method


def names(kind: str) -> tuple[str, ...]:
    """The modules of the package ``selfflow_bench.<kind>`` but its base, in alphabetical order."""
    folder = Path(__file__).parent.joinpath(*kind.split("."))
    return tuple(sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "base")))


def family_class(name: str) -> type[Family]:
    """The class of a model family. Raises FieldError where there is none of that name."""
    from selfflow_bench.families.base import Family

    return only_subclass("families", "family", name, Family)


def method_class(name: str) -> type[Method]:
    """The class of a method. Raises FieldError where there is none of that name."""
    from selfflow_bench.methods.base import Method

    return only_subclass("methods", "method", name, Method)


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
