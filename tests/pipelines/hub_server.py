"""A real server that speaks as much of the hub's API as fetching a snapshot takes."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Repository(BaseHTTPRequestHandler):
    """One model's files at one commit; anything else is answered as the hub answers for what it has not."""

    id: str
    revision: str
    folder: Path
    fetched: list[str]
    breaks: str | None
    """A file of which only the first half is sent."""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == f"/api/models/{self.id}/tree/{self.revision}":
            files = sorted(one for one in self.folder.rglob("*") if one.is_file())
            tree = [
                {
                    "type": "file",
                    "path": one.relative_to(self.folder).as_posix(),
                    "size": one.stat().st_size,
                    "oid": hashlib.sha1(one.read_bytes()).hexdigest(),
                }
                for one in files
            ]
            self._send(json.dumps(tree).encode(), {"Content-Type": "application/json"}, with_body=with_body)
            return
        found = re.fullmatch(rf"/{re.escape(self.id)}/resolve/{self.revision}/(.+)", path)
        file = self.folder / found.group(1) if found else None
        if file is None or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if found else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": self.revision}
        if with_body:
            assert found is not None
            self.fetched.append(found.group(1))
        self._send(content, headers, with_body=with_body)

    def _send(self, content: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            start = int(asked.group(1))
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.send_response(206 if asked else 200)
        for name, value in {**headers, "Content-Length": str(len(content) - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            broken = self.breaks is not None and self.path.endswith(self.breaks)
            self.wfile.write(content[start : len(content) // 2 if broken else None])
            if broken:
                self.close_connection = True

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Silence."""


@contextmanager
def serving(model: str, revision: str, folder: Path) -> Iterator[tuple[str, type[Repository]]]:
    """Serve a folder as a model's repository: the address, and what was asked for."""

    class Served(Repository):
        fetched: list[str] = []
        breaks: str | None = None

    Served.id, Served.revision, Served.folder = model, revision, folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", Served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
