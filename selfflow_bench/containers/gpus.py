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
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=uuid,name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(done.stdout) if done.returncode == 0 else []


def parse_gpus(text: str) -> list[Gpu]:
    """The rows of ``nvidia-smi``'s answer."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [Gpu(row[0], row[1], row[2], int(row[3])) for row in rows if len(row) == 4 and row[3].strip().isdecimal()]
