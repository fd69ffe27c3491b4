"""Builds an image from the project's Dockerfile with the engine's classic builder, and checks builds.

The builder is sent the ingredients only, never the checkout. Knows nothing of runs.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound

from selfflow_bench import __version__
from selfflow_bench.containers.images import (
    BASE_LABEL,
    INGREDIENTS,
    LOCK_FILE,
    MADE_OF_LABEL,
    REPOSITORY,
    Image,
    Pin,
    Target,
    made_of,
    read_lock,
)
from selfflow_bench.errors import InfrastructureError, SuiteError

BUILD_SECONDS = 3600
"""Longest silence of a build: PyTorch is 3 GB."""
_EXTRA_CA = "docker/extra-ca.crt"


def build(
    client: docker.DockerClient,
    root: Path,
    target: Target,
    *,
    base: str | None = None,
    packages: Path | None = None,
    certificates: Path | None = None,
    network: str | None = None,
    arguments: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Pin:
    """Build a target; how to pin it.

    Args:
        client: the engine.
        root: the project.
        target: which.
        base: another base than the lock file's: an image that the engine has.
        packages: build the system stage only, and let runs mount this folder of packages (for development: quick,
            and recorded as such).
        certificates: a bundle that reaching the package index needs, used while building only.
        network: the build's network, such as "host".
        arguments: further build arguments, such as PIP_INDEX_URL.
        say: receives the builder's lines.

    Raises:
        InfrastructureError: the build failed; the message ends with the builder's last lines.
    """
    chosen = _resolved_base(client, base) if base else read_lock(root).images[target].base
    ingredients = made_of(root, chosen)
    tag = f"{REPOSITORY}:{target}-{ingredients[:12]}" + ("-system" if packages else "")
    labels = {
        MADE_OF_LABEL: ingredients,
        BASE_LABEL: chosen,
        "org.opencontainers.image.title": f"Self-Flow Bench, {target}",
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.revision": _revision(root),
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    if "@" in chosen:
        labels["org.opencontainers.image.base.digest"] = chosen.rpartition("@")[2]
    options = {
        "fileobj": _context(root, certificates),
        "custom_context": True,
        "dockerfile": INGREDIENTS[0],
        "target": "system" if packages else target,
        "buildargs": {"BASE": chosen, **(arguments or {})},
        "labels": labels,
        "network_mode": network,
        "tag": tag,
        "rm": True,
        "forcerm": True,
        "pull": False,
        "timeout": BUILD_SECONDS,
        "decode": True,
    }
    last: list[str] = []
    try:
        for line in client.api.build(**options):
            text = line.get("stream") or line.get("error") or ""
            for row in filter(None, text.rstrip().splitlines()):
                say(row)
                last = [*last[-14:], row]
            if "error" in line:
                raise InfrastructureError(f"image {target}: the build failed:\n" + "\n".join(last))
    except APIError as error:
        raise InfrastructureError(f"image {target}: the engine refuses to build it: {error.explanation}") from error
    made = client.images.get(tag)
    return Pin(id=made.id, tag=tag, base=chosen, made_of=ingredients, packages=packages)


def verify(client: docker.DockerClient, image: Image) -> None:
    """Refuse a pinned image that is gone, changed, of other ingredients, or made to run as root. Raises SuiteError."""
    image.check(client)
    attributes = client.images.get(image.reference).attrs
    if attributes["Config"].get("User") in (None, "", "root", "0"):
        raise SuiteError(f"image {image.reference}: runs as root. Build it: selfflow-bench images build {image.target}")


def _resolved_base(client: docker.DockerClient, base: str) -> str:
    """A base with its digest: what a tag means may change."""
    if "@sha256:" in base:
        return base
    try:
        return str(client.images.get(base).id)
    except ImageNotFound as error:
        raise SuiteError(
            f"--base {base}: the engine does not have it. Pull or import it first, or leave --base out: {LOCK_FILE} "
            "names one."
        ) from error


def _context(root: Path, certificates: Path | None) -> io.BytesIO:
    """What the builder gets to see, with times left out so that its cache can hit."""
    packed = io.BytesIO()
    files = {name: root / name for name in INGREDIENTS}
    if certificates is not None:
        files[_EXTRA_CA] = certificates
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, path in files.items():
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    packed.seek(0)
    return packed


def _revision(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
