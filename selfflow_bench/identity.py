"""What names a recipe or protocol in plans, runs and records: its name, version and digest."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Versioned(BaseModel):
    """A recipe or protocol, identified by its digest."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    version: Annotated[int, Field(ge=1)]
    digest: Sha256

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"
