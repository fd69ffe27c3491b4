"""Which image a run gets: what it is made of (a lock file of the project) and which build of it is pinned here.

``docker/images.lock.json`` names, for every target, the base by digest and the digest of all that it is built from. A
build on this machine is pinned by its id in the work folder: two builds of the same ingredients never have the same id,
so ids mean nothing elsewhere. Images are built by an explicit command only, never within a run, and never pulled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import docker
from docker.errors import ImageNotFound
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import selfflow_bench
from selfflow_bench.atomic_files import replace_text
from selfflow_bench.canonical import digest
from selfflow_bench.containers.life import ImageMissingError
from selfflow_bench.errors import DamagedFileError, SuiteError
from selfflow_bench.identity import Sha256

Target = Literal["cpu", "cuda"]
TARGETS: tuple[Target, ...] = ("cpu", "cuda")
LOCK_FILE, PINS = "docker/images.lock.json", "images.json"
INGREDIENTS = ("docker/Dockerfile", "requirements.lock")
"""The files that an image is built from, beside its base."""
MADE_OF_LABEL, BASE_LABEL = "selfflow-bench.made-of", "org.opencontainers.image.base.name"
REPOSITORY = "selfflow-bench"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Locked(_Part):
    """A target in the lock file: its base by digest, and the digest of base and files."""

    base: str = Field(pattern=r"@sha256:[0-9a-f]{64}$")
    made_of: Sha256


class Lock(_Part):
    """``docker/images.lock.json``."""

    schema_version: Literal[1] = 1
    images: dict[Target, Locked]


class Pin(_Part):
    """A build on this machine. `packages` is a folder of packages mounted into an image that has none."""

    id: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    tag: str
    base: str
    made_of: Sha256
    packages: Path | None = None


@dataclass(frozen=True)
class Image:
    """A pinned image.

    Args:
        target: "cpu" or "cuda".
        id: the content's digest, by which containers are made.
        reference: what the engine is asked for; it must lead to `id`.
        base: what it was built on.
        made_of: digest of what it was built from.
        packages: a folder of packages to mount, where the image has none.
    """

    target: Target
    id: str
    reference: str
    base: str
    made_of: str
    packages: Path | None = None

    def check(self, client: docker.DockerClient) -> None:
        """Refuse where the engine has another image under this reference, or none, or one of other ingredients."""
        build = f"Build it: selfflow-bench images build {self.target}"
        try:
            found = client.images.get(self.reference)
        except ImageNotFound as error:
            raise ImageMissingError(f"image {self.reference}: the engine does not have it. {build}") from error
        if found.id != self.id:
            raise SuiteError(
                f"image {self.reference}: the engine has {found.id}, but {self.id} is pinned. Somebody has changed it. "
                f"{build}"
            )
        made_of = (found.labels or {}).get(MADE_OF_LABEL)
        if made_of != self.made_of:
            raise SuiteError(f"image {self.reference}: its label says made of {made_of}, not {self.made_of}. {build}")

    def facts(self) -> dict[str, Any]:
        """For a record: which image, on which base, with whose packages."""
        return {
            "image": self.reference,
            "base": self.base,
            "made_of": self.made_of,
            "packages": "mounted" if self.packages else "image",
        }


def project() -> Path:
    """The checkout that this package lies in. Raises SuiteError where it was installed without one."""
    found = Path(selfflow_bench.__file__).resolve().parents[1]
    if not (found / LOCK_FILE).exists():
        raise SuiteError(f"{found / LOCK_FILE}: not there. Images need a checkout of the project, not a bare install.")
    return found


def read_lock(root: Path) -> Lock:
    """The project's lock file of images."""
    path = root / LOCK_FILE
    try:
        return Lock.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise DamagedFileError(f"{path}: cannot be used: {error}. Restore it from version control.") from error


def made_of(root: Path, base: str) -> str:
    """The digest of what an image is built from: its base and the files that go in."""
    files = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in INGREDIENTS}
    return digest({"base": base, "files": files})


def stale(root: Path) -> list[str]:
    """What in the lock file is not what the project's files say, in words; empty where it is current."""
    found = []
    for target, locked in read_lock(root).images.items():
        wanted = made_of(root, locked.base)
        if locked.made_of != wanted:
            found.append(f"{LOCK_FILE}: {target}.made_of = {locked.made_of!r}, but the files give {wanted!r}")
    return found


def update_lock(root: Path) -> list[str]:
    """Write what the project's files say; the targets that changed."""
    lock, changed = read_lock(root), {}
    for target, locked in lock.images.items():
        wanted = made_of(root, locked.base)
        if wanted != locked.made_of:
            changed[target] = Locked(base=locked.base, made_of=wanted)
    if changed:
        new = lock.model_copy(update={"images": {**lock.images, **changed}})
        replace_text(root / LOCK_FILE, new.model_dump_json(indent=1) + "\n")
    return list(changed)


def read_pins(work: Path) -> dict[str, Pin]:
    """The builds of this machine, by target."""
    path = work / PINS
    if not path.exists():
        return {}
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {target: Pin.model_validate(value) for target, value in content.items()}
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path}: cannot be used: {error}. Delete it and build the images again.") from error


def pin(work: Path, target: Target, made: Pin) -> None:
    """Let runs of this work folder use a build."""
    pins = {**read_pins(work), target: made}
    content = {name: value.model_dump(mode="json") for name, value in sorted(pins.items())}
    replace_text(work / PINS, json.dumps(content, indent=1) + "\n")


def pinned(root: Path, work: Path, target: Target) -> Image:
    """This machine's build of a target.

    Raises ImageMissingError where there is none, and SuiteError where it is of older ingredients.
    """
    made = read_pins(work).get(target)
    build = f"Build it: selfflow-bench images build {target}"
    if made is None:
        raise ImageMissingError(f"image {target}: this work folder has none. {build}")
    if made.made_of != made_of(root, made.base):
        raise SuiteError(f"image {made.tag}: was built from another Dockerfile or requirements.lock. {build}")
    return Image(target, made.id, made.tag, made.base, made.made_of, made.packages)
