"""A finished run's samples scored again, against other statistics than its record's: from what was kept of them.

Nothing is sampled: a run's folder keeps what each network saw in its samples. No record is changed, since a record says
what its protocol measures. Knows nothing of records.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation.distances import distances
from selfflow_bench.evaluation.statistics import FeatureStatistics, load_statistics
from selfflow_bench.plan import RunSpec
from selfflow_bench.stages.evaluation import kept_statistics


def rescore(spec: RunSpec, folder: Path, against: Path) -> dict[str, dict[str, Any]]:
    """Distances of the run's samples, by every network and way of sampling that fits, from the statistics in a file.

    The file is another run's (``statistics-<network>.npz``) or a published one with ``mu`` and ``sigma``. Named as in a
    record; ``reference_sha256`` is the file's.

    Raises DamagedFileError for a file without statistics, FieldError where the run kept none that fit them.
    """
    wanted, settings = load_statistics(against), spec.conditions.evaluation
    with against.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    made: dict[str, dict[str, Any]] = {}
    for suffix, found in kept_statistics(folder, settings.all_networks):
        if not _fit(found, wanted):
            continue
        scores = distances(
            found,
            wanted,
            None,
            subsets=settings.kid_subsets,
            subset_size=settings.kid_subset_size,
            reference_sha256=sha256,
        )
        made |= {f"{name}{suffix}": value for name, value in scores.items()}
    if not made:
        kept = ", ".join(sorted({found.network for _, found in kept_statistics(folder, settings.all_networks)}))
        said = wanted.network or f"of {len(wanted.moments.mean)} features"
        remedy = f"The run keeps those of: {kept or 'no network, since it was made before they were kept'}."
        raise FieldError("command line", "--against", str(against), f"statistics {said} fit none of the run's", remedy)
    return made


def _fit(found: FeatureStatistics, wanted: FeatureStatistics) -> bool:
    if wanted.network not in ("", found.network):
        return False
    return len(wanted.moments.mean) == len(found.moments.mean)
