"""The connection to a container engine, each call with a deadline, and errors that say what to do.

Knows nothing of images and runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import requests
from docker.errors import APIError, DockerException

from selfflow_bench.errors import InfrastructureError

CALL_SECONDS = 30.0
"""Deadline of one call: inspecting, starting, killing, removing."""
RETURN_SECONDS = 90.0
"""How long an engine may be away (a restart, an upgrade) before a run that it had is given up."""
_USUAL_SOCKET = "unix:///var/run/docker.sock"
_REMEDY = (
    "Is it installed and running (on Debian: apt-get install docker.io; service docker start), and may this user use "
    "it? DOCKER_HOST names another one. Or run on the host: --executor host"
)


class EngineGoneError(InfrastructureError):
    """No engine answers."""


def connect(wait_seconds: float = 0.0) -> docker.DockerClient:
    """The engine of the environment (DOCKER_HOST or the usual socket), once it answers.

    Raises EngineGoneError after `wait_seconds` without an answer.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        client = None
        try:
            client = docker.from_env(timeout=CALL_SECONDS)
            client.ping()
            return client
        except (DockerException, requests.RequestException) as error:
            if client is not None:
                client.close()
            if time.monotonic() >= deadline:
                raise EngineGoneError(f"no container engine answers: {_reason(error)}. {_REMEDY}") from error
        time.sleep(0.5)


@contextmanager
def connected(wait_seconds: float = 0.0) -> Iterator[docker.DockerClient]:
    """`connect`, closed afterwards."""
    client = connect(wait_seconds)
    try:
        yield client
    finally:
        client.close()


def is_gone(error: Exception) -> bool:
    """Whether an error of a call means that the engine itself did not answer."""
    if isinstance(error, APIError):
        return bool(error.is_server_error()) and "shutting down" in str(error).lower()
    return isinstance(error, requests.RequestException | DockerException)


def _reason(error: Exception) -> str:
    """Where it was looked for, and what the system said; the SDK wraps that several times."""
    where = os.environ.get("DOCKER_HOST") or _USUAL_SOCKET
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return f"{where}: {seen.strerror}"
        seen = seen.__cause__ or seen.__context__
    return f"{where}: " + str(error).splitlines()[0].removeprefix("Error while fetching server API version: ")
