"""The NVIDIA GPUs of this machine, as its driver tells. Knows nothing of engines."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass

_SECONDS = 30


@dataclass(frozen=True)
class Gpu:
    """A GPU. `uuid` names it for good; `memory_mb` is all it has."""

    uuid: str
    name: str
    driver: str
    memory_mb: int


def host_gpus() -> list[Gpu]:
    """GPUs that ``nvidia-smi`` sees; none where there is no driver or it does not answer."""
    return _asked()[0]


def driver_complaint() -> str | None:
    """Why a driver that is installed lists no GPU; None where there is none, or all is well."""
    return _asked()[1]


def _asked() -> tuple[list[Gpu], str | None]:
    if shutil.which("nvidia-smi") is None:
        return [], None
    command = ["nvidia-smi", "--query-gpu=uuid,name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [], f"no answer within {_SECONDS} s"
    except OSError as error:
        return [], error.strerror or str(error)
    found = parse_gpus(done.stdout) if done.returncode == 0 else []
    said = " ".join((done.stdout + done.stderr).split())
    return found, None if found else said or f"exit code {done.returncode}"


def parse_gpus(text: str) -> list[Gpu]:
    """The rows of ``nvidia-smi``'s answer."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [Gpu(row[0], row[1], row[2], int(row[3])) for row in rows if len(row) == 4 and row[3].strip().isdecimal()]
