"""What recipes and protocols are written in: a strict model, kinds of values, and the mark of what nothing pins yet.

Knows nothing of what they say.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

UNPINNED = "unpinned"
"""Stands for a revision or hash that is not known yet: `selfflow-bench pin` fills it in on a connected machine."""
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
HubId = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
Revision = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|unpinned)$")]
"""A commit, or ``unpinned``."""


class StrictModel(BaseModel):
    """Frozen, of exact types and finite numbers; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def unpinned_fields(content: Any, where: str = "") -> tuple[str, ...]:
    """The places in plain data (see `BaseModel.model_dump`) that say ``unpinned``, as dotted names."""
    if content == UNPINNED:
        return (where,)
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return tuple(found for key, item in items for found in unpinned_fields(item, f"{where}.{key}".lstrip(".")))
