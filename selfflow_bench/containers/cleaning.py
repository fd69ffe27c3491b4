"""Removes containers of ours, and of this work folder, and no others: told by their labels, never by a name."""

from __future__ import annotations

from pathlib import Path

import docker

from selfflow_bench.containers import life
from selfflow_bench.containers.settings import RUN_LABEL, work_labels
from selfflow_bench.errors import FieldError
from selfflow_bench.execution import STOP_SECONDS


def names(client: docker.DockerClient, runs: Path) -> list[str]:
    """Runs of a work folder (``runs`` is its folder of runs) that have a container."""
    return sorted({found.labels[RUN_LABEL] for found in life.find(client, work_labels(runs))})


def clean(client: docker.DockerClient, runs: Path, run: str | None = None, grace: float = STOP_SECONDS) -> list[str]:
    """Stop and remove the containers of one run, or of all; the runs they were of. Checkpoints stay.

    Args:
        client: the engine.
        runs: the work folder's folder of runs.
        run: a run's folder name, or its beginning where that is unambiguous; None for all.
        grace: seconds for a worker to write its checkpoint.

    Raises:
        FieldError: no container of that run, or several.
    """
    there = names(client, runs)
    chosen = there
    if run is not None:
        chosen = [name for name in there if name.startswith(run)]
        if len(chosen) != 1:
            problem = "more than one run begins so" if chosen else "no container of that run"
            raise FieldError("command line", "--run", run, problem, f"There are: {', '.join(there) or 'none'}.")
    for found in life.find(client, work_labels(runs)):
        if found.labels[RUN_LABEL] in chosen:
            life.stop(found, grace)
    return chosen
