"""The arrows of the design hold, and nothing of the results needs torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_imports_point_in_one_direction() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    project = Path(__file__).resolve().parents[1]
    done = subprocess.run([lint_imports], cwd=project, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
