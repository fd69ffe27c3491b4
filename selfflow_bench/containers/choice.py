"""Where a tier's runs are done. The rule is a pure function; the facts about this machine are asked for only if needed.

smoke and micro run on the host unless a container is asked for. The reference tier is comparable only where everything
is pinned: it needs a container and a GPU, and is refused otherwise, with all that is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selfflow_bench.containers.engine import EngineGoneError, connected
from selfflow_bench.containers.executor import DockerExecutor
from selfflow_bench.containers.gpus import host_gpus
from selfflow_bench.containers.images import Target, pinned, project
from selfflow_bench.errors import FieldError, SuiteError
from selfflow_bench.execution import Executor, HostExecutor

Wanted = Literal["auto", "host", "docker"]
WANTED: tuple[Wanted, ...] = ("auto", "host", "docker")
NVIDIA_RUNTIME = "nvidia"


@dataclass(frozen=True)
class MachineFacts:
    """What the rule asks about a machine. `engine` is None where one answers, else why not."""

    engine: str | None
    runtimes: Sequence[str]
    gpus: Sequence[str]


def place(tier: str, wanted: Wanted, facts: MachineFacts | None = None) -> Literal["host", "cpu", "cuda"]:
    """The host, or a container of the image "cpu" or "cuda".

    Args:
        tier: of the run.
        wanted: what the user said.
        facts: about this machine; needed for the reference tier.

    Raises:
        SuiteError: the reference tier, and something that it needs is missing; the message lists all of it.
    """
    if tier != "reference":
        return "cpu" if wanted == "docker" else "host"
    assert facts is not None
    found = missing(wanted, facts)
    if found:
        raise SuiteError(f"the reference tier needs {'; '.join(found)}. See: selfflow-bench doctor")
    return "cuda"


def missing(wanted: Wanted, facts: MachineFacts) -> list[str]:
    """What a machine lacks for the reference tier, as it is to be run."""
    found = []
    if wanted == "host":
        found.append("a container (leave --executor out, or give docker)")
    if facts.engine is not None:
        found.append(f"a container engine ({facts.engine})")
    elif NVIDIA_RUNTIME not in facts.runtimes:
        found.append("the engine's NVIDIA runtime (install nvidia-container-toolkit)")
    if not facts.gpus:
        found.append("an NVIDIA GPU that the driver sees (nvidia-smi)")
    return found


def executor_for(tier: str, wanted: Wanted, work: Path, gpu: str | None = None, count: int = 1) -> Executor:
    """The executor for a tier's runs on this machine, ``count`` GPUs each. Raises SuiteError with what is missing."""
    chosen = place(tier, wanted, machine_facts() if tier == "reference" else None)
    if chosen == "host":
        if gpu is not None:
            raise FieldError("command line", "--gpu", gpu, "is for containers", "Give --executor docker, or leave it.")
        return HostExecutor()
    return docker_executor(chosen, work, gpu, count)


def docker_executor(target: Target, work: Path, gpu: str | None = None, count: int = 1) -> DockerExecutor:
    """Containers of this machine's build of a target; with "cuda", so many GPUs: the named one first."""
    if target == "cpu":
        if gpu is not None:
            raise FieldError("command line", "--gpu", gpu, "this tier runs on the CPU", "Leave it out.")
        return DockerExecutor(pinned(project(), work, target))
    gpus = chosen_gpus([found.uuid for found in host_gpus()], gpu, count)
    return DockerExecutor(pinned(project(), work, target), gpus=gpus)


def chosen_gpus(uuids: Sequence[str], first: str | None, count: int) -> tuple[str, ...]:
    """So many of a machine's GPUs, the named one first. Raises FieldError where they are not there."""
    if first is not None and first not in uuids:
        raise FieldError(
            "command line", "--gpu", first, "no GPU of that UUID", f"There are: {', '.join(uuids) or 'none'}."
        )
    ordered = sorted(uuids, key=lambda uuid: uuid != first)
    if len(ordered) < count:
        remedy = "Use a machine that has them, or override the budget: the run is recorded as open."
        raise FieldError("protocol", "budget.gpus", count, f"this machine has {len(ordered)}", remedy)
    return tuple(ordered[:count])


def machine_facts() -> MachineFacts:
    """Ask the engine and the driver of this machine."""
    uuids = [found.uuid for found in host_gpus()]
    try:
        with connected() as client:
            return MachineFacts(None, sorted(client.info().get("Runtimes") or {}), uuids)
    except EngineGoneError as error:
        return MachineFacts(str(error), (), uuids)
