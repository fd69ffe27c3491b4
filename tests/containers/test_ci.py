"""What the CI workflow promises about trust, read from the file itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CI = Path(__file__).resolve().parents[2] / "ci"
WORKFLOWS = sorted((CI / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return content


def test_no_token_can_write_and_no_foreign_action_is_used(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert not any("uses" in step for step in job["steps"])


def test_our_own_machines_run_trusted_refs_only(workflow: dict[str, Any]) -> None:
    own = [job for job in workflow["jobs"].values() if "self-hosted" in job["runs-on"]]
    assert own
    for job in own:
        assert "pull_request" not in job["if"]
        assert "github.event_name == 'push'" in job["if"]
        assert "github.ref == 'refs/heads/main'" in job["if"]
        assert job["environment"] == "gpu"


def test_every_script_that_it_calls_is_there_and_parses(workflow: dict[str, Any]) -> None:
    called = {
        word
        for job in workflow["jobs"].values()
        for step in job["steps"]
        for word in step["run"].split()
        if word.startswith(("ci/", ".ci/"))
    }
    assert called
    for name in called:
        script = CI.parent / name
        assert script.exists(), name
        subprocess.run(["bash", "-n", script], check=True, timeout=30)
