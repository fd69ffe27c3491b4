"""Every method and variant with every family that has it: one step, its gradients, what it logs and what it leaves."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfflow_bench.by_name import names
from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.cost import forward_flops, head_sizes, meta_batch, step_cost
from selfflow_bench.data import sources
from selfflow_bench.data.codecs import codec_from
from selfflow_bench.errors import FieldError
from selfflow_bench.methods.base import NOTHING_MORE, Method
from selfflow_bench.methods.vanilla import Vanilla, VanillaSettings
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.registry import family_class, method_class
from tests.conftest import Tiny
from tests.methods.of_recipes import all_labels, made
from tests.training.test_loop import finished, run, training

ONE_OF_EACH_MODALITY = ("sana", "wan", "ace_step")
WEIGHTED = {"image": ("repa", "irepa"), "video": ("crepa",), "audio": ()}


def test_a_step_of_every_method_and_variant(family_name: str, tiny: Callable[[str], Tiny]) -> None:
    case = tiny(family_name)
    for label in all_labels(family_name):
        method, heads = made(case, label, family_name)
        student, teacher = copy.deepcopy(case.transformer), copy.deepcopy(case.transformer)
        result = method.step(student, heads, teacher, case.batch(needs=method.needs), step=3)
        result.loss.backward()
        assert math.isfinite(float(result.loss)), label
        assert all(value.grad is None for value in teacher.parameters()), label
        assert any(value.grad is not None and value.grad.any() for value in student.parameters()), label
        used = getattr(method.settings, "weight", 1.0) > 0
        assert all((value.grad is not None and bool(value.grad.any())) == used for value in heads.parameters()), label
        for name, value in result.metrics.items():
            assert math.isfinite(float(value)), (label, name)
            assert not (isinstance(value, Tensor) and value.requires_grad), (label, name)
            if name.endswith("_score"):
                assert -1 <= float(value) <= 1, (label, name)


def test_recipes_have_every_method_that_supports_their_family(family_name: str) -> None:
    offered = {label.partition(".")[0] for label in all_labels(family_name)}
    supported = {name for name in names("methods") if method_class(name).unsupported(family_class(family_name)) is None}
    assert offered == supported


@pytest.mark.parametrize("name", ONE_OF_EACH_MODALITY)
def test_every_method_trains_and_its_heads_stay_out_of_the_transformer(
    name: str, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    case = tiny(name)
    reference = set(case.transformer.state_dict())
    for label in all_labels(name):
        settings = made(case, label, name)[0].settings
        trained = training(case, tmp_path / label, label.partition(".")[0], **settings.model_dump())
        before = [value.clone() for value in trained.trainee.heads.parameters()]
        run(trained)
        weights, rows, _ = finished(trained)
        assert all(torch.isfinite(value).all() for value in weights), label
        assert len(rows) == 6, label
        assert set(trained.trainee.transformer.state_dict()) == reference, label
        assert set(trained.ema.model.state_dict()) == reference, label
        after = list(trained.trainee.heads.parameters())
        if getattr(settings, "weight", 1.0):
            assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), label


@pytest.mark.parametrize("name", ONE_OF_EACH_MODALITY)
def test_only_self_flow_mixes_timesteps_in_a_sample(name: str, tiny: Callable[[str], Tiny]) -> None:
    case = tiny(name)
    for label in all_labels(name):
        method, heads = made(case, label, name)
        seen = _record_sigmas(method)
        batch = case.batch(needs=method.needs)
        method.step(case.transformer, heads, copy.deepcopy(case.transformer), batch, step=3)
        mixes = method_class("self_flow") is type(method) and method.settings.mask_ratio > 0  # type: ignore[attr-defined]
        assert any(isinstance(sigma, TokenTimes) for sigma in seen) == mixes, label
        if not mixes:
            assert seen[0] is batch.first, label


def _record_sigmas(method: Method) -> list[Tensor | TokenTimes]:
    """The sigmas of all forwards of a method's family, from here on."""
    family, seen = copy.copy(method.family), []
    ordinary = family.predict

    def predict(transformer: object, latents: Tensor, sigma: Tensor | TokenTimes, conditions: object) -> Tensor:
        seen.append(sigma)
        return ordinary(transformer, latents, sigma, conditions)  # type: ignore[arg-type]

    family.predict = predict  # type: ignore[method-assign,assignment]
    method.family = family
    return seen


def test_weight_zero_is_vanilla_bit_for_bit(family_name: str, tiny: Callable[[str], Tiny]) -> None:
    case = tiny(family_name)
    plain = _gradients(case, Vanilla(VanillaSettings(), case.family, 100), torch.nn.ModuleDict())
    for label in (*WEIGHTED[case.family.modality], "layersync", "sra"):
        method, heads = made(case, label, family_name, weight=0.0)
        found = _gradients(case, method, heads)
        assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True)), label


def _gradients(case: Tiny, method: Method, heads: torch.nn.ModuleDict) -> list[Tensor]:
    model = copy.deepcopy(case.transformer)
    loss = method.step(model, heads, case.transformer, case.batch(needs=method.needs), step=3).loss
    loss.backward()
    return [loss.detach(), *(value.grad for value in model.parameters() if value.grad is not None)]


@pytest.mark.parametrize(
    ("recipe", "label", "says"),
    [
        ("sana", "crepa", "is for video, and the family makes image. Use it with a family that makes video"),
        ("wan", "repa", "is for image, and the family makes video. Use it with a family that makes image"),
        ("ace_step", "irepa", "is for image, and the family makes audio"),
        ("pixart", "twinflow", "needs rectified flow, and the family is trained on another noise schedule"),
        ("sana", "self_flow.simpletuner", "no such method in this recipe"),
    ],
)
def test_a_wrong_pair_is_refused_at_planning(recipe: str, label: str, says: str, project: Places) -> None:
    with pytest.raises(FieldError, match=says.replace(".", r"\.")):
        make_plan(project, recipe, tier="smoke", labels=[label])


def test_costs_are_what_the_methods_run(project: Places) -> None:
    """In units of a vanilla step of sana micro: layers cost nothing, teachers their forwards."""
    plan = make_plan(project, "sana", tier="micro", labels=all_labels("sana"))
    first = plan.runs[0]
    family = family_class("sana")(first.transformer)
    shape = codec_from(first.codec).latent_shape(sources.media_shape(first.conditions.data.source))
    conditions = {"text": ((16, 384), torch.float32), "text_mask": ((16,), torch.bool)}
    tokens, ratio = math.prod(family.token_grid(shape)), {}
    vanilla = 0.0
    for each in plan.runs:
        kind = method_class(each.method)
        method = kind(kind.settings_class.model_validate(each.settings), family, 100)
        features = (4, 4, 320) if method.needs.encoder else ()
        batch = meta_batch(shape, tokens, conditions, 4, method.needs, features)
        cost = step_cost(family, method, batch, step=10).flops_per_sample
        vanilla = vanilla or cost
        ratio[each.label] = cost / vanilla
    block = plan.runs[0].settings.get("teacher_block", 4)
    teacher = forward_flops(family, meta_batch(shape, tokens, conditions, 4, NOTHING_MORE), block) / vanilla
    forward = 1 / 3
    assert ratio["layersync"] == 1.0
    assert ratio["repa"] == pytest.approx(1.0, abs=0.07)
    width, inner = 128, 256
    head = 3 * 2 * tokens * (width * inner + inner * inner + inner * width)
    assert ratio["sra"] == pytest.approx(1 + teacher + head / vanilla, abs=0.03)
    assert ratio["self_flow.mix_only"] == pytest.approx(1.0, abs=0.02)
    assert ratio["self_flow.align_only"] == pytest.approx(1 + teacher, abs=0.03)
    assert ratio["twinflow"] == pytest.approx(1 + 3 * forward, abs=0.03), "at sigma, unconditional, at the anchor"
    assert ratio["twinflow.difference_quotient"] == pytest.approx(1 + 4 * forward, abs=0.03)
    assert ratio["twinflow.negative_time"] == pytest.approx(1 + 3 * forward + 2 + forward, abs=0.05)


def test_head_sizes_ask_for_nothing_that_is_not_needed(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("sana")
    sizes = head_sizes(case.family, case.transformer, Vanilla(VanillaSettings(), case.family, 1), case.batch())
    assert (sizes.hidden, sizes.features, sizes.time_embedding) == (0, (), 0)
