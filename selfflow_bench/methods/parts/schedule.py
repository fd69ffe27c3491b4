"""The weight of an auxiliary loss over a run: warm-up, shape, decay, cutoff (documented in the Self-Flow guide)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from selfflow_bench.errors import FieldError
from selfflow_bench.methods.base import MethodSettings

ScheduleKind = Literal["constant", "linear", "cosine", "polynomial"]


class WeightSchedule(MethodSettings):
    """Weight as a function of the optimizer step.

    Linear warm-up from 0 over ``warmup_steps`` for every kind; then, with
    ``p = min((step - warmup) / max(decay - warmup, 1), 1)`` (``decay_steps`` 0 means the whole run):
    linear ``w + (end - w) p``; cosine ``end + (w - end)(1 + cos(pi p)) / 2``;
    polynomial ``(w - end)(1 - p)^power + end``. From ``cutoff_step`` on (0: never) the weight is 0.
    """

    kind: ScheduleKind = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    decay_steps: int = Field(default=0, ge=0)
    weight_end: float = Field(default=0.0, ge=0.0)
    power: float = Field(default=1.0, gt=0.0)
    cutoff_step: int = Field(default=0, ge=0)

    def weight(self, base: float, step: int, steps: int) -> float:
        """The weight at ``step`` of a run of ``steps``."""
        if self.cutoff_step and step >= self.cutoff_step:
            return 0.0
        if step < self.warmup_steps:
            return base * step / self.warmup_steps
        if self.kind == "constant":
            return base
        decay = self.decay_steps or steps
        p = min((step - self.warmup_steps) / max(decay - self.warmup_steps, 1), 1.0)
        if self.kind == "linear":
            return base + (self.weight_end - base) * p
        if self.kind == "cosine":
            return self.weight_end + (base - self.weight_end) * (1 + math.cos(math.pi * p)) / 2
        return (base - self.weight_end) * math.pow(1 - p, self.power) + self.weight_end

    def check(self, where: str, field: str) -> None:
        """Refuse a cutoff that ends the loss before its warm-up does."""
        if self.cutoff_step and self.cutoff_step <= self.warmup_steps:
            raise FieldError(
                where,
                f"{field}.cutoff_step",
                self.cutoff_step,
                f"the cutoff comes before the warm-up of {self.warmup_steps} steps ends",
                f"Set it above {self.warmup_steps}, or to 0 for none.",
            )


class SimilarityCutoff(MethodSettings):
    """Stop aligning once student and teacher agree: when the running mean of the score passes a threshold.

    The running mean is an exponential one over steps and is acted on at the log interval. ``permanent`` keeps the loss
    off; otherwise the score is still measured every ``probe_steps`` and the loss comes back when the mean falls.
    """

    threshold: float = Field(ge=-1.0, le=1.0)
    decay: float = Field(default=0.99, ge=0.0, lt=1.0)
    permanent: bool = True
    probe_steps: int = Field(default=50, ge=1)
