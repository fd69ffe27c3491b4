"""The claims ledger, results/claims.toml: published numbers, their source and protocol, and what became of them here.

Strict: a claim that is not run or is open says why, one that is settled names the records that settle it. Knows
nothing of how it is shown.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.identity import Name

FILE = "claims.toml"
Status = Literal["reproduced", "not reproduced", "inconclusive", "not run"]
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Claim(_Part):
    """One published row. Parameters in millions, steps in thousands; `batch` is null where the source gives none.

    `here` is the method of this suite that it is about. `runs` are the records the status rests on.
    """

    model: Text
    parameters_m: Positive
    method: Text
    steps_k: Positive
    batch: Annotated[int, Field(gt=0)] | None = None
    metrics: Annotated[dict[str, float], Field(min_length=1)]
    here: Name | None = None
    status: Status
    reason: Text | None = None
    runs: Annotated[tuple[Name, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _status_is_founded(self) -> Self:
        if self.status in ("not run", "inconclusive") and self.reason is None:
            raise ValueError(f"status {self.status!r} needs its reason")
        if (self.status == "not run") != (not self.runs):
            raise ValueError(f"status {self.status!r} and {len(self.runs)} runs: settled claims name their runs")
        return self


class PublishedTable(_Part):
    """A table of a publication: where it stands, and the protocol that its rows share. `resolution` in pixels."""

    paper: Text
    table: Text
    source: Annotated[str, Field(pattern=r"^https://\S+$")]
    confidence: Text
    dataset: Text
    resolution: Annotated[int, Field(gt=0)]
    task: Text
    guidance: Text
    claims: Annotated[tuple[Claim, ...], Field(min_length=1, strict=False)]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics, in the order they first appear."""
        return tuple(dict.fromkeys(name for claim in self.claims for name in claim.metrics))


class Ledger(_Part):
    """All published tables."""

    tables: Annotated[tuple[PublishedTable, ...], Field(strict=False)] = ()


def read_claims(root: Path, run_ids: Collection[str]) -> Ledger:
    """The ledger of a results folder, empty where it has none.

    Raises DamagedFileError naming the first field that is wrong, FieldError where a claim rests on a run that is not
    among `run_ids`.
    """
    path = root / FILE
    if not path.exists():
        return Ledger()
    try:
        ledger = Ledger.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path}: not TOML: {error}. Mend that line.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "ledger"
        raise DamagedFileError(f"{path}: {place}: {first['msg']}. Mend that field.") from error
    for number, table in enumerate(ledger.tables):
        for row, claim in enumerate(table.claims):
            missing = [run for run in claim.runs if run not in run_ids]
            if missing:
                raise FieldError(
                    path, f"tables.{number}.claims.{row}.runs", missing[0], "no such record", "Name a record's run id."
                )
    return ledger
