"""What the trainer needs to know about a method: its settings, what it adds to the model, and its loss.

A method sees a family only through `Family` and a step only through `Batch`. Everything it returns stays on the
device: the trainer reads metrics back at its log interval, never in the step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from selfflow_bench.families.base import Family, Modality


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
        method: the method's own name.
        time_embedding: whether the family says where its time embedding is made.
        methods: names of all methods combined in this run.
    """

    where: str
    family: str
    modality: str
    depth: int
    steps: int
    ema: bool
    method: str
    time_embedding: bool = True
    methods: tuple[str, ...] = ()


Metrics = dict[str, Tensor | float]
"""What a step logs: scalars on the device, detached, or numbers known on the host."""


@dataclass(frozen=True)
class Needs:
    """What a method takes beyond the student, its data and one noise and timestep per sample.

    Args:
        hidden_size: `Method.heads` is told the width of the hidden states, which costs a probing forward.
        ema: an EMA of the weights, as a teacher.
        encoder: the external encoder whose features of the clean media the batches carry.
        unconditional: the batches carry the empty caption's conditions too.
        time_embedding: the family says where its time embedding is made, to which a sign is added.
        uniforms: further uniform draws per sample.
        noises: further normal draws of the latents' shape per sample.
    """

    hidden_size: bool = False
    ema: bool = False
    encoder: str | None = None
    unconditional: bool = False
    time_embedding: bool = False
    uniforms: int = 0
    noises: int = 0


NOTHING_MORE = Needs()


@dataclass(frozen=True)
class Sizes:
    """What `Method.heads` builds to.

    Args:
        hidden: channels D of the hidden states; 0 where the method does not need it.
        features: shape of one item's encoder features, ``[*grid, C]``; empty without an encoder.
        time_embedding: channels of the time embedding; 0 where the method does not need it.
    """

    hidden: int = 0
    features: tuple[int, ...] = ()
    time_embedding: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """What a method sees of one step. The last four are there where the method's `Needs` ask for them.

    Args:
        latents: x0, float32 ``[B, C, *cells]``.
        noise: eps, same shape.
        first: sigma t, float32 ``[B]``: the homogeneous timestep of every method.
        second: sigma s, float32 ``[B]``: independent, same distribution, not sorted.
        mask_draw: float32 ``[B, N]`` uniform: a token is masked where it is below the method's mask ratio.
        conditions: tensors ``[B, ...]``, the condition dropout already applied.
        unconditional: the same of the empty caption.
        features: an encoder's of the clean media, float32 ``[B, *grid, C]``.
        uniforms: float32 ``[B, k]`` in [0, 1).
        noises: float32 ``[B, k, C, *cells]``.
    """

    latents: Tensor
    noise: Tensor
    first: Tensor
    second: Tensor
    mask_draw: Tensor
    conditions: Mapping[str, Tensor]
    unconditional: Mapping[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    uniforms: Tensor | None = None
    noises: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; asynchronous from pinned memory."""

        def move(value: Any) -> Any:
            if value is None or device.type == "cpu":
                return value
            if isinstance(value, Mapping):
                return {name: move(tensor) for name, tensor in value.items()}
            return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)

        return Batch(**{part.name: move(getattr(self, part.name)) for part in fields(self)})


@dataclass(frozen=True)
class StepResult:
    """A step's loss and what to log. Tensors are scalars on the device; metrics are detached."""

    loss: Tensor
    metrics: Metrics = field(default_factory=dict)


class Method(ABC):
    """One method in one run."""

    settings_class: ClassVar[type[MethodSettings]]
    summary: ClassVar[str]
    modalities: ClassVar[tuple[Modality, ...]] = ("image", "video", "audio")
    few_steps: ClassVar[tuple[int, ...]] = ()
    """Sampler steps at which its models are evaluated beside the protocol's own number."""

    def __init__(self, settings: Any, family: Family, steps: int) -> None:
        self.settings, self.family, self.steps = settings, family, steps

    @classmethod
    def unsupported(cls, family: type[Family]) -> tuple[str, str] | None:
        """Why the method cannot be used with a family, and what would work; None where it can."""
        if family.modality in cls.modalities:
            return None
        works = " and ".join(cls.modalities)
        return f"is for {works}, and the family makes {family.modality}", f"Use it with a family that makes {works}."

    @classmethod
    def check(cls, settings: Any, situation: Situation) -> None:
        """Refuse, with a FieldError, settings that this run cannot honour."""

    @property
    def needs(self) -> Needs:
        """What the trainer must provide, under these settings."""
        return NOTHING_MORE

    def heads(self, sizes: Sizes) -> nn.ModuleDict:
        """Trainable parts that are no part of the exported transformer (projectors). Called under the init seed."""
        return nn.ModuleDict()

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
