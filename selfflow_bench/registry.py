"""The families and methods by name: each a module in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfflow_bench.by_name import only_subclass

if TYPE_CHECKING:
    from selfflow_bench.families.base import Family
    from selfflow_bench.methods.base import Method


def family_class(name: str) -> type[Family]:
    """The class of a model family. Raises FieldError where there is none of that name."""
    from selfflow_bench.families.base import Family

    return only_subclass("families", "family", name, Family)


def method_class(name: str) -> type[Method]:
    """The class of a method. Raises FieldError where there is none of that name."""
    from selfflow_bench.methods.base import Method

    return only_subclass("methods", "method", name, Method)
