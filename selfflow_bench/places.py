"""Where things are: recipes and results of the project, and the work folder of this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

KEPT_STATISTICS = "statistics-"
"""How the files in a run's folder begin that keep what feature networks saw in its samples."""


@dataclass(frozen=True)
class Places:
    """Folders of one invocation.

    Args:
        recipes: recipes, protocols and their lock; read only.
        results: records and the leaderboard; only `selfflow_bench.results` writes here.
        work: caches and runs of this machine; safe to delete when nothing runs.
    """

    recipes: Path
    results: Path
    work: Path

    @property
    def cache(self) -> Path:
        """Prepared data, converted networks, reference features."""
        return self.work / "cache"

    @property
    def runs(self) -> Path:
        """One folder per run: checkpoint, events, log, samples."""
        return self.work / "runs"


def default_places() -> Places:
    """The project this package lies in, or else the current folder; ``SELFFLOW_WORK`` moves the work folder."""
    source = Path(__file__).resolve().parents[1]
    project = source if (source / "recipes").is_dir() else Path.cwd()
    work = os.environ.get("SELFFLOW_WORK")
    return Places(project / "recipes", project / "results", Path(work) if work else project / ".selfflow")
