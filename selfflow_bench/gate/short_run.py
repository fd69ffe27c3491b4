"""Short training runs in this process: the first steps' losses and validation losses, and what they depend on.

They take the product's own stages, on the smoke tier. Knows nothing of what is expected of the numbers.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from selfflow_bench.events import EventLog
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan
from selfflow_bench.stages.run import Run, set_up
from selfflow_bench.stages.training import train

LIBRARIES = ("accelerate", "diffusers", "torch")
Change = Callable[[Run], Run]
"""Makes another run of one, for the gate's self-test."""


@dataclass(frozen=True)
class Curve:
    """What a short run gave: the loss of each step, and the last validation loss for each timestep."""

    steps: tuple[float, ...]
    validation: tuple[float, ...]

    @property
    def validation_loss(self) -> float:
        """Mean over the timesteps."""
        return sum(self.validation) / len(self.validation)


def smoke_spec(places: Places, recipe: str, label: str, *, seed: int = 0, steps: int | None = None) -> RunSpec:
    """The specification of a run of the smoke tier; with ``steps`` it ends after as many, and logs each."""
    plain = make_plan(places, recipe, tier="smoke", labels=[label], seeds=seed + 1)
    batch = plain.runs[0].conditions.training.batch
    overrides = (
        {}
        if steps is None
        else {
            "training.samples": steps * batch,
            "training.log_every": batch,
            "training.checkpoint_every": steps * batch,
            "training.warmup_samples": plain.runs[0].conditions.training.warmup_samples,
            "evaluation.validation_every": steps * batch,
        }
    )
    plan = make_plan(places, recipe, tier="smoke", labels=[label], seeds=seed + 1, overrides=overrides)
    return next(run for run in plan.runs if (run.label, run.seed_index) == (label, seed))


def short_run(spec: RunSpec, cache: Path, change: Change = lambda run: run) -> Curve:
    """Train in a folder that is deleted afterwards; deterministically, as the worker does."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    with tempfile.TemporaryDirectory(prefix="selfflow-check-") as name:
        events = EventLog(Path(name) / "events.jsonl")
        try:
            run = change(set_up(spec, Path(name), cache, events, lambda: False))
            progress = train(run).progress
        finally:
            events.close()
            torch.use_deterministic_algorithms(mode=before)
    return Curve(
        steps=tuple(row["loss"] for row in progress.rows),
        validation=tuple(progress.validations[-1]["per_timestep"]),
    )


def identity(spec: RunSpec) -> dict[str, str]:
    """What a run is: with another of these it is another experiment."""
    training = spec.conditions.training
    return {
        "recipe": str(spec.recipe),
        "recipe_digest": spec.recipe.digest,
        "protocol_digest": spec.protocol.digest,
        "method": spec.label,
        "method_digest": spec.settings_digest,
        "seed": str(spec.seed),
        "samples": str(training.samples),
        "threads": str(training.threads),
    }


def arithmetic() -> dict[str, str]:
    """What the last bits depend on: libraries and the kind of processor, no name of a machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {
        **{name: version(name) for name in LIBRARIES},
        "cpu": model,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
