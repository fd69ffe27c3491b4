"""The claims ledger, results/claims.toml: published numbers, their source and protocol, and what became of them here.

Strict: a claim that is not run or is open says why, one that is settled names the records that settle it, and each says
how it is run here or why it cannot be. Knows nothing of how it is shown, nor of when a claim is settled (see
`selfflow_bench.results.reproduction`).
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.identity import Name

FILE = "claims.toml"
Status = Literal["reproduced", "not reproduced", "inconclusive", "not run"]
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ClaimedRun(_Part):
    """What runs a claim: a recipe's reference tier, and the method or variant that the publication means."""

    recipe: Name
    label: Name


class Claim(_Part):
    """One published row. Parameters in millions, steps in thousands; `batch` is null where the source gives none.

    `here` is the method of this suite that it is about; `run` what runs it, else `not_plannable` says why nothing does.
    `runs` are the records the status rests on.
    """

    id: Name
    model: Text
    parameters_m: Positive
    method: Text
    steps_k: Positive
    batch: Annotated[int, Field(gt=0)] | None = None
    metrics: Annotated[dict[str, float], Field(min_length=1)]
    here: Name | None = None
    run: ClaimedRun | None = None
    not_plannable: Text | None = None
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

    @model_validator(mode="after")
    def _is_plannable_or_says_why_not(self) -> Self:
        if (self.run is None) == (self.not_plannable is None):
            raise ValueError("a claim has either what runs it (run) or why nothing does (not_plannable)")
        return self

    def samples(self, batch: int) -> int:
        """Training samples of the published run; ``batch`` where the source gives none."""
        return round(self.steps_k * 1000) * (self.batch or batch)


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

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        twice = [name for name, count in Counter(claim.id for claim in self.claims).items() if count > 1]
        if twice:
            raise ValueError(f"two claims have the id {twice[0]!r}")
        return self

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims of all tables."""
        return tuple(claim for table in self.tables for claim in table.claims)

    def claim(self, name: str) -> Claim:
        """The claim of that id. Raises FieldError where there is none."""
        for claim in self.claims:
            if claim.id == name:
                return claim
        known = ", ".join(claim.id for claim in self.claims) or "none"
        raise FieldError(FILE, "claim", name, "no such claim", f"There are: {known}.")


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


def settle(root: Path, name: str, status: Status, reason: str, runs: Sequence[str]) -> Path:
    """Write a claim's status, its reason and the records it rests on into the ledger; all else stays as it is written.

    Raises FieldError where there is no such claim, DamagedFileError where the ledger would no longer be one.
    """
    path = root / FILE
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    found = [claim for table in document.get("tables", []) for claim in table["claims"] if claim.get("id") == name]
    if len(found) != 1:
        raise FieldError(path, "claim", name, "no such claim", "Give the id of one.")
    found[0].update({"status": status, "reason": reason, "runs": list(runs)})
    text = tomlkit.dumps(document)
    try:
        Ledger.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise DamagedFileError(f"{path}: {error.errors()[0]['msg']}. Nothing was written.") from error
    replace_text(path, text)
    return path
