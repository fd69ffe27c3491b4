"""The class of this machine: its processor, cores and memory. Never a name of a host or a user; knows no torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def machine_class() -> dict[str, Any]:
    """``cpu``, ``cores`` and ``memory_gb``, as records have them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": _processor(), "cores": os.cpu_count(), "memory_gb": round(memory, 1)}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
