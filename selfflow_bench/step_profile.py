"""Where a training step's time and memory go: the trainer's own steps, timed part by part.

Parts are told apart from outside, at the calls that the loop makes; the loop itself is not slowed by it when it is not
profiled. On a GPU every part waits for the device, so overlap between parts shows as `other` getting smaller in an
ordinary run. A measurement on this machine now, not a test.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The profiler of torch otherwise tells every start and stop; read when torch is loaded.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from selfflow_bench.events import EventLog
from selfflow_bench.gpu_peaks import peak_flops
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan
from selfflow_bench.protocol import TrainingSettings
from selfflow_bench.recipe import Tier
from selfflow_bench.saved_for_backward import saved_bytes
from selfflow_bench.stages.cost import count_cost
from selfflow_bench.stages.run import set_up
from selfflow_bench.stages.training import training_of
from selfflow_bench.training.loop import Training

PARTS = ("data", "student forward", "teacher", "backward", "clipping", "optimizer", "EMA", "other")
WARM_UP = 2
"""Steps before the timed ones: allocations, libraries that choose their algorithms, compilation."""


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Args:
        seconds: of each part, the median over steps; `other` is the rest of the step.
        step: seconds of a whole step, the median.
        memory: bytes by kind.
        flops: of one step, counted.
        accelerator: the GPU's name, or None.
    """

    seconds: Mapping[str, float]
    step: float
    memory: Mapping[str, int]
    flops: float
    accelerator: str | None

    @property
    def achieved(self) -> float:
        """FLOP/s."""
        return self.flops / self.step

    @property
    def of_peak(self) -> float | None:
        """The share of the accelerator's peak; None where there is none, or it is not known."""
        peak = peak_flops(self.accelerator) if self.accelerator else None
        return self.achieved / peak if peak else None

    def share(self, part: str) -> float:
        """Of the step's time."""
        return self.seconds[part] / self.step


def profile_recipe(
    places: Places, recipe: str, tier: Tier, label: str, *, steps: int, trace: Path | None = None
) -> tuple[RunSpec, Profile]:
    """Set up a run of a recipe as a worker does, and profile its first steps. Nothing is recorded.

    Raises FieldError where the recipe, the tier's data or its weights are not there.
    """
    spec = make_plan(places, recipe, tier=tier, labels=[label]).runs[-1]
    with tempfile.TemporaryDirectory(dir=_folder(places.work)) as folder:
        events = EventLog(Path(folder) / "events.jsonl")
        run = set_up(spec, Path(folder), places.cache, events, lambda: False)
        flops = count_cost(run)["flops_per_sample"] * spec.conditions.training.batch
        found = profile_training(training_of(run), steps=steps, flops=flops, trace=trace)
        events.close()
    return spec, found


def _folder(work: Path) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    return work


def profile_training(training: Training, *, steps: int, flops: float, trace: Path | None = None) -> Profile:
    """Take training steps and say where they spend time and memory.

    Args:
        training: set up and not trained from here on: the steps are real ones.
        steps: timed steps, after `WARM_UP` others.
        flops: of one step.
        trace: where to write two further steps as a trace that Perfetto and Chrome open.
    """
    device = training.accelerator.device
    clock = _Clock(device)
    with clock.on_the_calls_of(training):
        for _ in range(WARM_UP):
            training.step()
        clock.steps.clear()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for _ in range(steps):
            with clock.step():
                training.step()
    memory = _memory(training)
    if trace is not None:
        _write_trace(training, trace)
    seconds = {part: statistics.median(step[part] for step in clock.steps) for part in PARTS}
    whole = statistics.median(sum(step.values()) for step in clock.steps)
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return Profile(seconds, whole, memory, flops, accelerator)


def advice(found: Profile, settings: TrainingSettings) -> list[str]:
    """What to try, from what was measured; nothing where nothing stands out."""
    said = []
    if found.share("data") > 0.05:
        said.append(
            f"Data takes {100 * found.share('data'):.0f} % of a step: put the prepared shards on a local disk, or "
            "look at what else reads from it."
        )
    outside = found.share("other") + found.share("clipping") + found.share("EMA")
    if outside > 0.15:
        said.append(
            f"{100 * outside:.0f} % of a step is outside the model and the optimizer: a larger batch spreads it, and "
            "--trace shows what it is."
        )
    on_gpu = found.accelerator is not None
    if on_gpu and not settings.compile:
        said.append("The blocks are not compiled: training.compile = true fuses their small operations.")
    if on_gpu and settings.precision == "float32":
        said.append('Products run in float32: training.precision = "bf16" is what the peak is counted in.')
    activations = found.memory["kept for backward"]
    if not settings.gradient_checkpointing and activations > sum(found.memory.values()) / 2:
        said.append(
            "Most memory is kept for backward: training.gradient_checkpointing = true gives it back for about a third "
            "more time, or take a smaller batch."
        )
    if found.of_peak is not None and found.of_peak < 0.2:
        said.append(f"{100 * found.of_peak:.0f} % of the peak is little: try a larger batch first.")
    return said


def print_profile(found: Profile, title: str, said: Sequence[str], console: Console) -> None:
    """The profile as two tables and what to try."""
    console.print(title, highlight=False)
    times = Table("part", "ms", "share", box=None, pad_edge=False)
    for part in PARTS:
        times.add_row(part, f"{1000 * found.seconds[part]:.1f}", f"{100 * found.share(part):.1f} %")
    times.add_row("whole step", f"{1000 * found.step:.1f}", "")
    console.print(times)
    console.print()
    memory = Table("memory", "MB", box=None, pad_edge=False)
    for kind, size in found.memory.items():
        memory.add_row(kind, f"{size / 1e6:,.1f}")
    console.print(memory)
    console.print()
    where = found.accelerator or f"the CPU ({torch.get_num_threads()} threads)"
    peak = f", {100 * found.of_peak:.0f} % of its peak" if found.of_peak is not None else "; its peak is not known"
    console.print(
        f"{found.flops / 1e9:,.1f} GFLOP a step; {found.achieved / 1e9:,.1f} GFLOP/s on {where}{peak}.",
        highlight=False,
    )
    for line in said:
        console.print(f"Try: {line}", highlight=False, soft_wrap=True)


class _Clock:
    """Seconds of the parts of steps. Parts may nest: an outer one's time is without its inner ones'."""

    def __init__(self, device: torch.device) -> None:
        self.steps: list[dict[str, float]] = []
        self._device = device
        self._inner: list[float] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step: what no part takes of it is `other`."""
        self.steps.append(dict.fromkeys(PARTS, 0.0))
        with self.part("other"):
            yield

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part, however it ends: a teacher that has seen enough leaves by an exception."""
        start = self._now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = self._now() - start
            within = self._inner.pop()
            if self.steps:
                self.steps[-1][name] += spent - within
            if self._inner:
                self._inner[-1] += spent

    @contextmanager
    def on_the_calls_of(self, training: Training) -> Iterator[None]:
        """Time the calls that make a step of a training."""
        targets: list[tuple[Any, str, str]] = [
            (training.batches, "make", "data"),
            (training.trainee, "forward", "student forward"),
            (training.ema.model, "forward", "teacher"),
            (training.accelerator, "backward", "backward"),
            (training.accelerator, "clip_grad_norm_", "clipping"),
            (training.optimizer, "step", "optimizer"),
            (training.ema, "update", "EMA"),
        ]
        # What an object had of its own (accelerate wraps calls so) is put back; else the class's shows again.
        before = [vars(owner).get(name) for owner, name, _ in targets]
        for owner, name, part in targets:
            setattr(owner, name, self._timed(getattr(owner, name), part))
        try:
            yield
        finally:
            for (owner, name, _), own in zip(targets, before, strict=True):
                if own is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, own)

    def _timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(part):
                return call(*arguments, **named)

        return timed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _memory(training: Training) -> dict[str, int]:
    """Bytes by kind. What is kept for backward is counted in one more forward, each storage once."""
    trained = set(training.parameters)
    everything = {*training.trainee.parameters(), *training.trainee.buffers()}
    average = {*training.ema.model.parameters(), *training.ema.model.buffers()} - everything
    state = [value for slots in training.optimizer.state.values() for value in slots.values()]
    found = {
        "weights": _bytes(everything),
        "gradients": _bytes(trained),
        "optimizer": _bytes(value for value in state if isinstance(value, Tensor)),
        "EMA": _bytes(average),
        "kept for backward": _kept_for_backward(training, everything),
    }
    if training.accelerator.device.type == "cuda":
        found["peak of all"] = torch.cuda.max_memory_allocated(training.accelerator.device)
    return found


def _bytes(tensors: Any) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _kept_for_backward(training: Training, weights: set[Any]) -> int:
    batch = training.batch(range(training.settings.batch))
    step = training.progress.samples // training.settings.batch
    return saved_bytes(lambda: training.wrapped(training.ema.model, batch, step), weights)


def _write_trace(training: Training, path: Path) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if training.accelerator.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, record_shapes=True) as recorded:
        for _ in range(2):
            training.step()
    recorded.export_chrome_trace(str(path))
