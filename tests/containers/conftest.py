"""A container engine of the tests' own, and the image that its runs are made in.

The engine is started here, with folders and a socket of its own, so that stopping it disturbs nobody. The image's base
is a Debian made by debootstrap (no registry is asked); its packages are those that these tests run with, mounted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from selfflow_bench.atomic_files import folder_lock
from selfflow_bench.containers import build, images
from selfflow_bench.containers.engine import EngineGoneError, connect
from selfflow_bench.containers.executor import DockerExecutor
from selfflow_bench.places import Places

SUITE = "bookworm"
SUITE_PYTHON = (3, 11)
TOOLS = ("dockerd", "debootstrap")
START_SECONDS, STOP_SECONDS = 90, 60


def cannot_have_an_engine() -> str | None:
    """Why these tests cannot run here, or None."""
    if os.geteuid() != 0:
        return "an engine of the tests' own needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (on Debian: apt-get install docker.io iptables debootstrap)"
    if sys.version_info[:2] != SUITE_PYTHON:
        return (
            f"the packages mounted into {SUITE}'s Python 3.11 are of Python {sys.version_info[0]}.{sys.version_info[1]}"
        )
    return None


class PrivateEngine:
    """A dockerd with its own data, socket and process ids, that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"unix://{folder}/socket"

    def start(self) -> None:
        places = [f"--{name}={self._folder / name}" for name in ("data-root", "exec-root", "pidfile")]
        network = ["--bridge=none", "--iptables=false", "--ip-forward=false"]
        # Where the machine has a containerd of its own, dockerd uses that one: apart from the machine's containers.
        apart = [f"--containerd-{name}=tests-{os.getpid()}-{name}" for name in ("namespace", "plugins-namespace")]
        with (self._folder / "log").open("ab") as log:
            line = ["dockerd", f"--host={self.address}", *places, *network, *apart]
            self._process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)
        try:
            connect(START_SECONDS).close()
        except EngineGoneError:
            pytest.fail("dockerd does not start:\n" + (self._folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        """As a service manager does it: containers are asked to stop first."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
            self._process = None

    def remove(self) -> None:
        """Stop it and delete all that it had, with the mounts that it leaves behind."""
        self.stop()
        places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed([place for place in places if place.startswith(f"{self._folder}/")]):
            subprocess.run(["umount", "--lazy", place], check=True, timeout=30)
        shutil.rmtree(self._folder)


@pytest.fixture(scope="session")
def engine() -> Iterator[PrivateEngine]:
    reason = cannot_have_an_engine()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(f"these tests must not be skipped in CI: {reason}")
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="engine-"))  # a socket's path must be short
    made = PrivateEngine(folder)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = made.address
    try:
        made.start()
        yield made
    finally:
        made.remove()
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="session")
def system_image(engine: PrivateEngine, pytestconfig: pytest.Config) -> images.Pin:
    """The Dockerfile's system stage on a Debian base, built once for all test processes and kept for the next time."""
    root = images.project()
    key = hashlib.sha256(b"".join((root / name).read_bytes() for name in images.INGREDIENTS)).hexdigest()[:12]
    folder = pytestconfig.rootpath / ".pytest_cache" / "engine"
    folder.mkdir(parents=True, exist_ok=True)
    packed, pin = folder / f"{key}.tar", folder / f"{key}.json"
    with folder_lock(folder, deadline_s=900), patient_client() as client:
        if pin.exists():
            with packed.open("rb") as file:
                client.images.load(file)
        else:
            for old in folder.iterdir():
                old.unlink()
            base = client.images.get(import_debian(folder))
            made = build.build(client, root, "cpu", base=base.tags[0], packages=Path("/"), network="host")
            with packed.open("wb") as file:
                for chunk in client.images.get(made.tag).save(named=made.tag):
                    file.write(chunk)
            pin.write_text(made.model_dump_json())
    found = images.Pin.model_validate_json(pin.read_text())
    return found.model_copy(update={"packages": Path(sysconfig.get_path("purelib"))})


@contextmanager
def patient_client() -> Iterator[docker.DockerClient]:
    """For moving whole images, which on a busy disk takes longer than any call of a run's."""
    client = docker.from_env(timeout=600)
    try:
        yield client
    finally:
        client.close()


def import_debian(folder: Path) -> str:
    """Make a Debian by debootstrap and import it; its tag."""
    tag = f"debootstrap:{SUITE}"
    with tempfile.TemporaryDirectory(dir=folder, prefix="root-") as root:
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", SUITE, root], capture_output=True, text=True, timeout=600, check=False
        )
        assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
            assert tar.stdout is not None
            with patient_client() as client:
                repository, _, version = tag.partition(":")
                answer = client.api.import_image(tar.stdout, repository=repository, tag=version)
        assert "error" not in json.loads(answer.splitlines()[-1]), answer
    return tag


@dataclass(frozen=True)
class Site:
    """A work folder with a pinned image."""

    places: Places
    pin: images.Pin

    @property
    def image(self) -> images.Image:
        return images.pinned(images.project(), self.places.work, "cpu")

    def executor(self, silence_seconds: float = 300.0, stop_seconds: float = 60.0) -> DockerExecutor:
        return DockerExecutor(self.image, silence_seconds=silence_seconds, stop_seconds=stop_seconds)

    def command(self, *arguments: str) -> list[str]:
        options = ["--results", str(self.places.results), "--work", str(self.places.work)]
        return [sys.executable, "-m", "selfflow_bench", *options, *arguments]


def make_site(folder: Path, project: Places, pin: images.Pin, cache: Path | None = None) -> Site:
    """A work folder of its own; its cache begins as a copy of another's."""
    places = Places(project.recipes, folder / "results", folder / "work")
    places.work.mkdir(parents=True)
    if cache is not None:
        shutil.copytree(cache, places.cache)
    images.pin(places.work, "cpu", pin)
    return Site(places, pin)


def wait_for(condition: object, what: str, seconds: float = 300) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)
