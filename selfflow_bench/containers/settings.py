"""A run's container as the engine is asked for it: command, limits, mounts, labels. A pure function of its arguments.

Everything is read-only but ``/out`` and a bounded ``/tmp``; there is no network, no privilege, no way to more. Limits
are the protocol's absolute numbers, never what is free at the moment. Knows nothing of engines and of what runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount

from selfflow_bench.execution import LOG, SPEC, worker_environment
from selfflow_bench.plan import RunSpec

OUT, SPECIFICATION, CODE, CACHE, PACKAGES = "/out", "/in/spec.json", "/code", "/cache", "/packages/site-packages"
HUB = "/hub"
"""Paths within a container. Some packages tell installed code from a user's by "site-packages" in its path."""
CACHE_VIEW = "cache"
"""The folder within a run's folder that stands for the shared cache; see `cache_view`."""
RUN_LABEL, WORK_LABEL, FOLDER_LABEL = "selfflow-bench.run", "selfflow-bench.work", "selfflow-bench.folder"
KERNELS = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)
"""Environment variables by which a user chooses other kernels than the processor's own: other last bits."""
PIDS, SHARED_MEMORY_MB, TEMPORARY_MB = 1024, 1024, 1024
_MEGABYTE = 2**20


@dataclass(frozen=True)
class Surroundings:
    """What the host brings to a run's container.

    Args:
        image: the image's id, ``sha256:...``.
        folder: the run's folder, the only thing it may write.
        cache: the shared cache, read-only.
        code: the folder that holds this package, read-only.
        user: uid and gid that own the results.
        packages: a folder of installed packages to mount where the image has none of its own.
        hub: the hub's cache, read-only, for a run that reads published weights.
        gpus: UUIDs; indexes move.
        kernels: the host's environment variables of `KERNELS`, as far as they are set.
    """

    image: str
    folder: Path
    cache: Path
    code: Path
    user: tuple[int, int]
    packages: Path | None = None
    hub: Path | None = None
    gpus: Sequence[str] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)


def container_settings(spec: RunSpec, around: Surroundings) -> dict[str, Any]:
    """Arguments of the Docker SDK's ``containers.create`` for a run's worker."""
    worker = f"exec python3 -m selfflow_bench.worker {SPECIFICATION} {OUT} {OUT}/{CACHE_VIEW} >>{OUT}/{LOG} 2>&1"
    threads = spec.conditions.training.threads
    return {
        "image": around.image,
        "entrypoint": [],
        "command": ["sh", "-c", worker],
        "labels": labels(spec, around.folder),
        "environment": {**worker_environment(spec), **_environment(around)},
        "mem_limit": spec.conditions.budget.memory_mb * _MEGABYTE,
        "memswap_limit": spec.conditions.budget.memory_mb * _MEGABYTE,
        "nano_cpus": threads * spec.conditions.budget.gpus * 10**9,
        "device_requests": [DeviceRequest(device_ids=list(around.gpus), capabilities=[["gpu"]])] if around.gpus else [],
        "mounts": _mounts(around),
        **confinement(around.user),
    }


def confinement(user: tuple[int, int]) -> dict[str, Any]:
    """What holds for every container of ours, whatever it does."""
    return {
        "network_mode": "none",
        "user": f"{user[0]}:{user[1]}",
        "read_only": True,
        "tmpfs": {"/tmp": f"rw,nosuid,nodev,size={TEMPORARY_MB}m"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "privileged": False,
        "pids_limit": PIDS,
        "shm_size": SHARED_MEMORY_MB * _MEGABYTE,
        "hostname": "run",
        "working_dir": "/tmp",
        "init": True,
        "stop_signal": "SIGTERM",
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "2"}),
    }


def labels(spec: RunSpec, folder: Path) -> dict[str, str]:
    """By which a run's container is found again; names are never read."""
    return {
        RUN_LABEL: spec.folder_name,
        "selfflow-bench.recipe": str(spec.recipe),
        "selfflow-bench.stage": "run",
        **place_labels(folder),
    }


def place_labels(folder: Path) -> dict[str, str]:
    """Labels of one folder's container alone: another work folder may have the same run at the same time."""
    return {FOLDER_LABEL: _fingerprint(folder), **work_labels(folder.parent)}


def work_labels(runs: Path) -> dict[str, str]:
    """Labels of every container of a work folder. ``runs`` is its folder of runs."""
    return {WORK_LABEL: _fingerprint(runs)}


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def _environment(around: Surroundings) -> Mapping[str, str]:
    """Nothing of the host's but the choice of kernels. Whatever wants to write a cache writes it below ``/out``."""
    caches = f"{OUT}/{CACHE_VIEW}/.compiled"
    return {
        **around.kernels,
        "PYTHONPATH": CODE if around.packages is None else f"{CODE}:{PACKAGES}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",
        "USER": "bench",
        **({} if around.hub is None else {"HF_HUB_CACHE": HUB}),
        "NCCL_SOCKET_IFNAME": "lo",
        "GLOO_SOCKET_IFNAME": "lo",
        "TRITON_CACHE_DIR": f"{caches}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
        "MPLCONFIGDIR": f"{caches}/matplotlib",
        "XDG_CACHE_HOME": f"{caches}/other",
    }


def _mounts(around: Surroundings) -> list[Any]:
    def bind(source: Path, target: str, *, read_only: bool = True) -> Any:
        return Mount(target, str(source.resolve()), type="bind", read_only=read_only)

    mounts = [
        bind(around.folder, OUT, read_only=False),
        bind(around.folder / SPEC, SPECIFICATION),
        bind(around.code, f"{CODE}/{around.code.name}"),
        bind(around.cache, CACHE),
    ]
    if around.packages is not None:
        mounts.append(bind(around.packages, PACKAGES))
    if around.hub is not None:
        mounts.append(bind(around.hub, HUB))
    return mounts
