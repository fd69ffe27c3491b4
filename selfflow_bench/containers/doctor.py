"""Looks a machine over before runs are made on it: engine, GPU, disk, images, data, weights, clock. Changes nothing.

Each finding says what was seen and, where something is amiss, what to do. An engine that is missing is a warning for
small tiers, which can run on the host, and a problem for the reference tier; so is a GPU that cannot be used.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import docker
from docker.errors import DockerException
from docker.types import DeviceRequest

import selfflow_bench
from selfflow_bench.containers import images, life
from selfflow_bench.containers.build import verify
from selfflow_bench.containers.choice import NVIDIA_RUNTIME
from selfflow_bench.containers.engine import EngineGoneError, connected
from selfflow_bench.containers.executor import caller
from selfflow_bench.containers.gpus import Gpu, driver_complaint, host_gpus
from selfflow_bench.containers.settings import confinement
from selfflow_bench.errors import SuiteError

Level = Literal["ok", "warning", "problem"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "problem")
EXIT_CODES: dict[Level, int] = {"ok": 0, "warning": 1, "problem": 3}
OLDEST_API = (1, 40)
"""Engines before this know no device requests."""
OLDEST_DRIVER = 580
"""The first NVIDIA driver that runs CUDA 13, which PyTorch's wheels bring."""
WORK_GB, ENGINE_GB = 5.0, 30.0
CLOCK_SECONDS = 5.0
_CONTAINER_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was seen and, unless all is well, the remedy."""

    name: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Checkup:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Level:
        """The level of the worst finding."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")

    @property
    def exit_code(self) -> int:
        """0 all well, 1 warnings, 3 problems."""
        return EXIT_CODES[self.worst]

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {"worst": self.worst, "findings": [asdict(finding) for finding in self.findings]}


def examine(work: Path, *, reference: bool, gpus: Callable[[], list[Gpu]] = host_gpus) -> Checkup:
    """Look at everything.

    Args:
        work: the work folder.
        reference: whether the machine is to run the reference tier.
        gpus: asks the driver.
    """
    needed: Level = "problem" if reference else "warning"
    seen = gpus()
    found = [*_driver(seen, needed)]
    try:
        with connected() as client:
            found += [*_engine(client, needed, seen), *_images(client, work, needed, seen)]
            engine_time = str(client.info().get("SystemTime", ""))
    except EngineGoneError as error:
        found.append(Finding("engine", needed, str(error).partition(". ")[0], str(error).partition(". ")[2]))
        engine_time = ""
    found += [_clock(engine_time), _space("disk for runs", work, WORK_GB), _data(), _weights()]
    return Checkup(tuple(found))


def _driver(seen: list[Gpu], needed: Level) -> Iterator[Finding]:
    complaint = None if seen else driver_complaint()
    if complaint is not None:
        remedy = "Make nvidia-smi list the GPUs: after an upgrade of the driver, reboot; or load it: modprobe nvidia"
        yield Finding("gpu", needed, f"nvidia-smi lists none: {complaint}", remedy)
    elif not seen and needed == "problem":
        yield Finding("gpu", needed, "the NVIDIA driver sees none", f"Install driver {OLDEST_DRIVER} or newer.")
    elif not seen:
        yield Finding("gpu", "ok", "none, and small tiers need none")
    for gpu in seen:
        text = f"{gpu.name}, {gpu.memory_mb / 1024:.0f} GB, driver {gpu.driver}, {gpu.uuid}"
        major = gpu.driver.partition(".")[0]
        if major.isdecimal() and int(major) < OLDEST_DRIVER:
            yield Finding("gpu", needed, f"{text}: too old for CUDA 13", f"Install driver {OLDEST_DRIVER} or newer.")
        else:
            yield Finding("gpu", "ok", text)


def _engine(client: docker.DockerClient, needed: Level, seen: list[Gpu]) -> Iterator[Finding]:
    version, info = client.version(), client.info()
    text = f"{version['Version']}, API {version['ApiVersion']}, storage {info['Driver']}"
    if tuple(int(part) for part in version["ApiVersion"].split(".")) < OLDEST_API:
        yield Finding("engine", needed, f"{text}: too old", "Install Docker 19.03 or newer.")
    else:
        yield Finding("engine", "ok", text)
    for limit in ("MemoryLimit", "SwapLimit", "PidsLimit", "CPUCfsQuota"):
        if not info.get(limit, True):
            remedy = "Enable the kernel's control group for it (boot with cgroup_enable=memory swapaccount=1)."
            yield Finding("limits", "warning", f"the engine cannot enforce {limit}", remedy)
    if NVIDIA_RUNTIME in (info.get("Runtimes") or {}):
        yield Finding("nvidia runtime", "ok", "the engine has it")
    elif seen or needed == "problem":
        remedy = "Install nvidia-container-toolkit, run nvidia-ctk runtime configure --runtime=docker, restart docker."
        yield Finding("nvidia runtime", needed, "the engine does not have it", remedy)
    root = Path(info["DockerRootDir"])
    if root.is_dir():
        yield _space("disk for images", root, ENGINE_GB)


def _images(client: docker.DockerClient, work: Path, needed: Level, seen: list[Gpu]) -> Iterator[Finding]:
    try:
        root, pins = images.project(), images.read_pins(work)
    except SuiteError as error:
        yield Finding("images", needed, str(error), "Work in a checkout, and delete a damaged file.")
        return
    for target in images.TARGETS:
        if target not in pins:
            if target == "cpu" or seen or needed == "problem":
                remedy = f"Build it: selfflow-bench images build {target}"
                yield Finding(f"image {target}", needed, "none is pinned in this work folder", remedy)
            continue
        try:
            image = images.pinned(root, work, target)
            verify(client, image)
        except SuiteError as error:
            yield Finding(f"image {target}", "problem", *_split(error))
            continue
        yield Finding(f"image {target}", "ok", f"{image.reference} is {image.id[:19]}, made of {image.made_of[:12]}")
        yield _throwaway(client, image, [gpu.uuid for gpu in seen] if target == "cuda" else [])


def _throwaway(client: docker.DockerClient, image: images.Image, gpus: list[str]) -> Finding:
    """Start a container as runs have it, and see that it does what it is told and sees its GPUs."""
    name = f"container {image.target}"
    command = ["nvidia-smi", "--list-gpus"] if gpus else ["python3", "--version"]
    requests = [DeviceRequest(device_ids=gpus, capabilities=[["gpu"]])] if gpus else []
    settings = {"image": image.id, "entrypoint": [], "command": command, "device_requests": requests}
    remedy = "See what the engine says: docker info; journalctl -u docker"
    try:
        container = life.start(client, {**settings, **confinement(caller())})
        deadline = time.monotonic() + _CONTAINER_SECONDS
        try:
            while container.status not in life.ENDED and time.monotonic() < deadline:
                time.sleep(0.2)
                container.reload()
            said = container.logs().decode(errors="replace").strip()
            code = container.attrs["State"]["ExitCode"]
            if container.status != "exited" or code != 0:
                return Finding(name, "problem", f"a throw-away container ended with {code}: {said[-200:]}", remedy)
        finally:
            life.stop(container, 1)
    except (SuiteError, DockerException) as error:
        return Finding(name, "problem", str(error), remedy)
    unseen = [uuid for uuid in gpus if uuid not in said]
    if unseen:
        return Finding(name, "problem", f"it does not see {', '.join(unseen)}", "Restart docker after the toolkit.")
    return Finding(name, "ok", said.splitlines()[0] if said else "it starts and ends")


def _clock(told: str) -> Finding:
    """This machine's clock, against the age of this code and against what an engine has told, if any."""
    now = datetime.now(UTC)
    made = datetime.fromtimestamp(Path(selfflow_bench.__file__).stat().st_mtime, UTC)
    remedy = "Set it, and keep it set: timedatectl set-ntp true"
    engine = datetime.fromisoformat(told[:19] + "+00:00") if told.endswith("Z") else None
    if now < made:
        return Finding("clock", "problem", f"it shows {now:%F %T} UTC, before this code was written", remedy)
    if engine is not None and abs((engine - now).total_seconds()) > CLOCK_SECONDS:
        return Finding("clock", "problem", f"here it is {now:%F %T} UTC, at the engine {engine:%F %T}", remedy)
    return Finding("clock", "ok", f"{now:%F %T} UTC")


def _space(name: str, folder: Path, wanted: float) -> Finding:
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    text = f"{free:.1f} GB free"
    if free < wanted / 5:
        return Finding(name, "problem", text, f"Make room: {wanted:g} GB are wanted.")
    if free < wanted:
        return Finding(name, "warning", text, f"Make room: {wanted:g} GB are wanted.")
    return Finding(name, "ok", text)


def _data() -> Finding:
    from selfflow_bench.data import sources

    names = sources.available()
    try:
        for name in names:
            for split in ("train", "validation"):
                sources.digest(name, split)
    except SuiteError as error:
        return Finding("data", "problem", *_split(error))
    return Finding("data", "ok", f"{len(names)} sets are what their checksums say")


def _weights() -> Finding:
    from selfflow_bench.data import captions
    from selfflow_bench.evaluation import features

    try:
        captions.checked_weights()
        features.check_weights()
    except (SuiteError, OSError) as error:
        return Finding("weights", "problem", *_split(error))
    return Finding("weights", "ok", "of the caption encoder and the feature networks, by sha256")


def _split(error: Exception) -> tuple[str, str]:
    """An error's problem and its remedy, which is its last sentence."""
    problem, _, remedy = str(error).rstrip(".").rpartition(". ")
    return (problem, remedy) if problem else (remedy, "See the message.")
