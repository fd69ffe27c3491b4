"""Self-Flow (arXiv 2603.06507): two timesteps per sample spread over the tokens, aligned to a cleaner EMA teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_bench.conditioning import ContextTime, TokenTimes
from selfflow_bench.errors import FieldError
from selfflow_bench.flow import per_sample_shape
from selfflow_bench.hidden_states import captured_output, output_of_block
from selfflow_bench.methods.base import (
    Batch,
    Method,
    MethodSettings,
    Metrics,
    Needs,
    Situation,
    Sizes,
    StepResult,
)
from selfflow_bench.methods.parts.alignment import mean_cosine, neighbour_terms, score, unit
from selfflow_bench.methods.parts.blocks import check_block, check_deeper
from selfflow_bench.methods.parts.projector import ProjectorKind, projector
from selfflow_bench.methods.parts.schedule import SimilarityCutoff, WeightSchedule

MODALITY_MASK_RATIO = {"image": 0.25, "video": 0.10, "audio": 0.50}
"""The documented mask ratio of each modality, which is also the paper's."""


class SelfFlowSettings(MethodSettings):
    """Documented defaults; a recipe states the mask ratio and blocks, which have none.

    ``mask_ratio`` is the share of tokens that take the second draw, not the share of noisier tokens. Blocks count
    from 1: hidden states after that block. ``neighbour_distance`` adds, on video, the same term against the teacher's
    frames up to that far away, weighted ``exp(-distance / neighbour_tau)``; 0 leaves it out. ``context_time`` is the
    timestep of text tokens, where a family modulates them.
    """

    mask_ratio: float
    student_block: int
    teacher_block: int | None = None
    weight: float = 0.5
    projector: ProjectorKind = "layernorm_linear"
    schedule: WeightSchedule = WeightSchedule()
    similarity_cutoff: SimilarityCutoff | None = None
    neighbour_distance: int = Field(default=0, ge=0)
    neighbour_tau: float = Field(default=1.0, gt=0.0)
    feature_source: str = "ema_teacher"
    # Left out of the digest at its default, so that it moved no earlier run's.
    context_time: ContextTime = Field(default="embedding_mean", exclude_if=lambda value: value == "embedding_mean")


class SelfFlow(Method):
    """Generative loss on mixed noise plus ``weight (1 - cos)`` to the EMA teacher's deeper, cleaner features."""

    settings_class = SelfFlowSettings
    summary = "two timesteps per sample over the tokens, aligned to a cleaner EMA teacher"

    settings: SelfFlowSettings

    def __init__(self, settings: Any, family: Any, steps: int) -> None:
        super().__init__(settings, family, steps)
        self._running_score: float | None = None
        self._similar = False

    @classmethod
    def check(cls, settings: Any, situation: Situation) -> None:
        """All start-up checks of the documented trainer. Raises FieldError."""
        _check(settings, situation)

    @property
    def needs(self) -> Needs:
        """The EMA; the hidden size, which the projector keeps."""
        return Needs(hidden_size=True, ema=True)

    def heads(self, sizes: Sizes) -> nn.ModuleDict:
        """Student and teacher are one architecture, so the projector keeps the width."""
        return nn.ModuleDict({"projector": projector(self.settings.projector, sizes.hidden, sizes.hidden)})

    def weight(self, step: int) -> float:
        """The alignment weight of a step, the similarity cutoff included."""
        if self._similar:
            return 0.0
        return self.settings.schedule.weight(self.settings.weight, step, self.steps)

    def step(
        self, transformer: nn.Module, heads: nn.ModuleDict, teacher: nn.Module, batch: Batch, step: int
    ) -> StepResult:
        """Paper section 3; the steps as numbered in the documentation's algorithm."""
        sigma = self.sigma(batch)
        noisy = self.family.noising.noised(batch.latents, batch.noise, self._per_cell(sigma, batch))
        weight = self.weight(step)
        if weight == 0:
            predicted = self.family.predict(transformer, noisy, sigma, batch.conditions)
            generative, metrics = self._generative(predicted, batch)
            metrics["alignment_weight"] = 0.0
            if self._probes(step):
                with torch.no_grad():
                    metrics["alignment_score"] = self._probe(transformer, heads, teacher, noisy, sigma, batch)
            return StepResult(generative, metrics)

        block = self.family.blocks(transformer)[self.settings.student_block - 1]
        with captured_output(block) as outputs:
            predicted = self.family.predict(transformer, noisy, sigma, batch.conditions)
        generative, metrics = self._generative(predicted, batch)
        projected = heads["projector"](self.family.hidden_tokens(outputs[0], noisy, batch.conditions))
        alignment, more = self._alignment(projected, self.teacher_tokens(teacher, batch), batch)
        return StepResult(generative + weight * alignment, {**metrics, "alignment_weight": weight, **more})

    def sigma(self, batch: Batch) -> Tensor | TokenTimes:
        """The student's noise level: per token, or plainly per sample where no token can be masked."""
        if self.settings.mask_ratio == 0:
            return batch.first
        return TokenTimes.mixed(batch.first, batch.second, self._masked(batch), self.settings.context_time)

    def teacher_tokens(self, teacher: nn.Module, batch: Batch) -> Tensor:
        """The teacher's target tokens after its block, all at the cleaner of the two sigmas: ``[B, N, D]``."""
        cleaner = torch.minimum(batch.first, batch.second)
        view = self.family.noising.noised(batch.latents, batch.noise, per_sample_shape(cleaner, batch.latents))
        block = self.family.blocks(teacher)[(self.settings.teacher_block or 0) - 1]
        with torch.no_grad():
            output = output_of_block(block, lambda: self.family.predict(teacher, view, cleaner, batch.conditions))
        return self.family.hidden_tokens(output, view, batch.conditions)

    def observe(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Follow the running mean of the alignment score."""
        cutoff = self.settings.similarity_cutoff
        if cutoff is None:
            return
        for row in rows:
            score = row.get("alignment_score")
            if score is not None:
                last = score if self._running_score is None else self._running_score
                self._running_score = cutoff.decay * last + (1 - cutoff.decay) * score

    def decide(self) -> None:
        """Switch the alignment off above the threshold; on again below it unless the cutoff is permanent."""
        cutoff = self.settings.similarity_cutoff
        if cutoff is None or self._running_score is None:
            return
        self._similar = self._running_score > cutoff.threshold or (self._similar and cutoff.permanent)

    def state(self) -> dict[str, Any]:
        """The running score and whether the alignment is off."""
        return {"running_score": self._running_score, "similar": self._similar}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        self._running_score, self._similar = state["running_score"], state["similar"]

    def _masked(self, batch: Batch) -> Tensor:
        """Which tokens take the second draw, bool ``[B, N]``."""
        return batch.mask_draw < self.settings.mask_ratio

    def _generative(self, predicted: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """The family's loss over all tokens; logged also of the tokens of each draw, and of the cleaner and noisier."""
        target = self.family.noising.target(batch.latents, batch.noise)
        loss = F.mse_loss(predicted.float(), target)
        metrics: Metrics = {"loss_generative": loss.detach()}
        if self.settings.mask_ratio == 0:
            return loss, metrics
        with torch.no_grad():
            errors = (predicted.float() - target).square().mean(1, keepdim=True)
            second = self._masked(batch)
            noisier = second == (batch.second > batch.first)[:, None]
            for name, tokens in (("base", ~second), ("second", second), ("cleaner", ~noisier), ("noisier", noisier)):
                share = self.family.spread(tokens.float(), batch.latents.shape[1:])
                # Not a number where a step has no such token: then it is not logged.
                metrics[f"loss_{name}"] = (errors * share).sum() / share.sum()
        return loss, metrics

    def _per_cell(self, sigma: Tensor | TokenTimes, batch: Batch) -> Tensor:
        if isinstance(sigma, TokenTimes):
            return self.family.spread(sigma.per_token(), batch.latents.shape[1:])
        return per_sample_shape(sigma, batch.latents)

    def _probes(self, step: int) -> bool:
        """Whether an alignment that is off for now measures its score at this step."""
        cutoff = self.settings.similarity_cutoff
        return self._similar and cutoff is not None and not cutoff.permanent and step % cutoff.probe_steps == 0

    def _probe(
        self,
        transformer: nn.Module,
        heads: nn.ModuleDict,
        teacher: nn.Module,
        noisy: Tensor,
        sigma: Tensor | TokenTimes,
        batch: Batch,
    ) -> Tensor | float:
        block = self.family.blocks(transformer)[self.settings.student_block - 1]
        output = output_of_block(block, lambda: self.family.predict(transformer, noisy, sigma, batch.conditions))
        projected = heads["projector"](self.family.hidden_tokens(output, noisy, batch.conditions))
        return self._alignment(projected, self.teacher_tokens(teacher, batch), batch)[1]["alignment_score"]

    def _alignment(self, projected: Tensor, target: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean of ``1 - cos`` over all target tokens, plus the neighbouring frames' terms on video."""
        student, target = unit(projected), unit(target)
        own = mean_cosine(student, target)
        loss = 1 - own
        metrics: Metrics = {"alignment_score": score(own)}
        if self.settings.neighbour_distance:
            frames = self.family.aligned_grid(batch.latents.shape[1:])[0]
            neighbours, cosine = neighbour_terms(
                student, target, frames, self.settings.neighbour_distance, self.settings.neighbour_tau
            )
            loss = loss + neighbours
            metrics["neighbour_score"] = score(cosine)
        metrics["loss_alignment"] = loss.detach()
        return loss, metrics


def _check(settings: SelfFlowSettings, situation: Situation) -> None:
    where, table = situation.where, "methods.self_flow"

    def refuse(field: str, value: object, problem: str, remedy: str) -> FieldError:
        return FieldError(where, f"{table}.{field}", value, problem, remedy)

    if not 0.0 <= settings.mask_ratio <= 0.5:
        documented = MODALITY_MASK_RATIO[situation.modality]
        raise refuse(
            "mask_ratio",
            settings.mask_ratio,
            "outside [0.0, 0.5]",
            f"Set the documented {documented} of {situation.modality}, or another value up to 0.5.",
        )
    if not situation.ema:
        raise FieldError(where, "ema", None, "Self-Flow's teacher is the EMA of the student", "Enable the EMA.")
    if settings.teacher_block is None:
        raise refuse(
            "teacher_block",
            None,
            "unset, and it has no default",
            f"Set a block deeper than the student's {settings.student_block}, at about 2/3 of {situation.depth}.",
        )
    check_block(situation, "student_block", settings.student_block)
    check_deeper(situation, settings.student_block, settings.teacher_block)
    if settings.neighbour_distance and situation.modality != "video":
        raise refuse(
            "neighbour_distance",
            settings.neighbour_distance,
            f"{situation.modality} has no neighbouring frames",
            "Set 0, or use a video family.",
        )
    if settings.weight < 0:
        raise refuse("weight", settings.weight, "negative", "Set 0 for no alignment, or the documented 0.5.")
    if settings.feature_source != "ema_teacher":
        same_pass = settings.feature_source == "backbone"
        raise refuse(
            "feature_source",
            settings.feature_source,
            "features of the same pass are not Self-Flow" if same_pass else "unknown feature source",
            "The one allowed value is 'ema_teacher'.",
        )
    others = [name for name in situation.methods if name not in ("self_flow", "vanilla")]
    if others:
        raise FieldError(where, "methods", others, "cannot be combined with self_flow in one run", "Run them apart.")
    settings.schedule.check(where, f"{table}.schedule")
