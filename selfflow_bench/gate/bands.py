"""Statistical bands: is the validation loss of new runs worse than the reference runs' spread allows?

For changes that move every bit. Student's t on the reference's own spread, because a z test with an estimated spread
gives more false alarms than it says. Knows nothing of how runs are made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.errors import DamagedFileError
from selfflow_bench.gate.outcome import Outcome


@dataclass(frozen=True)
class Reference:
    """Validation losses of reference runs, seeds 0 to R-1, and what the runs were."""

    identity: dict[str, str]
    losses: tuple[float, ...]


def reference_path(folder: Path, recipe: str, label: str) -> Path:
    """Where the reference of a recipe's method lies in the gate's folder."""
    return folder / "reference" / f"{recipe}-{label}.json"


def read_reference(path: Path) -> Reference | None:
    """A reference, None where there is none. Raises DamagedFileError."""
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Reference(dict(content["identity"]), tuple(map(float, content["losses"])))
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedFileError(f"{path}: is no reference ({error}). Restore it from version control.") from error


def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference, floats as Python repeats them."""
    content = {"identity": reference.identity, "losses": reference.losses}
    replace_text(path, json.dumps(content, indent=1) + "\n")


def t_statistic(reference: Sequence[float], candidate: Sequence[float], shift: float = 0.0) -> tuple[float, float]:
    """``(mean_c - mean_r - shift) / (s_r sqrt(1/R + 1/n))`` and its one-sided p, on R - 1 degrees of freedom.

    The p value belongs to "the candidate is not higher than the reference by more than the shift". Raises ValueError on
    fewer than two reference values or none of the candidate.
    """
    base, new = np.asarray(reference, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if len(base) < 2 or len(new) < 1:
        raise ValueError(f"needs 2 reference values and 1 candidate, not {len(base)} and {len(new)}")
    error = float(base.std(ddof=1)) * math.sqrt(1 / len(base) + 1 / len(new))
    apart = float(new.mean() - base.mean()) - shift
    t = apart / error if error > 0 else math.copysign(math.inf, apart) if apart else 0.0
    return t, float(stats.t.sf(t, len(base) - 1))


def compare_bands(
    subject: str,
    reference: Reference | None,
    identity: dict[str, str],
    candidate: Sequence[float],
    *,
    margin: float,
    false_alarms: float,
) -> Outcome:
    """Regression where the candidate is shown to be worse, else pass where it is shown not to be so by the margin."""
    if reference is None:
        return Outcome(subject, "nothing measured", "there is no reference. Make it: check --bands --renew")
    for field, wanted in reference.identity.items():
        if identity.get(field) != wanted:
            text = f"the reference is of other runs: {field} (reference {wanted}, here {identity.get(field)})"
            return Outcome(subject, "nothing measured", f"{text}. Make it anew: check --bands --renew")
    base = reference.losses
    mean, new = float(np.mean(base)), float(np.mean(candidate))
    t, worse = t_statistic(base, candidate)
    _, beyond = t_statistic(base, candidate, shift=margin * mean)
    numbers = (
        f"validation loss {new:.5f} over {len(candidate)} runs, reference {mean:.5f} ± {np.std(base, ddof=1):.5f} over "
        f"{len(base)} ({100 * (new / mean - 1):+.2f} %, t = {t:.2f}, p = {worse:.2g})"
    )
    if worse < false_alarms:
        return Outcome(subject, "regression", f"{numbers}: worse")
    if 1 - beyond < false_alarms:
        return Outcome(subject, "pass", f"{numbers}: not worse by the margin of {100 * margin:g} %")
    return Outcome(subject, "inconclusive", f"{numbers}: neither worse nor shown to be within {100 * margin:g} %")
