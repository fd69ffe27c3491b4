"""A place to do a run: a container of a pinned image. One more way to start the same worker.

If the process that watches dies, the container goes on; whoever asks for the run next finds it by its labels and goes
on watching. However the watch ends, the container is removed. Knows nothing of records: it tells what the engine said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import selfflow_bench
from selfflow_bench.containers import life
from selfflow_bench.containers.cache_view import open_view, remove_view, take_over
from selfflow_bench.containers.engine import RETURN_SECONDS, connected
from selfflow_bench.containers.images import Image
from selfflow_bench.containers.settings import (
    CACHE,
    CACHE_VIEW,
    KERNELS,
    Surroundings,
    container_settings,
    place_labels,
)
from selfflow_bench.errors import EXIT_INTERRUPTED, SuiteError
from selfflow_bench.execution import (
    EVENTS,
    RESULT,
    SILENCE_SECONDS,
    STOP_SECONDS,
    Ending,
    Vigil,
    Watch,
    termination_as_interrupt,
    write_spec,
)
from selfflow_bench.failures import Trouble, trouble_of_exit
from selfflow_bench.plan import RunSpec

_CODE = Path(selfflow_bench.__file__).resolve().parent


def caller() -> tuple[int, int]:
    """uid and gid of whoever runs this, who is to own the results."""
    return os.getuid(), os.getgid()


@dataclass(frozen=True)
class DockerExecutor:
    """Does runs in containers of one image.

    Args:
        image: pinned; it is resolved and checked before each start.
        gpus: UUIDs of the GPUs that a container gets.
        silence_seconds: without an event for this long, a worker has hung.
        stop_seconds: how long a worker may take to write its checkpoint.
    """

    image: Image
    gpus: tuple[str, ...] = ()
    silence_seconds: float = SILENCE_SECONDS
    stop_seconds: float = STOP_SECONDS

    def has_unfinished(self, folder: Path) -> bool:
        """Whether a container of this folder's run goes on, or has left a result."""
        with connected() as client:
            return any(_is_unfinished(found, folder) for found in life.find(client, place_labels(folder)))

    def sitting(self, spec: RunSpec, folder: Path, cache: Path, watch: Watch) -> Ending:
        """See `Executor`. Waits for an engine that is restarting.

        Raises SuiteError where the engine, the image or the NVIDIA runtime is missing.
        """
        vigil = Vigil(folder / EVENTS, watch, self.silence_seconds)

        def look() -> Trouble | None:
            vigil.look()
            return vigil.trouble

        with connected(RETURN_SECONDS) as client, termination_as_interrupt():
            container = self._found_or_started(client, spec, folder, cache)
            try:
                end = life.watch(container, look)
            finally:
                life.stop(container, self.stop_seconds)
                vigil.look()
                take_over(folder / CACHE_VIEW, cache)
                remove_view(folder / CACHE_VIEW)
        return self._ending(end)

    def _found_or_started(self, client: Any, spec: RunSpec, folder: Path, cache: Path) -> Any:
        going = None
        for found in life.find(client, place_labels(folder)):
            if going is None and _is_unfinished(found, folder):
                going = found
            else:
                found.remove(force=True)
        if going is not None:
            if going.attrs["Image"] != self.image.id:
                raise SuiteError(
                    f"{spec.name}: a container of {going.attrs['Image']} is doing this run, and {self.image.id} is "
                    f"pinned. Stop it: selfflow-bench clean --run {spec.folder_name}"
                )
            return going
        wanted = spec.conditions.image
        if wanted is not None and self.image.base != wanted:
            raise SuiteError(
                f"protocol {spec.protocol}: image = {wanted!r}, but {self.image.reference} is built on "
                f"{self.image.base}. Build it anew: selfflow-bench images build {self.image.target}"
            )
        self.image.check(client)
        write_spec(spec, folder)
        cache.mkdir(parents=True, exist_ok=True)
        open_view(cache, folder / CACHE_VIEW, CACHE)
        around = Surroundings(
            image=self.image.id,
            folder=folder,
            cache=cache,
            code=_CODE,
            user=caller(),
            packages=self.image.packages,
            hub=_hub_of(spec),
            gpus=self.gpus,
            kernels={name: os.environ[name] for name in KERNELS if name in os.environ},
        )
        return life.start(client, container_settings(spec, around))

    def _ending(self, end: life.End) -> Ending:
        facts = {**self.image.facts(), **inspected(end.attributes)}
        if end.was_removed:
            return Ending(EXIT_INTERRUPTED, None, facts)
        oom_killed = bool(end.attributes["State"]["OOMKilled"])
        if end.trouble is not None:
            return Ending(end.exit_code, end.trouble, facts)
        code = end.attributes["State"]["ExitCode"]
        return Ending(code, trouble_of_exit(code, oom_killed=oom_killed), facts)


def _hub_of(spec: RunSpec) -> Path | None:
    """The hub's cache, where the run is of published sizes: weights are read from it, and from nowhere else."""
    if spec.conditions.data.hub is None:
        return None
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) if Path(HF_HUB_CACHE).is_dir() else None


def _is_unfinished(container: Any, folder: Path) -> bool:
    """One that ended without a result tells nothing that a new one, from the checkpoint, would not."""
    ended = container.status in life.ENDED
    return bool(container.status != "created" and (not ended or (folder / RESULT).exists()))


def inspected(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine says a container was: image, exit, resolved limits. No paths and no names."""
    state, host = attributes["State"], attributes["HostConfig"]
    requests = host.get("DeviceRequests") or []
    environment = dict(text.split("=", 1) for text in attributes["Config"]["Env"])
    return {
        "engine": "docker",
        "image_id": attributes["Image"],
        "exit_code": state["ExitCode"],
        "oom_killed": state["OOMKilled"],
        "kernels": {name: environment[name] for name in KERNELS if name in environment},
        "limits": {
            "memory_mb": host["Memory"] // 2**20,
            "memory_and_swap_mb": host["MemorySwap"] // 2**20,
            "cpus": host["NanoCpus"] / 10**9,
            "processes": host["PidsLimit"],
            "shared_memory_mb": host["ShmSize"] // 2**20,
            "network": host["NetworkMode"],
            "read_only": host["ReadonlyRootfs"],
            "capabilities_dropped": host["CapDrop"],
            "security": host["SecurityOpt"],
            "gpus": sum(len(request.get("DeviceIDs") or []) for request in requests),
        },
    }
