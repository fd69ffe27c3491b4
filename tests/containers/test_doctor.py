from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfflow_bench.containers import images
from selfflow_bench.containers.doctor import examine
from selfflow_bench.containers.gpus import Gpu
from selfflow_bench.places import Places
from tests.containers.conftest import PrivateEngine, make_site

OLD, NEW = (Gpu("GPU-1", "NVIDIA L4", driver, 23034) for driver in ("550.54.14", "580.65.06"))


def found(work: Path, *, reference: bool = False, gpus: list[Gpu] | None = None) -> dict[str, tuple[str, str, str]]:
    checkup = examine(work, reference=reference, gpus=lambda: gpus or [])
    return {finding.name: (finding.level, finding.text, finding.remedy) for finding in checkup.findings}


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")


@pytest.mark.usefixtures("no_engine")
def test_a_machine_without_an_engine_can_run_small_tiers_only(tmp_path: Path) -> None:
    small, large = found(tmp_path), found(tmp_path, reference=True)
    assert small["engine"][0] == "warning"
    assert large["engine"][0] == "problem"
    assert small["engine"][1].endswith("/nothing: No such file or directory")
    assert "apt-get install docker.io" in small["engine"][2]
    assert small["clock"][0] == "ok"
    assert small["gpu"][0] == "ok"
    assert large["gpu"][0] == "problem"
    assert small["data"][0] == small["weights"][0] == "ok"


@pytest.mark.usefixtures("no_engine")
def test_an_old_driver_is_named(tmp_path: Path) -> None:
    assert found(tmp_path, reference=True, gpus=[OLD])["gpu"][0] == "problem"
    assert "580" in found(tmp_path, reference=True, gpus=[OLD])["gpu"][2]
    assert found(tmp_path, reference=True, gpus=[NEW])["gpu"][0] == "ok"


@pytest.mark.usefixtures("no_engine")
def test_a_driver_that_is_there_and_lists_no_gpu_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for reference, level in ((False, "warning"), (True, "problem")):
        seen = found(tmp_path, reference=reference)["gpu"]
        assert seen[:2] == (
            level,
            "nvidia-smi lists none: Failed to initialize NVML: Driver/library version mismatch",
        )
        assert "reboot" in seen[2]


@pytest.mark.usefixtures("no_engine")
def test_the_exit_code_is_the_worst_finding_s(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "selfflow_bench", "--work", str(tmp_path), "doctor", "--json"]
    for extra, worst, code in (((), "warning", 1), (("--tier", "reference"), "problem", 3)):
        done = subprocess.run([*line, *extra], capture_output=True, text=True, timeout=300, check=False)
        content: dict[str, Any] = json.loads(done.stdout)
        assert content["worst"] == worst, content
        assert done.returncode == code
        assert all(finding["remedy"] for finding in content["findings"] if finding["level"] != "ok")


def test_an_engine_with_an_image_is_found_well(
    engine: PrivateEngine, system_image: images.Pin, project: Places, tmp_path: Path
) -> None:
    seen = found(make_site(tmp_path / "site", project, system_image).places.work)
    assert seen["engine"][0] == "ok"
    assert "API" in seen["engine"][1]
    assert seen["image cpu"][0] == "ok"
    assert seen["container cpu"] == ("ok", seen["container cpu"][1], "")
    assert seen["container cpu"][1].startswith("Python 3.11")
    assert seen["clock"][0] == "ok"


def test_what_is_missing_on_an_engine_has_a_remedy(engine: PrivateEngine, tmp_path: Path) -> None:
    seen = found(tmp_path, reference=True, gpus=[NEW])
    assert seen["nvidia runtime"][0] == "problem"
    assert "nvidia-container-toolkit" in seen["nvidia runtime"][2]
    assert seen["image cuda"][0] == "problem"
    assert seen["image cuda"][2] == "Build it: selfflow-bench images build cuda"


def test_an_image_that_is_gone_is_a_problem(
    engine: PrivateEngine, system_image: images.Pin, project: Places, tmp_path: Path
) -> None:
    gone = system_image.model_copy(update={"tag": "selfflow-bench:gone"})
    seen = found(make_site(tmp_path / "site", project, gone).places.work)
    assert seen["image cpu"][0] == "problem"
    assert seen["image cpu"][2].startswith("Build it: selfflow-bench images build cpu")


@pytest.mark.usefixtures("no_engine")
def test_damaged_data_is_named(tmp_path: Path, monkeypatch: Any, small_copy: Callable[[], Path]) -> None:
    from selfflow_bench.data import sources

    folder = small_copy()
    monkeypatch.setitem(sources._SOURCES, "damaged", sources.ParquetSource("damaged", folder))
    assert found(tmp_path)["data"][0] == "ok"
    with (folder / "train.parquet").open("ab") as file:
        file.write(b"x")
    level, text, remedy = found(tmp_path)["data"]
    assert level == "problem"
    assert "train.parquet" in text
    assert remedy


@pytest.fixture
def small_copy(tmp_path: Path) -> Callable[[], Path]:
    """A copy of an embedded data set, to be damaged."""
    import shutil

    from selfflow_bench.data.sources import EMBEDDED

    def make() -> Path:
        return Path(shutil.copytree(EMBEDDED / "notes", tmp_path / "notes"))

    return make
