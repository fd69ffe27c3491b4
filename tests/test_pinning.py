"""`pin` against a real server that speaks the hub's API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from selfflow_bench.places import Places
from selfflow_bench.plan import lock_entries, make_plan

COMMIT = {"PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": "1" * 40, "pixparse/cc12m-wds": "2" * 40}
COCO = "sayakpaul/coco-30-val-2014"


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: what a repository's newest commit is, or 404 with the hub's own error code."""

    known: dict[str, str] = {}

    def do_GET(self) -> None:
        kind, _, name = self.path.removeprefix("/api/").partition("/")
        commit = self.known.get(name)
        body = json.dumps({"id": name, "sha": commit} if commit else {"error": "Repository not found"}).encode()
        self.send_response(200 if commit and kind in ("models", "datasets") else 404)
        if commit is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Silence."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def places(project: Places, tmp_path: Path) -> Places:
    """One recipe and its protocols, so that the lock is quick to make."""
    for folder in ("pixart", "protocols/image-smoke", "protocols/image-micro", "protocols/t2i-coco"):
        shutil.copytree(project.recipes / folder, tmp_path / "recipes" / folder)
    return Places(tmp_path / "recipes", tmp_path / "results", tmp_path / "work")


def pin(places: Places, endpoint: str, offline: str = "0") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "selfflow_bench", "--recipes", str(places.recipes), "pin", "pixart"]
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, "NO_PROXY": "127.0.0.1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def content(places: Places) -> dict[str, str]:
    return {str(path): path.read_text() for path in sorted(places.recipes.rglob("*")) if path.is_file()}


def test_commits_are_written_beside_the_comments_and_into_the_lock(places: Places, hub: str) -> None:
    before = content(places)
    spec = make_plan(places, "pixart", tier="reference").runs[0]
    revisions = {name for name in spec.unpinned if name.endswith("revision")}
    assert len(revisions) == 3
    Hub.known = {**COMMIT, COCO: "3" * 40}
    done = pin(places, hub)
    assert done.returncode == 0, done.stderr
    after = content(places)
    for path, text in before.items():
        expected = text
        for name, commit in Hub.known.items():
            expected = expected.replace(
                f'id = "{name}"\nrevision = "unpinned"', f'id = "{name}"\nrevision = "{commit}"'
            )
        assert after[path] == expected
    assert json.loads((places.recipes / "lock.json").read_text()) == lock_entries(places)
    pinned = make_plan(places, "pixart", tier="reference").runs[0]
    assert set(pinned.unpinned) == set(spec.unpinned) - revisions
    assert (pinned.recipe.digest, pinned.protocol.digest) != (spec.recipe.digest, spec.protocol.digest)


@pytest.mark.parametrize(
    ("known", "offline", "says"),
    [
        (COMMIT, "0", f"dataset {COCO}: the hub has none of that name"),
        (COMMIT, "1", "the hub does not answer"),
    ],
)
def test_what_cannot_be_found_changes_nothing(
    places: Places, hub: str, known: dict[str, str], offline: str, says: str
) -> None:
    before = content(places)
    Hub.known = known
    done = pin(places, hub, offline)
    assert done.returncode == 3
    assert says in done.stderr
    assert content(places) == before


def test_no_hub_at_all_is_said(places: Places) -> None:
    before = content(places)
    done = pin(places, "http://127.0.0.1:9")
    assert done.returncode == 3
    assert "Pin on a machine that reaches the hub" in done.stderr
    assert content(places) == before
