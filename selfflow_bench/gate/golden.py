"""Golden curves: the losses of a run's first steps to the last bit, against those in ci/golden.

A header decides whether two curves can be compared: another experiment cannot be; the same one with other libraries or
on another kind of processor can, but for rounding. Knows nothing of how runs are made.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import DamagedFileError
from selfflow_bench.gate.outcome import Outcome
from selfflow_bench.gate.short_run import Curve

RENEW = "After a wanted change: selfflow-bench check --renew"


@dataclass(frozen=True)
class Golden:
    """A curve with what it is (`identity`) and what its last bits depend on (`arithmetic`)."""

    identity: dict[str, str]
    arithmetic: dict[str, str]
    curve: Curve


def golden_path(folder: Path, recipe: str, label: str) -> Path:
    """Where the golden curve of a recipe's method lies in the gate's folder."""
    return folder / "golden" / f"{recipe}-{label}.json"


def read_golden(path: Path) -> Golden | None:
    """A golden curve, None where there is none. Raises DamagedFileError."""
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        curve = Curve(tuple(map(float, content["steps"])), tuple(map(float, content["validation"])))
        return Golden(dict(content["identity"]), dict(content["arithmetic"]), curve)
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedFileError(f"{path}: is no golden curve ({error}). Restore it from version control.") from error


def write_golden(path: Path, golden: Golden) -> None:
    """Write a golden curve, floats as Python repeats them."""
    content = {
        "identity": golden.identity,
        "arithmetic": golden.arithmetic,
        "steps": golden.curve.steps,
        "validation": golden.curve.validation,
    }
    replace_text(path, json.dumps(content, indent=1) + "\n")


def compare_golden(
    subject: str, golden: Golden | None, found: Golden, *, tolerance: float, exact: bool = False
) -> Outcome:
    """Whether a curve is the golden one.

    To the bit where the arithmetic is the golden's own; elsewhere within ``tolerance`` (relative), or with ``exact``
    not at all. The first step that differs is named with both values.
    """
    if golden is None:
        return Outcome(subject, "nothing measured", f"there is no golden curve. {RENEW}")
    other = _first_difference(golden.identity, found.identity)
    if other is not None:
        return Outcome(subject, "nothing measured", f"the golden curve is of another run: {other}. {RENEW}")
    where = _first_difference(golden.arithmetic, found.arithmetic)
    if where is not None and exact:
        return Outcome(subject, "nothing measured", f"not comparable to the bit: {where}")
    allowed = 0.0 if where is None else tolerance
    how = "to the bit" if where is None else f"within {tolerance:g}, not to the bit, because of {where}"
    largest = 0.0
    for name, ours, wanted in _values(golden.curve, found.curve):
        apart = 0.0 if ours == wanted else abs(ours - wanted) / abs(wanted) if wanted else math.inf
        if not apart <= allowed:
            text = f"{name} is {ours!r}, but the golden curve has {wanted!r} (relative difference {apart:.2g})"
            return Outcome(subject, "regression", f"{text}; compared {how}. {RENEW}")
        largest = max(largest, apart)
    done = f"{len(golden.curve.steps)} steps and the validation after them are equal {how}"
    return Outcome(subject, "pass", done if where is None else f"{done} (largest difference {largest:.2g})")


def _values(golden: Curve, found: Curve) -> list[tuple[str, float, float]]:
    steps = zip(found.steps, golden.steps, strict=True)
    validation = zip(found.validation, golden.validation, strict=True)
    return [
        *((f"the loss of step {index}", ours, wanted) for index, (ours, wanted) in enumerate(steps, start=1)),
        *(
            (f"the validation loss of timestep {i}", ours, wanted)
            for i, (ours, wanted) in enumerate(validation, start=1)
        ),
    ]


def _first_difference(one: dict[str, str], two: dict[str, str]) -> str | None:
    """The first field that differs, with the golden's value and ours."""
    for field in (*one, *(field for field in two if field not in one)):
        if one.get(field) != two.get(field):
            return f"{field} (golden {one.get(field)}, here {two.get(field)})"
    return None
