"""ci/gate.toml: what the gate runs and how far its runs may differ. Strict and frozen."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfflow_bench.errors import DamagedFileError
from selfflow_bench.recipe import field_error

FILE = "gate.toml"
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GoldenSettings(_Strict):
    """Steps of a golden curve, and the relative difference that another processor or library version may make."""

    steps: Annotated[int, Field(ge=1)]
    tolerance: Share


class BandSettings(_Strict):
    """How many runs make a reference and a candidate, and what of a difference matters."""

    recipes: list[str]
    reference_runs: Annotated[int, Field(ge=3)]
    candidate_runs: Annotated[int, Field(ge=1)]
    margin: Share
    false_alarms: Share


class GateSettings(_Strict):
    """The whole file."""

    recipes: list[str]
    methods: list[str]
    golden: GoldenSettings
    bands: BandSettings


def read_settings(folder: Path) -> GateSettings:
    """The settings in a folder. Raises DamagedFileError and FieldError."""
    path = folder / FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path}: cannot be read as the gate's settings ({error}). Restore it.") from error
    try:
        return GateSettings.model_validate(content)
    except ValidationError as error:
        raise field_error(path, GateSettings, error) from error
