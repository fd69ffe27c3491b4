"""Methods at one timestep per sample: the plain loss, plus a weighted one on hidden states of the same forward."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_bench.flow import per_sample_shape
from selfflow_bench.hidden_states import captured_output
from selfflow_bench.methods.base import Batch, Method, MethodSettings, Metrics, Situation, StepResult
from selfflow_bench.methods.parts.blocks import check_block, check_deeper


class AlignmentSettings(MethodSettings):
    """The weight of a loss on hidden states, and the student's block (from 1)."""

    student_block: int
    weight: float = Field(ge=0.0)


class DeeperTargetSettings(AlignmentSettings):
    """A target from a deeper block of the same architecture."""

    teacher_block: int


class HomogeneousAlignment(Method):
    """A plain step, with the hidden tokens of some blocks handed to `auxiliary_loss`. At weight 0 it is vanilla."""

    settings: Any

    @classmethod
    def check(cls, settings: Any, situation: Situation) -> None:
        """The blocks must lie in the model, a teacher's behind the student's. Raises FieldError."""
        check_block(situation, "student_block", settings.student_block)
        if isinstance(settings, DeeperTargetSettings):
            check_deeper(situation, settings.student_block, settings.teacher_block)

    def blocks_read(self) -> Sequence[int]:
        """The blocks whose tokens the loss needs, from 1."""
        return (self.settings.student_block,)

    @abstractmethod
    def auxiliary_loss(
        self, hidden: Sequence[Tensor], heads: nn.ModuleDict, teacher: nn.Module, batch: Batch
    ) -> tuple[Tensor, Metrics]:
        """The unweighted loss, and what to log of it.

        Args:
            hidden: target tokens ``[B, N, D]`` after each of `blocks_read`, with gradients.
            heads: what `heads` made.
            teacher: the EMA of the transformer.
            batch: this step's data.
        """

    def step(
        self, transformer: nn.Module, heads: nn.ModuleDict, teacher: nn.Module, batch: Batch, step: int
    ) -> StepResult:
        """``generative + weight * auxiliary``."""
        weight = self.settings.weight
        blocks = self.family.blocks(transformer)
        with ExitStack() as stack:
            read = self.blocks_read() if weight else ()
            outputs = [stack.enter_context(captured_output(blocks[block - 1])) for block in read]
            noisy, predicted = homogeneous_prediction(self, transformer, batch)
        generative = F.mse_loss(predicted.float(), self.family.noising.target(batch.latents, batch.noise))
        metrics: Metrics = {"loss_generative": generative.detach()}
        if not weight:
            return StepResult(generative, metrics)
        hidden = [self.family.hidden_tokens(output[0], noisy, batch.conditions) for output in outputs]
        auxiliary, more = self.auxiliary_loss(hidden, heads, teacher, batch)
        return StepResult(
            generative + weight * auxiliary,
            {**metrics, "loss_alignment": auxiliary.detach(), "alignment_weight": weight, **more},
        )


def homogeneous_prediction(method: Method, transformer: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Latents noised to the batch's first sigma, and the prediction there."""
    noisy = method.family.noising.noised(batch.latents, batch.noise, per_sample_shape(batch.first, batch.latents))
    return noisy, method.family.predict(transformer, noisy, batch.first, batch.conditions)
