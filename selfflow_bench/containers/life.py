"""A container's life: found or made, started, watched to its end, stopped, removed. Each call has a deadline.

Knows nothing of runs and results: it is given the SDK's arguments and labels, and a callback for each look.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from selfflow_bench.containers.engine import RETURN_SECONDS, EngineGoneError, connect, is_gone
from selfflow_bench.errors import InfrastructureError, SuiteError
from selfflow_bench.failures import Trouble

POLL_SECONDS = 0.5
ENDED = ("exited", "dead")
_KILL_SECONDS = 20.0
_LEAVING_SECONDS = 30.0
"""An engine that shuts down stops its containers first, and answers for a while longer (more than 10 s were seen)."""
_FORGETTING_SECONDS = 3.0
"""An engine that no longer knows a container may be shutting down: then it stops answering within this."""
_AWAY = Trouble("engine gone", "the engine went away while the run was going")


class ImageMissingError(InfrastructureError):
    """The engine does not have the image."""


@dataclass(frozen=True)
class End:
    """How a container ended.

    Args:
        attributes: the engine's last inspection of it.
        trouble: what was seen from outside (a hang, the engine away), or None.
        was_removed: somebody removed it while it ran.
    """

    attributes: Mapping[str, Any]
    trouble: Trouble | None = None
    was_removed: bool = False

    @property
    def exit_code(self) -> int | None:
        """Of its first process; None where it was not seen to end."""
        state = self.attributes["State"]
        return int(state["ExitCode"]) if state["Status"] in ENDED else None


def find(client: docker.DockerClient, wanted: Mapping[str, str]) -> list[Container]:
    """Our containers with these labels, running or not."""
    labels = [f"{name}={value}" for name, value in wanted.items()]
    found: list[Container] = client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
    return found


def start(client: docker.DockerClient, settings: Mapping[str, Any]) -> Container:
    """Create and start a container, after checking that it is of the image that was asked for.

    Raises:
        ImageMissingError: the engine has no such image; none is ever pulled here.
        SuiteError: the engine made it from another image.
        InfrastructureError: the engine refuses to start it, with its reason.
    """
    try:
        container: Container = client.containers.create(**settings)
    except ImageNotFound as error:
        raise ImageMissingError(f"image {settings['image']}: the engine does not have it. {_BUILD}") from error
    except APIError as error:
        raise InfrastructureError(f"the engine refuses the container: {_explained(error)}") from error
    try:
        if container.attrs["Image"] != settings["image"]:
            raise SuiteError(f"the engine made a container of {container.attrs['Image']}, not of {settings['image']}")
        container.start()
    except BaseException as error:
        with contextlib.suppress(DockerException):
            container.remove(force=True)
        if isinstance(error, APIError):
            raise InfrastructureError(f"the engine cannot start the container: {_explained(error)}") from error
        raise
    return container


def watch(container: Container, look: Callable[[], Trouble | None]) -> End:
    """Wait for a container's end. An engine that goes away is waited for; what it says then counts.

    Args:
        container: started.
        look: called about twice a second; trouble that it sees (a hang) ends the wait.
    """
    away = None
    while True:
        trouble = look()
        try:
            container.reload()
        except NotFound:
            if away is None and _goes_away(container, _FORGETTING_SECONDS):
                away = _AWAY
                if _comes_back():
                    continue
            return End(container.attrs, away, was_removed=away is None)
        except Exception as error:
            if not is_gone(error):
                raise
            away = _AWAY
            if not _comes_back():
                return End(container.attrs, away)
            continue
        if trouble is not None or container.status in ENDED:
            if away is None and trouble is None and _was_stopped(container) and _by_the_engine(container):
                away = _AWAY
                if _comes_back():
                    continue
            look()
            return End(container.attrs, trouble or away)
        time.sleep(POLL_SECONDS)


def stop(container: Container, grace_seconds: float) -> None:
    """SIGTERM, a grace in which the worker writes its checkpoint, SIGKILL, and removal whatever happens.

    A second Ctrl-C shortens the grace. Returns silently where the container is gone already, or the engine is: then
    it is found by its labels when the engine is back.
    """
    try:
        _stop(container, grace_seconds)
    except NotFound:
        return
    except Exception as error:
        if not is_gone(error):
            raise


def _stop(container: Container, grace_seconds: float) -> None:
    try:
        container.reload()
        if container.status == "paused":
            container.unpause()
        if container.status in ("running", "paused"):
            container.kill("SIGTERM")
            _wait(container, grace_seconds)
        container.reload()
        if container.status == "running":
            container.kill("SIGKILL")
            _wait(container, _KILL_SECONDS)
    except APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:  # it ended by itself between two calls
            raise
    finally:
        container.remove(force=True)


def _wait(container: Container, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < deadline:
            container.reload()
            if container.status in ENDED:
                return
            time.sleep(0.1)


def _was_stopped(container: Container) -> bool:
    """Whether it ended as one that was told to stop, or was killed after that; not for its memory."""
    state = container.attrs["State"]
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    return not state["OOMKilled"] and state["ExitCode"] in [128 + number for number in signals]


def _by_the_engine(container: Container) -> bool:
    """Whether it was the engine's end that stopped a container, and not somebody who wanted the run to stop."""
    return _goes_away(container, 0.1) or _has_begun_anew(container) or _goes_away(container, _LEAVING_SECONDS)


def _has_begun_anew(container: Container) -> bool:
    """Whether the engine has started since the container did: its events, which it keeps in memory, begin later.

    A restart can be over between two looks, and nothing else that an engine says tells of it. One that had hundreds of
    other events since then has forgotten too; the run then goes on once more for nothing.
    """
    since = int(datetime.fromisoformat(container.attrs["State"]["StartedAt"][:19] + "+00:00").timestamp()) - 1
    filters = {"container": container.id, "event": "start"}
    try:
        told = container.client.api.events(since=since, until=int(time.time()) + 1, filters=filters, decode=True)
        return not any(True for _ in told)
    except (DockerException, requests.RequestException):
        return True


def _goes_away(container: Container, seconds: float) -> bool:
    """Whether the engine stops answering within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            # Of the engine, not of the container: one that shuts down may have let go of the container already.
            container.client.ping()
        except (DockerException, requests.RequestException):
            return True
        time.sleep(0.2)
    return False


def _comes_back() -> bool:
    try:
        connect(RETURN_SECONDS).close()
    except EngineGoneError:
        return False
    return True


def _explained(error: APIError) -> str:
    text = str(error.explanation or error)
    if "could not select device driver" in text:
        text += ". The engine has no NVIDIA runtime: install nvidia-container-toolkit, then see selfflow-bench doctor"
    return text


_BUILD = "Build it: selfflow-bench images build"
