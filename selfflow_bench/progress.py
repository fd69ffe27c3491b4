"""Shows a run while it goes: a live line on a terminal, plain lines elsewhere, JSON for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Style = Literal["live", "plain", "json"]
Watch = Callable[[dict[str, Any]], None]
_PLAIN_SECONDS = 10.0


def style_for(console: Console, *, as_json: bool) -> Style:
    """JSON where asked for, live on a terminal, else plain lines."""
    if as_json:
        return "json"
    return "live" if console.is_terminal else "plain"


@contextmanager
def shown(console: Console, style: Style, run: str) -> Iterator[Watch]:
    """What to hand a run's events to."""
    if style == "json":
        yield lambda event: print(json.dumps({"run": run, **event}), flush=True)
    elif style == "plain":
        yield _PlainLines(run)
    else:
        with Progress(
            TextColumn("[bold]{task.description:<26}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]:<30}"),
            TimeRemainingColumn(compact=True),
            console=console,
        ) as progress:
            yield _LiveLine(progress, progress.add_task(run, total=None, text="loading PyTorch"))


class _Rate:
    """Samples a second, over this sitting only."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def __call__(self, samples: float, seconds: float) -> float | None:
        if self._first is None:
            self._first = (samples, seconds)
            return None
        done, spent = samples - self._first[0], seconds - self._first[1]
        return done / spent if spent > 0 else None


class _LiveLine:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task, self._rate = progress, task, _Rate()

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "progress":
            rate = self._rate(event["samples"], event["seconds"])
            text = f"loss {event['loss']:.4f}" + (f"  {rate:.0f} samples/s" if rate else "")
            self._progress.update(self._task, total=event["of"], completed=event["samples"], text=text)
        elif kind == "sampling":
            text = f"sampling {event['done']}/{event['of']}"
            self._progress.update(self._task, total=event["of"], completed=event["done"], text=text)
        elif kind == "stage":
            self._progress.update(self._task, text=_stage(event))
        elif kind == "preparing":
            self._progress.update(self._task, text=event["text"][:30])
        elif kind == "retry":
            self._progress.update(self._task, text=f"again after {event['text']}"[:30])
        elif kind == "result":
            task = self._progress.tasks[self._task]
            self._progress.update(self._task, total=1, completed=1, text=event["status"], description=task.description)


class _PlainLines:
    def __init__(self, run: str) -> None:
        self._run, self._rate, self._last = run, _Rate(), 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "stage":
            self._say(_stage(event))
        elif kind == "preparing":
            self._say(event["text"])
        elif kind == "validation":
            self._say(f"{event['samples']} samples: validation loss {event['loss']:.4f}")
        elif kind == "retry":
            self._say(f"{event['text']}; going on from the checkpoint, retry {event['try']} of {event['of']}")
        elif kind == "result":
            self._say(event["status"])
        elif kind in ("progress", "sampling") and time.monotonic() - self._last >= _PLAIN_SECONDS:
            self._last = time.monotonic()
            if kind == "sampling":
                self._say(f"sampled {event['done']} of {event['of']}")
                return
            rate = self._rate(event["samples"], event["seconds"])
            left = f", {(event['of'] - event['samples']) / rate:.0f} s left" if rate else ""
            pace = f", {rate:.0f} samples/s" if rate else ""
            self._say(f"{event['samples']:.0f} of {event['of']} samples, loss {event['loss']:.4f}{pace}{left}")

    def _say(self, text: str) -> None:
        print(f"{self._run}: {text}", file=sys.stderr, flush=True)


def _stage(event: dict[str, Any]) -> str:
    if event.get("resumed"):
        return f"{event['name']}, resumed at {event['samples']:.0f}"
    return str(event["name"])
