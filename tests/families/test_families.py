"""What every family must get right at its border: hidden states, teacher exit, sign, clock, sampling."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.evaluation.sampling import Sampler, sample
from selfflow_bench.families.base import Family
from selfflow_bench.flow import per_sample_shape
from selfflow_bench.hidden_states import captured_output, output_of_block
from selfflow_bench.methods.self_flow import SelfFlow, SelfFlowSettings
from tests.conftest import Tiny, token_mask


def test_hidden_states_are_exactly_the_target_tokens(tiny_family: Tiny) -> None:
    """The states have one row per token, and each row moves with its own patch (before mixing: after block 1)."""
    batch, family = tiny_family.batch(size=1), tiny_family.family
    block = family.blocks(tiny_family.transformer)[0]

    def states(latents: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            output = output_of_block(
                block, lambda: family.predict(tiny_family.transformer, latents, batch.first, batch.conditions)
            )
        return family.hidden_tokens(output, latents, batch.conditions)

    base = states(batch.latents)
    assert base.shape[:2] == (1, tiny_family.aligned)
    for token in range(tiny_family.aligned):
        one = torch.zeros(1, tiny_family.tokens)
        one[0, token] = 3.0
        change = (states(batch.latents + family.spread(one, tiny_family.latent_shape)) - base).norm(dim=-1)[0]
        assert int(change.argmax()) == token


def test_every_block_exits_early_with_the_same_bits(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    ran: list[int] = []
    blocks = family.blocks(tiny_family.transformer)
    handles = [
        block.register_forward_hook(lambda *_args, index=index: ran.append(index)) for index, block in enumerate(blocks)
    ]
    try:
        for index, block in enumerate(blocks):

            def forward() -> torch.Tensor:
                return family.predict(tiny_family.transformer, batch.latents, batch.first, batch.conditions)

            with torch.no_grad():
                with captured_output(block) as whole:
                    forward()
                ran.clear()
                early = output_of_block(block, forward)
            assert ran == list(range(index + 1)), "blocks behind the teacher's must not run"
            assert torch.equal(
                family.hidden_tokens(whole[0], batch.latents, batch.conditions),
                family.hidden_tokens(early, batch.latents, batch.conditions),
            )
    finally:
        for handle in handles:
            handle.remove()


def test_a_block_that_never_runs_is_an_error(tiny_family: Tiny) -> None:
    with pytest.raises(RuntimeError, match="without running"):
        output_of_block(torch.nn.Linear(1, 1), lambda: None)


def test_teacher_is_at_least_as_clean_as_every_student_token(tiny_family: Tiny) -> None:
    """Seen in the clocks the two models are really called with, after the family's conversion."""
    family = tiny_family.family
    batch = tiny_family.batch(size=4, seed=3)
    method = SelfFlow(SelfFlowSettings(mask_ratio=0.4, student_block=1, teacher_block=2), family, steps=10)
    student = method.sigma(batch)
    assert isinstance(student, TokenTimes)
    calls: list[torch.Tensor] = []
    handle = tiny_family.transformer.register_forward_pre_hook(
        lambda _module, _args, kwargs: calls.append(kwargs[tiny_family.expected.time_argument]), with_kwargs=True
    )
    try:
        method.teacher_tokens(tiny_family.transformer, batch)
    finally:
        handle.remove()
    teacher_time, student_time = calls[0], family.model_time(student.per_token())
    if teacher_time.ndim == 2:  # a clean reference needs a time per token, all targets' the same
        teacher_time = tiny_family.expected.target(teacher_time, tiny_family.tokens)
        assert (teacher_time == teacher_time[:, :1]).all()
        teacher_time = teacher_time[:, 0]
    assert teacher_time.shape == (4,)
    data, noise = family.model_time(torch.tensor(0.0)), family.model_time(torch.tensor(1.0))
    nearer = (teacher_time - data).abs()[:, None] <= (student_time - data).abs() + 1e-4
    assert nearer.all()
    assert data != noise


def test_alignment_of_every_token_reaches_the_student(tiny_family: Tiny) -> None:
    """The gradient of each single token's alignment term is non-zero in the student, and zero in the teacher."""
    batch, family = tiny_family.batch(size=2), tiny_family.family
    method = SelfFlow(SelfFlowSettings(mask_ratio=0.4, student_block=1, teacher_block=2), family, steps=10)
    times = TokenTimes.mixed(batch.first, batch.second, token_mask(batch.mask_draw))
    block = family.blocks(tiny_family.transformer)[0]
    with captured_output(block) as outputs:
        family.predict(tiny_family.transformer, batch.latents, times, batch.conditions)
    target = method.teacher_tokens(tiny_family.transformer, batch)
    assert not target.requires_grad
    cosine = torch.nn.functional.cosine_similarity(
        family.hidden_tokens(outputs[0], batch.latents, batch.conditions), target, dim=-1
    )
    assert cosine.shape == (2, tiny_family.aligned)
    weight = next(value for value in block.parameters() if value.ndim == 2)
    for token in range(tiny_family.aligned):
        (gradient,) = torch.autograd.grad(cosine[0, token], weight, retain_graph=True)
        assert gradient.abs().max() > 0, token


def test_sign_and_clock(tiny_family: Tiny) -> None:
    """What the class is trained to put out becomes the suite's target, and one step from any sigma finds the data."""
    family, batch, expected = tiny_family.family, tiny_family.batch(), tiny_family.expected
    torch.testing.assert_close(family.model_time(batch.first), expected.clock(batch.first))
    sigma = per_sample_shape(batch.first, batch.latents)
    noisy = family.noising.noised(batch.latents, batch.noise, sigma)
    predicted = family.prediction(expected.raw(batch.latents, batch.noise), noisy)
    torch.testing.assert_close(predicted, family.noising.target(batch.latents, batch.noise))
    torch.testing.assert_close(family.noising.data(noisy, predicted, sigma), batch.latents, rtol=1e-4, atol=1e-3)


def test_the_familys_scheduler_ends_at_the_data(tiny_family: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a predictor that knows the data, sampling from noise with diffusers' own scheduler finds them."""
    batch = tiny_family.batch(size=2)
    family = copy.copy(tiny_family.family)

    def predict(_model, latents, sigma, _conditions) -> torch.Tensor:
        level = per_sample_shape(sigma, latents).clamp_min(1e-6)
        # The noise that leads from the data to these latents, whatever the family's noising is.
        per_noise = family.noising.noised(torch.zeros(()), torch.ones(()), level)
        noise = (latents - family.noising.noised(batch.latents, torch.zeros(()), level)) / per_noise
        return family.noising.target(batch.latents, noise)

    monkeypatch.setattr(family, "predict", predict)
    made = sample(
        family,
        tiny_family.transformer,
        batch.conditions,
        {},
        tiny_family.latent_shape,
        ordinary(family, steps=20),
        samples=range(2),
        seed=1,
    )
    torch.testing.assert_close(made, batch.latents, rtol=0, atol=0.02)


def test_samples_do_not_depend_on_the_batch_they_are_made_in(tiny_family: Tiny) -> None:
    batch = tiny_family.batch(size=4)

    def made(rows: range) -> torch.Tensor:
        conditions = {name: value[rows.start : rows.stop] for name, value in batch.conditions.items()}
        family, shape = tiny_family.family, tiny_family.latent_shape
        sampler = ordinary(family, steps=3)
        return sample(family, tiny_family.transformer, conditions, {}, shape, sampler, samples=rows, seed=5)

    together, apart = made(range(4)), torch.cat([made(range(2)), made(range(2, 4))])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-4)


def test_the_scheduler_never_computes_in_bfloat16(tiny_family: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    family, batch, seen = copy.copy(tiny_family.family), tiny_family.batch(size=1), []

    def predict(_model, latents, _sigma, _conditions) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return latents

    monkeypatch.setattr(family, "predict", predict)

    class Watched(Sampler):
        def __init__(self) -> None:
            scheduler = ordinary(family, steps=3).schedule()
            step = scheduler.step

            def watched(*args: Any, **kwargs: Any) -> Any:
                assert not torch.is_autocast_enabled("cpu")
                return step(*args, **kwargs)

            scheduler.step = watched
            super().__init__(lambda: scheduler)

    sample(
        family, tiny_family.transformer, batch.conditions, {}, tiny_family.latent_shape, Watched(),
        samples=range(1), seed=5, bfloat16=True,
    )  # fmt: skip
    assert seen
    assert all(seen)


def ordinary(family: Family, steps: int) -> Sampler:
    """The family's own scheduler, without guidance."""

    def schedule() -> Any:
        scheduler = family.scheduler(1.0)
        scheduler.set_timesteps(steps)
        return scheduler

    return Sampler(schedule)
