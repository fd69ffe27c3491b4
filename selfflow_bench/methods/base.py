"""What the trainer needs to know about a method: its settings, what it adds to the model, and its loss.

A method sees a family only through `Family` and a step only through `Batch`. Everything it returns stays on the
device: the trainer reads metrics back at its log interval, never in the step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from selfflow_bench.families.base import Family


class MethodSettings(BaseModel):
    """A method's settings: strict and frozen. Subclasses add fields with the documented defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Situation:
    """What a run offers a method, for the start-up checks.

    Args:
        where: the recipe file, for messages.
        family: the family's name.
        modality: image, video or audio.
        depth: the transformer's number of blocks.
        steps: optimizer steps of the run.
        ema: whether an EMA of the weights is kept.
        methods: names of all methods combined in this run.
    """

    where: str
    family: str
    modality: str
    depth: int
    steps: int
    ema: bool
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """What a method sees of one step.

    Args:
        latents: x0, float32 ``[B, C, *cells]``.
        noise: eps, same shape.
        first: sigma t, float32 ``[B]``: the homogeneous timestep of every method.
        second: sigma s, float32 ``[B]``: independent, same distribution, not sorted.
        mask_draw: float32 ``[B, N]`` uniform: a token is masked where it is below the method's mask ratio.
        conditions: tensors ``[B, ...]``, the condition dropout already applied.
    """

    latents: Tensor
    noise: Tensor
    first: Tensor
    second: Tensor
    mask_draw: Tensor
    conditions: Mapping[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; asynchronous from pinned memory."""

        def move(value: Tensor) -> Tensor:
            if device.type == "cpu":
                return value
            return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)

        return Batch(
            move(self.latents),
            move(self.noise),
            move(self.first),
            move(self.second),
            move(self.mask_draw),
            {name: move(value) for name, value in self.conditions.items()},
        )


@dataclass(frozen=True)
class StepResult:
    """A step's loss and what to log. Tensors are scalars on the device; metrics are detached."""

    loss: Tensor
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)


class Method(ABC):
    """One method in one run."""

    settings_class: ClassVar[type[MethodSettings]]
    summary: ClassVar[str]

    def __init__(self, settings: Any, family: Family, steps: int) -> None:
        self.settings, self.family, self.steps = settings, family, steps

    @classmethod
    def check(cls, settings: Any, situation: Situation) -> None:
        """Refuse, with a FieldError, settings that this run cannot honour."""

    def heads(self, hidden_size: int) -> nn.ModuleDict:
        """Trainable parts that are no part of the exported transformer (projectors). Called under the init seed."""
        return nn.ModuleDict()

    @property
    def needs_hidden_size(self) -> bool:
        """Whether `heads` needs the hidden size, which costs a probing forward."""
        return False

    @abstractmethod
    def step(
        self, transformer: nn.Module, heads: nn.ModuleDict, teacher: nn.Module, batch: Batch, step: int
    ) -> StepResult:
        """The loss of one optimizer step.

        Args:
            transformer: the student.
            heads: what `heads` made.
            teacher: the EMA of the transformer; never gets gradients.
            batch: this step's data.
            step: optimizer steps done before this one.
        """

    def observe(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Logged rows since the last call, on the host, in order: for settings that depend on measured scores."""

    def decide(self) -> None:
        """Act on what was observed. Called at the log interval only, so that an interruption changes nothing."""

    def state(self) -> dict[str, Any]:
        """What `observe` has learnt, JSON-able, for the checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
