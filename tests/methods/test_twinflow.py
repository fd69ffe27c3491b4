"""TwinFlow's target written out as published, its fixed points, its negative-time branch, what it refuses."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from selfflow_bench.errors import FieldError
from selfflow_bench.flow import per_sample_shape
from selfflow_bench.methods.base import Batch, Situation
from selfflow_bench.methods.twinflow import TwinFlow, TwinFlowSettings
from tests.conftest import Tiny
from tests.methods.of_recipes import made

SITUATION = Situation(
    where="recipes/x/v1.toml", family="sana", modality="image", depth=6, steps=100, ema=True, method="twinflow"
)


def double(case: Tiny) -> Tiny:
    return replace(case, transformer=copy.deepcopy(case.transformer).double())


def double_batch(batch: Batch) -> Batch:
    def cast(value: Tensor) -> Tensor:
        return value.double() if value.is_floating_point() else value

    names = ("latents", "noise", "first", "second", "mask_draw", "uniforms", "noises")
    changed = {name: cast(value) for name in names if (value := getattr(batch, name)) is not None}
    texts = {
        name: {key: cast(value) for key, value in getattr(batch, name).items()}
        for name in ("conditions", "unconditional")
    }
    return replace(batch, **changed, **texts)


def teacher_of(case: Tiny) -> torch.nn.Module:
    teacher = copy.deepcopy(case.transformer)
    with torch.no_grad():
        for value in teacher.parameters():
            value.mul_(1.05)
    return teacher


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_documented_target_is_the_written_out_walk(tiny: Callable[[str], Tiny], order: int) -> None:
    """With data and noise estimated at each point and mixed again, as the formulas are published."""
    case = double(tiny("sana"))
    teacher = teacher_of(case)
    method, heads = made(case, "twinflow", "sana", order=order, delta=0.05)
    batch = double_batch(case.batch(needs=method.needs))
    result = method.step(case.transformer, heads, teacher, batch, step=3)

    def model(network: torch.nn.Module, x: Tensor, t: Tensor, empty: bool = False) -> Tensor:
        with torch.no_grad():
            return case.family.predict(network, x, t, batch.unconditional if empty else batch.conditions)

    def wide(t: Tensor) -> Tensor:
        return per_sample_shape(t, batch.latents)

    sigma = batch.first
    assert batch.uniforms is not None
    tt = sigma * batch.uniforms[:, 0]
    x = (1 - wide(sigma)) * batch.latents + wide(sigma) * batch.noise
    v = batch.noise - batch.latents
    enhanced = v + 0.5 * (model(teacher, x, sigma) - model(teacher, x, sigma, empty=True))
    anchor = torch.maximum(tt, sigma - 0.05)
    times = [(k / order) * anchor + (1 - k / order) * sigma for k in range(order)] + [tt]
    point, moved = x, torch.zeros_like(x)
    for t, then in pairwise(times):
        f = model(teacher, point, t)
        data, noise = point - wide(t) * f, point + (1 - wide(t)) * f
        moved = moved + f * (wide(t) - wide(then))
        point = wide(then) * noise + (1 - wide(then)) * data
    student = model(case.transformer, x, sigma)
    target = student - (student - moved - enhanced).clamp(-1.0, 1.0)
    # The method takes predictions to float32.
    for name, wanted in (("loss_base", target), ("loss_real", enhanced), ("loss_generative", v)):
        expected = F.mse_loss(student, wanted)
        torch.testing.assert_close(result.metrics[name], expected, rtol=1e-5, atol=1e-7, check_dtype=False)


class ConstantVelocity(torch.nn.Module):
    """A network whose velocity is everywhere the same: every trajectory is a straight line."""

    def __init__(self, velocity: Tensor) -> None:
        super().__init__()
        self.velocity = velocity


def constant_case(tiny: Callable[[str], Tiny], label: str) -> tuple[TwinFlow, Batch, Tensor]:
    case = tiny("sana")
    method, _ = made(case, label, "sana", enhanced_ratio=0.0)
    family = copy.copy(case.family)
    family.predict = lambda network, x, sigma, conditions: network.velocity  # type: ignore[method-assign,assignment]
    method.family = family
    batch = case.batch(needs=method.needs)
    assert isinstance(method, TwinFlow)
    return method, batch, 0.3 * torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))


def test_the_published_codes_target_keeps_a_constant_velocity(tiny: Callable[[str], Tiny]) -> None:
    """A student with the data's velocity on straight lines is right for any target time, and is left alone."""
    method, batch, velocity = constant_case(tiny, "twinflow.difference_quotient")
    teacher = ConstantVelocity(velocity)
    target = method.target(velocity, velocity, velocity, teacher, torch.zeros_like(velocity), batch)
    torch.testing.assert_close(target, velocity, rtol=0, atol=2e-4)  # a difference over delta = 0.01 in float32


def test_the_documented_target_moves_even_a_right_velocity(tiny: Callable[[str], Tiny]) -> None:
    """What trainers document adds the displacement to the velocity: kept as documented, and shown for what it is."""
    method, batch, velocity = constant_case(tiny, "twinflow")
    assert batch.uniforms is not None
    teacher = ConstantVelocity(velocity)
    target = method.target(velocity, velocity, velocity, teacher, torch.zeros_like(velocity), batch)
    displacement = per_sample_shape(batch.first * (1 - batch.uniforms[:, 0]), velocity) * velocity
    torch.testing.assert_close(target, velocity + displacement)


def test_the_target_is_never_further_than_the_clamp(tiny: Callable[[str], Tiny]) -> None:
    method, batch, velocity = constant_case(tiny, "twinflow")
    teacher = ConstantVelocity(100 * velocity)
    student = torch.zeros_like(velocity)
    target = method.target(student, 100 * velocity, velocity, teacher, student, batch)
    assert float((target - student).abs().max()) == 1.0


def test_teachers_and_targets_have_no_gradient(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("sana")
    method, heads = made(case, "twinflow.negative_time", "sana")
    student, teacher = copy.deepcopy(case.transformer), teacher_of(case)
    result = method.step(student, heads, teacher, case.batch(needs=method.needs), step=3)
    result.loss.backward()
    assert all(value.grad is None for value in teacher.parameters())
    assert bool(heads["sign"].weight.grad.any())
    assert {"loss_adversarial", "loss_rectification"} <= set(result.metrics)


def test_negative_times_start_as_positive_ones_and_change_nothing_else(tiny: Callable[[str], Tiny]) -> None:
    """The sign is zero at first, so the rectification's difference is too; and it is gone after the step."""
    case = tiny("sana")
    method, heads = made(case, "twinflow.negative_time", "sana")
    batch = case.batch(needs=method.needs)
    plain = case.family.predict(case.transformer, batch.latents, batch.first, batch.conditions)
    found = method.step(case.transformer, heads, case.transformer, batch, step=3).metrics
    assert float(found["loss_rectification"]) == pytest.approx(0.0, abs=1e-9)
    with torch.no_grad():
        heads["sign"].weight.fill_(0.5)
    changed = method.step(case.transformer, heads, case.transformer, batch, step=3).metrics
    assert float(changed["loss_rectification"]) > 1e-6
    assert float(changed["loss_adversarial"]) != float(found["loss_adversarial"])
    assert float(changed["loss_generative"]) == float(found["loss_generative"])
    again = case.family.predict(case.transformer, batch.latents, batch.first, batch.conditions)
    assert torch.equal(plain, again)


@pytest.mark.parametrize(
    ("changes", "situation", "says"),
    [
        ({}, {"methods": ("twinflow", "self_flow")}, "cannot be combined with twinflow in one run"),
        ({"adversarial_weight": 1.0}, {"time_embedding": False}, "no single time embedding"),
    ],
)
def test_start_up_refusals(changes: dict, situation: dict, says: str) -> None:
    with pytest.raises(FieldError, match=re.escape(says)):
        TwinFlow.check(TwinFlowSettings(**changes), Situation(**{**vars(SITUATION), **situation}))
