"""Obtains npm and Debian packages by name and version into a directory, and checks their sha256.

Knows nothing of what is inside them, and nothing of where the clients are set up to fetch from.
"""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from selfflow_bench.errors import DamagedFileError


@dataclass(frozen=True)
class NpmPackage:
    """An npm package at one version, with the sha256 of its tarball."""

    name: str
    version: str
    sha256: str

    def fetch(self, directory: Path) -> Path:
        """Path of the tarball inside `directory`; raises DamagedFileError where its content is not the pinned one."""
        command = ["npm", "pack", "--silent", "--pack-destination", str(directory), f"{self.name}@{self.version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        tarball = directory / f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        return _checked(tarball, self.sha256)


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package at one version, with the sha256 of its .deb."""

    name: str
    version: str
    sha256: str

    def fetch(self, directory: Path) -> Path:
        """Folder inside `directory` that holds the unpacked package; raises DamagedFileError as above."""
        subprocess.run(
            ["apt-get", "download", "-qq", f"{self.name}={self.version}"],
            check=True,
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = directory.glob(f"{self.name}_*.deb")
        unpacked = directory / self.name
        subprocess.run(["dpkg-deb", "-x", str(_checked(archive, self.sha256)), str(unpacked)], check=True)
        return unpacked


def _checked(path: Path, sha256: str) -> Path:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DamagedFileError(f"{path.name}: sha256 is {found}, but {sha256} is pinned. Was the version republished?")
    return path
