"""TwinFlow (arXiv 2512.05150): few-step generation by a recursive trajectory target from the EMA teacher.

What is trained here has one time, the noise level, as the families' classes do; the paper's networks also take the
target time. The paper splits a batch between its terms and reweights them; here every term is over the whole batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_bench.errors import FieldError
from selfflow_bench.families.base import Family
from selfflow_bench.flow import RectifiedFlow, per_sample_shape
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
from selfflow_bench.methods.parts.homogeneous import homogeneous_prediction
from selfflow_bench.methods.parts.negative_time import at_negative_time


class TwinFlowSettings(MethodSettings):
    """Documented defaults: order 2, delta 0.01, clamp 1, enhanced ratio 0.5; the negative-time branch is off.

    ``order`` is the number of teacher steps along the trajectory. ``enhanced_ratio`` adds so much of the teacher's
    guidance direction to the velocity; 0 leaves the unconditional branch out. ``target``: ``documented`` is
    ``F - clamp(F - A - v')`` with ``A`` the teacher's displacement from sigma to the target time, as trainers document
    it; ``difference_quotient`` is the published code's ``F - clamp(((sigma - tt) F - A) / delta - v')`` with ``A``
    from ``sigma - delta``, whose fixed point is the mean velocity. ``adversarial_weight`` and
    ``rectification_weight`` switch the negative-time branch on.
    """

    order: int = Field(default=2, ge=1)
    delta: float = Field(default=0.01, gt=0.0, lt=1.0)
    clamp: float = Field(default=1.0, gt=0.0)
    enhanced_ratio: float = Field(default=0.5, ge=0.0)
    target: Literal["documented", "difference_quotient"] = "documented"
    adversarial_weight: float = Field(default=0.0, ge=0.0)
    rectification_weight: float = Field(default=0.0, ge=0.0)

    @property
    def negative_time(self) -> bool:
        """Whether any term runs the model at negative times."""
        return self.adversarial_weight > 0 or self.rectification_weight > 0


class TwinFlow(Method):
    """The velocity's loss, and that of a target from two points of the teacher's trajectory."""

    settings_class = TwinFlowSettings
    summary = "few-step generation: a recursive trajectory target from the EMA teacher"
    few_steps = (1, 2, 4)

    settings: TwinFlowSettings

    @classmethod
    def unsupported(cls, family: type[Family]) -> tuple[str, str] | None:
        """Its trajectory is rectified flow's."""
        if not isinstance(family.noising, RectifiedFlow):
            return (
                "needs rectified flow, and the family is trained on another noise schedule",
                "Use it with a flow family, such as sana.",
            )
        return super().unsupported(family)

    @classmethod
    def check(cls, settings: TwinFlowSettings, situation: Situation) -> None:
        """Refuse combinations, and a negative-time branch without a place for its sign. Raises FieldError."""
        others = [name for name in situation.methods if name not in ("twinflow", "vanilla")]
        if others:
            raise FieldError(
                situation.where, "methods", others, "cannot be combined with twinflow in one run", "Run them apart."
            )
        if settings.negative_time and not situation.time_embedding:
            raise FieldError(
                situation.where,
                "methods.twinflow.adversarial_weight",
                settings.adversarial_weight,
                f"{situation.family} has no single time embedding for the sign of negative times",
                "Set adversarial_weight and rectification_weight to 0.",
            )

    @property
    def needs(self) -> Needs:
        """The EMA, the empty caption, a draw for the target time; for negative times two noises and the embedding."""
        negative = self.settings.negative_time
        return Needs(
            ema=True,
            unconditional=self.settings.enhanced_ratio > 0,
            time_embedding=negative,
            uniforms=1,
            noises=2 if negative else 0,
        )

    def heads(self, sizes: Sizes) -> nn.ModuleDict:
        """The sign embedding of negative times, zero at first. Positive times are the plain model's."""
        if not self.settings.negative_time:
            return nn.ModuleDict()
        sign = nn.Embedding(1, sizes.time_embedding)
        nn.init.zeros_(sign.weight)
        return nn.ModuleDict({"sign": sign})

    def step(
        self, transformer: nn.Module, heads: nn.ModuleDict, teacher: nn.Module, batch: Batch, step: int
    ) -> StepResult:
        """``MSE(F, target) + MSE(F, v')`` and, where on, the negative-time terms."""
        noisy, predicted = homogeneous_prediction(self, transformer, batch)
        predicted = predicted.float()
        velocity = self.family.noising.target(batch.latents, batch.noise)
        with torch.no_grad():
            taught = self._taught(teacher, noisy, batch.first, batch)
            enhanced = self._enhanced(velocity, taught, teacher, noisy, batch)
            target = self.target(predicted.detach(), taught, enhanced, teacher, noisy, batch)
        base, real = F.mse_loss(predicted, target), F.mse_loss(predicted, enhanced)
        metrics: Metrics = {
            "loss_generative": F.mse_loss(predicted.detach(), velocity),
            "loss_base": base.detach(),
            "loss_real": real.detach(),
        }
        loss = base + real
        if self.settings.negative_time:
            negative, more = self._negative_time(transformer, heads, batch)
            loss, metrics = loss + negative, {**metrics, **more}
        return StepResult(loss, metrics)

    def target(
        self, predicted: Tensor, taught: Tensor, enhanced: Tensor, teacher: nn.Module, noisy: Tensor, batch: Batch
    ) -> Tensor:
        """The student's target, without gradient.

        Args:
            predicted: F, the student's velocity at sigma, detached.
            taught: the teacher's at the same point.
            enhanced: v', the data's velocity with guidance.
            teacher: the EMA.
            noisy: x at sigma.
            batch: this step's data.
        """
        assert batch.uniforms is not None
        settings, sigma = self.settings, batch.first
        last = sigma * batch.uniforms[:, 0]
        anchor = torch.maximum(last, sigma - settings.delta)
        c = settings.clamp
        if settings.target == "documented":
            times = [sigma + (k / settings.order) * (anchor - sigma) for k in range(settings.order)] + [last]
            moved = self._displacement(teacher, noisy, times, batch, first=taught)
            return predicted - (predicted - moved - enhanced).clamp(-c, c)
        gap = per_sample_shape((sigma - anchor).clamp_min(torch.finfo(torch.float32).tiny), noisy)
        times = [anchor + (k / settings.order) * (last - anchor) for k in range(settings.order + 1)]
        moved = self._displacement(teacher, noisy - gap * enhanced, times, batch)
        whole = per_sample_shape(sigma - last, noisy) * predicted - moved
        return predicted - (whole / gap - enhanced).clamp(-c, c)

    def _displacement(
        self, teacher: nn.Module, x: Tensor, times: list[Tensor], batch: Batch, first: Tensor | None = None
    ) -> Tensor:
        """``sum F (t - t')`` along the teacher's walk over the times; ``first`` is its velocity at the first, if known.

        A step from t to t' with velocity F is ``t' eps + (1 - t') x0`` of F's own noise and data: ``x + (t' - t) F``.
        """
        total = torch.zeros_like(x)
        for index, (now, then) in enumerate(pairwise(times)):
            velocity = first if index == 0 and first is not None else self._taught(teacher, x, now, batch)
            move = per_sample_shape(now - then, x) * velocity
            x, total = x - move, total + move
        return total

    def _taught(self, teacher: nn.Module, x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        return self.family.predict(teacher, x, sigma, batch.conditions).float()

    def _enhanced(self, velocity: Tensor, taught: Tensor, teacher: nn.Module, noisy: Tensor, batch: Batch) -> Tensor:
        """``v + r (F_ema(cond) - F_ema(uncond))``."""
        if not self.settings.enhanced_ratio:
            return velocity
        unconditional = self.family.predict(teacher, noisy, batch.first, batch.unconditional).float()
        return velocity + self.settings.enhanced_ratio * (taught - unconditional)

    def _negative_time(self, transformer: nn.Module, heads: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Metrics]:
        """The adversarial and the rectification term, on pictures that the student makes in one step from noise.

        At negative times the student learns the velocity of its own pictures; where that differs from its velocity at
        the same positive times, its one step is moved against the difference.
        """
        assert batch.noises is not None
        settings, family = self.settings, self.family
        start, noise, sigma = batch.noises[:, 0], batch.noises[:, 1], batch.second
        with torch.set_grad_enabled(settings.rectification_weight > 0):
            one_step = family.predict(transformer, start, torch.ones_like(sigma), batch.conditions).float()
        made = (start - one_step).detach()
        noisy = family.noising.noised(made, noise, per_sample_shape(sigma, made))
        sign = heads["sign"](torch.zeros((), dtype=torch.int64, device=made.device))
        with (
            torch.set_grad_enabled(settings.adversarial_weight > 0),
            at_negative_time(family.time_embedder(transformer), sign),
        ):
            fake = family.predict(transformer, noisy, sigma, batch.conditions).float()
        adversarial = F.mse_loss(fake, family.noising.target(made, noise))
        loss, metrics = settings.adversarial_weight * adversarial, {"loss_adversarial": adversarial.detach()}
        if settings.rectification_weight:
            with torch.no_grad():
                real = family.predict(transformer, noisy, sigma, batch.conditions).float()
                wanted = one_step - (fake - real).clamp(-settings.clamp, settings.clamp)
            rectification = F.mse_loss(one_step, wanted)
            loss = loss + settings.rectification_weight * rectification
            metrics["loss_rectification"] = rectification.detach()
        return loss, dict(metrics)
