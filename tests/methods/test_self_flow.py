"""Self-Flow on real tiny transformers: what is noised, what is aligned, what is refused."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.errors import FieldError
from selfflow_bench.flow import per_sample_shape
from selfflow_bench.hidden_states import captured_output
from selfflow_bench.methods.base import Situation, Sizes
from selfflow_bench.methods.parts.alignment import neighbour_terms
from selfflow_bench.methods.parts.schedule import SimilarityCutoff, WeightSchedule
from selfflow_bench.methods.self_flow import MODALITY_MASK_RATIO, SelfFlow, SelfFlowSettings
from selfflow_bench.methods.vanilla import Vanilla, VanillaSettings
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.registry import family_class
from selfflow_bench.training.ema import Ema
from tests.conftest import Tiny


def method(tiny: Tiny, **changes: object) -> tuple[SelfFlow, torch.nn.ModuleDict]:
    settings = SelfFlowSettings(**{"mask_ratio": 0.4, "student_block": 1, "teacher_block": 2, **changes})
    made = SelfFlow(settings, tiny.family, steps=100)
    batch = tiny.batch(1)
    width = tiny.family.hidden_size(tiny.transformer, tiny.latent_shape, batch.conditions)
    torch.manual_seed(7)
    return made, made.heads(Sizes(hidden=width))


def test_step_is_the_written_out_algorithm(tiny_family: Tiny) -> None:
    """The nine lines of the algorithm, written out with no help from the method."""
    batch, family = tiny_family.batch(), tiny_family.family
    student, teacher = tiny_family.transformer, copy.deepcopy(tiny_family.transformer)
    with torch.no_grad():
        for value in teacher.parameters():
            value.mul_(1.01)
    ours, heads = method(tiny_family)
    result = ours.step(student, heads, teacher, batch, step=10)

    mask = batch.mask_draw < 0.4
    sigma = torch.where(mask, batch.second[:, None], batch.first[:, None])
    cells = family.spread(sigma, tiny_family.latent_shape)
    mixed = family.noising.noised(batch.latents, batch.noise, cells)
    block, deeper = family.blocks(student)[0], family.blocks(teacher)[1]
    with captured_output(block) as low:
        predicted = family.predict(student, mixed, TokenTimes.mixed(batch.first, batch.second, mask), batch.conditions)
    cleaner = torch.minimum(batch.first, batch.second)
    each = cleaner.view(-1, *[1] * len(tiny_family.latent_shape))
    view = family.noising.noised(batch.latents, batch.noise, each)
    with torch.no_grad(), captured_output(deeper) as high:
        family.predict(teacher, view, cleaner, batch.conditions)
    generative = (predicted - family.noising.target(batch.latents, batch.noise)).square().mean()
    cosine = F.cosine_similarity(
        heads["projector"](family.hidden_tokens(low[0], mixed, batch.conditions)),
        family.hidden_tokens(high[0], view, batch.conditions),
        dim=-1,
    )
    torch.testing.assert_close(result.loss, generative + 0.5 * (1 - cosine).mean())
    groups = {"loss_base", "loss_second", "loss_cleaner", "loss_noisier"}
    logged = {"loss_generative", "loss_alignment", "alignment_score", "alignment_weight"}
    assert set(result.metrics) == logged | groups
    torch.testing.assert_close(result.metrics["alignment_score"], cosine.mean().detach())


def test_losses_of_the_groups_of_tokens_are_the_direct_sums(tiny_family: Tiny) -> None:
    """Per group, the mean over its cells; the two of each division weigh up to the whole."""
    batch, family = tiny_family.batch(), tiny_family.family
    made, heads = method(tiny_family)
    found = made.step(tiny_family.transformer, heads, tiny_family.transformer, batch, step=1).metrics
    second = batch.mask_draw < 0.4
    sigma = torch.where(second, batch.second[:, None], batch.first[:, None])
    times = TokenTimes.mixed(batch.first, batch.second, second)
    cells = family.spread(sigma, tiny_family.latent_shape)
    mixed = family.noising.noised(batch.latents, batch.noise, cells)
    with torch.no_grad():
        predicted = family.predict(tiny_family.transformer, mixed, times, batch.conditions)
    errors = (predicted - family.noising.target(batch.latents, batch.noise)).square()
    is_second = family.spread(second.float(), tiny_family.latent_shape).bool().expand_as(errors)
    larger = torch.maximum(batch.first, batch.second).view(-1, *[1] * len(tiny_family.latent_shape))
    is_noisier = (cells == larger).expand_as(errors)
    expected = {
        "loss_base": errors[~is_second].mean(),
        "loss_second": errors[is_second].mean(),
        "loss_cleaner": errors[~is_noisier].mean(),
        "loss_noisier": errors[is_noisier].mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_aligned_only_ablation_keeps_the_cleaner_teacher(tiny_family: Tiny) -> None:
    """Without a mask the student is homogeneous, and its teacher still sees the cleaner of the two timesteps."""
    batch, family = tiny_family.batch(), tiny_family.family
    made, _ = method(tiny_family, mask_ratio=0.0)
    assert made.sigma(batch) is batch.first
    cleaner = torch.minimum(batch.first, batch.second)
    view = family.noising.noised(batch.latents, batch.noise, per_sample_shape(cleaner, batch.latents))
    block = family.blocks(tiny_family.transformer)[1]
    with torch.no_grad(), captured_output(block) as outputs:
        family.predict(tiny_family.transformer, view, cleaner, batch.conditions)
    expected = family.hidden_tokens(outputs[0], view, batch.conditions)
    torch.testing.assert_close(made.teacher_tokens(tiny_family.transformer, batch), expected)


def test_null_ablation_is_vanilla_bit_for_bit(tiny_family: Tiny) -> None:
    batch = tiny_family.batch()
    gradients = []
    for made, heads in (
        (Vanilla(VanillaSettings(), tiny_family.family, 100), torch.nn.ModuleDict()),
        method(tiny_family, mask_ratio=0.0, weight=0.0),
    ):
        model = copy.deepcopy(tiny_family.transformer)
        loss = made.step(model, heads, _NeverCalled(), batch, step=3).loss
        loss.backward()
        gradients.append([loss, *(value.grad for value in model.parameters() if value.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


class _NeverCalled(torch.nn.Module):
    def forward(self, *_args: object, **_kwargs: object) -> None:
        raise AssertionError("a teacher ran although its weight is 0")


@pytest.mark.parametrize("schedule", [WeightSchedule(warmup_steps=5), WeightSchedule(cutoff_step=3)])
def test_no_teacher_while_the_weight_is_zero(tiny_family: Tiny, schedule: WeightSchedule) -> None:
    made, heads = method(tiny_family, schedule=schedule)
    zero_step, other_step = (0, 5) if schedule.warmup_steps else (3, 2)
    teacher, calls = copy.deepcopy(tiny_family.transformer), []
    teacher.register_forward_pre_hook(lambda *_: calls.append(1))
    result = made.step(tiny_family.transformer, heads, teacher, tiny_family.batch(), step=zero_step)
    assert result.metrics["alignment_weight"] == 0.0
    assert not calls
    made.step(tiny_family.transformer, heads, teacher, tiny_family.batch(), step=other_step)
    assert calls == [1]


def test_teacher_and_projector_gradients(tiny_family: Tiny) -> None:
    made, heads = method(tiny_family)
    student = copy.deepcopy(tiny_family.transformer)
    teacher = copy.deepcopy(tiny_family.transformer)
    made.step(student, heads, teacher, tiny_family.batch(), step=1).loss.backward()
    assert all(value.grad is None for value in teacher.parameters())
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in heads.parameters())


def test_ema_equals_the_student_at_first_and_differs_after_two_steps(tiny_family: Tiny) -> None:
    student = copy.deepcopy(tiny_family.transformer).train()
    ema = Ema(student, decay=0.9)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), ema.model.parameters(), strict=True))
    before = [value.clone() for value in student.parameters()]
    made, heads = method(tiny_family)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    expected = [value.clone() for value in before]
    for step in range(2):
        optimizer.zero_grad()
        made.step(student, heads, ema.model, tiny_family.batch(seed=step), step=step + 1).loss.backward()
        optimizer.step()
        ema.update()
        expected = [e + 0.1 * (p.detach() - e) for e, p in zip(expected, student.parameters(), strict=True)]
    assert any(not torch.equal(a, b) for a, b in zip(student.parameters(), ema.model.parameters(), strict=True))
    for shadow, value in zip(ema.model.parameters(), expected, strict=True):
        assert shadow.dtype == torch.float32
        torch.testing.assert_close(shadow, value, rtol=0, atol=1e-6)


def test_ema_shadow_is_float32_whatever_the_weights_are() -> None:
    source = torch.nn.Linear(2, 2).to(torch.bfloat16)
    ema = Ema(source, decay=0.9999)
    with torch.no_grad():
        source.weight.add_(1.0)
    ema.update()
    shadow = next(iter(ema.model.parameters()))
    assert shadow.dtype == torch.float32
    assert (shadow != source.weight.float() - 1.0).any(), "an update below bf16's resolution must not be lost"


def test_mask_ratio_is_the_share_of_second_draws_not_of_noisier_tokens(tiny: Callable[[str], Tiny]) -> None:
    sana = tiny("sana")
    made, _ = method(sana, mask_ratio=0.25)
    batch = sana.batch(size=400)
    times = made.sigma(batch)
    assert isinstance(times, TokenTimes)
    share = (times.level == 1).float().mean()
    assert abs(float(share) - 0.25) < 0.01
    noisier = (times.per_token() > torch.minimum(batch.first, batch.second)[:, None]).float().mean()
    assert abs(float(noisier) - 0.5) < 0.05, "either draw is the noisier one half of the time"


def test_neighbour_terms_are_the_direct_formula() -> None:
    source = torch.Generator().manual_seed(0)
    student, teacher = (
        F.normalize(torch.randn(2, 12, 5, generator=source, dtype=torch.float64), dim=-1) for _ in range(2)
    )
    frames, places, total = 4, 3, 0.0
    for sample in range(2):
        for frame in range(frames):
            for place in range(places):
                for distance in (1, 2):
                    for other in (frame - distance, frame + distance):
                        if 0 <= other < frames:
                            cosine = student[sample, frame * places + place] @ teacher[sample, other * places + place]
                            total += math.exp(-distance / 1.5) * (1 - float(cosine)) / frames / places / 2
    ours, score = neighbour_terms(student, teacher, frames, 2, 1.5)
    assert float(ours) == pytest.approx(total, abs=1e-12)
    assert -1 <= float(score) <= 1


def test_similarity_cutoff_stops_and_comes_back(tiny: Callable[[str], Tiny]) -> None:
    sana = tiny("sana")
    for permanent in (True, False):
        cutoff = SimilarityCutoff(threshold=0.5, decay=0.0, permanent=permanent, probe_steps=2)
        made, heads = method(sana, similarity_cutoff=cutoff)
        made.observe([{"alignment_score": 0.9}])
        assert made.weight(0) == 0.5, "acted on at the log interval only"
        made.decide()
        assert made.weight(0) == 0.0
        restored, _ = method(sana, similarity_cutoff=cutoff)
        restored.load_state(made.state())
        assert restored.weight(0) == 0.0
        teacher = _NeverCalled() if permanent else sana.transformer
        result = made.step(sana.transformer, heads, teacher, sana.batch(), step=2)
        assert ("alignment_score" in result.metrics) is not permanent
        made.observe([{"alignment_score": 0.1}])
        made.decide()
        assert made.weight(0) == (0.0 if permanent else 0.5)


SITUATION = Situation(
    where="recipes/x/v1.toml", family="sana", modality="image", depth=6, steps=100, ema=True, method="self_flow"
)


@pytest.mark.parametrize(
    ("changes", "situation", "field", "says"),
    [
        ({"teacher_block": None}, {}, "teacher_block", "unset"),
        ({"teacher_block": 2}, {}, "teacher_block", "not deeper"),
        ({"teacher_block": 1}, {}, "teacher_block", "not deeper"),
        ({"teacher_block": 7}, {}, "teacher_block", "outside the model"),
        ({"student_block": 0}, {}, "student_block", "outside the model"),
        ({"mask_ratio": 0.51}, {}, "mask_ratio", "documented 0.25"),
        ({"mask_ratio": -0.1}, {}, "mask_ratio", "outside [0.0, 0.5]"),
        ({"weight": -0.5}, {}, "weight", "negative"),
        ({"feature_source": "backbone"}, {}, "feature_source", "same pass"),
        ({"feature_source": "dino"}, {}, "feature_source", "unknown feature source"),
        ({"schedule": WeightSchedule(warmup_steps=10, cutoff_step=10)}, {}, "schedule.cutoff_step", "warm-up"),
        ({}, {"ema": False}, "ema", "Enable the EMA"),
        ({"neighbour_distance": 1}, {}, "neighbour_distance", "no neighbouring frames"),
        ({}, {"methods": ("self_flow", "twinflow")}, "methods", "cannot be combined"),
    ],
)
def test_start_up_refusals(changes: dict, situation: dict, field: str, says: str) -> None:
    settings = SelfFlowSettings(**{"mask_ratio": 0.25, "student_block": 2, "teacher_block": 4, **changes})
    with pytest.raises(FieldError, match=re.escape("recipes/x/v1.toml")) as refused:
        SelfFlow.check(settings, Situation(**{**vars(SITUATION), **situation}))
    assert field in refused.value.field
    assert says in str(refused.value)


def test_valid_settings_are_not_refused() -> None:
    for ratio in (0.0, 0.5):
        SelfFlow.check(SelfFlowSettings(mask_ratio=ratio, student_block=2, teacher_block=4), SITUATION)


@given(
    kind=st.sampled_from(["constant", "linear", "cosine", "polynomial"]),
    warmup=st.integers(0, 20),
    step=st.integers(0, 120),
    base=st.floats(0, 2),
    end=st.floats(0, 2),
)
def test_schedules_stay_between_their_ends(kind: str, warmup: int, step: int, base: float, end: float) -> None:
    schedule = WeightSchedule(kind=kind, warmup_steps=warmup, weight_end=end, power=2.0)
    weight = schedule.weight(base, step, 100)
    low, high = (0.0 if step < warmup else min(base, end), max(base, end))
    assert low - 1e-9 <= weight <= high + 1e-9


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (WeightSchedule(), [0.5, 0.5, 0.5, 0.5]),
        (WeightSchedule(warmup_steps=50), [0.0, 0.25, 0.5, 0.5]),
        (WeightSchedule(kind="linear", weight_end=0.1), [0.5, 0.4, 0.3, 0.1]),
        (WeightSchedule(kind="cosine"), [0.5, 0.25 * (1 + math.cos(math.pi / 4)), 0.25, 0.0]),
        (WeightSchedule(kind="polynomial", power=2.0), [0.5, 0.5 * 0.75**2, 0.125, 0.0]),
        (WeightSchedule(kind="linear", decay_steps=50), [0.5, 0.25, 0.0, 0.0]),
        (WeightSchedule(cutoff_step=50), [0.5, 0.5, 0.0, 0.0]),
    ],
)
def test_schedule_values(schedule: WeightSchedule, expected: list[float]) -> None:
    assert [schedule.weight(0.5, step, 100) for step in (0, 25, 50, 100)] == pytest.approx(expected)


def test_documented_mask_ratios_are_in_the_recipes(family_name: str, project: Places) -> None:
    run = make_plan(project, family_name, tier="micro").runs[1]
    assert run.settings["mask_ratio"] == MODALITY_MASK_RATIO[family_class(family_name).modality]
    assert run.settings["weight"] == 0.5
    assert run.settings["projector"] == "layernorm_linear"
    paper = make_plan(project, family_name, tier="micro", labels=["self_flow.paper"]).runs[1]
    assert (paper.settings["weight"], paper.settings["projector"]) == (0.8, "mlp_silu")


def test_vanilla_ignores_the_second_draw(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    made = Vanilla(VanillaSettings(), family, 10)
    loss = made.step(tiny_family.transformer, torch.nn.ModuleDict(), _NeverCalled(), batch, 0).loss
    noisy = family.noising.noised(batch.latents, batch.noise, per_sample_shape(batch.first, batch.latents))
    predicted = family.predict(tiny_family.transformer, noisy, batch.first, batch.conditions)
    torch.testing.assert_close(loss, F.mse_loss(predicted, family.noising.target(batch.latents, batch.noise)))
