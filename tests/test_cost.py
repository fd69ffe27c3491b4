"""The counted cost of a step against what it must be, and against a count by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from selfflow_bench.cost import counted, meta_batch, step_cost
from selfflow_bench.data import sources
from selfflow_bench.data.codecs import codec_from
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.registry import family_class, method_class


def micro_costs(family_name: str, project: Places) -> tuple[dict[str, float], float, int, int]:
    plan = make_plan(project, family_name, tier="micro")
    family = family_class(family_name)(plan.runs[0].transformer)
    shape = codec_from(plan.runs[0].codec).latent_shape(sources.media_shape(plan.runs[0].conditions.data.source))
    text = {"text": ((16, 384), torch.float32), "text_mask": ((16,), torch.bool), "text_ids": ((16,), torch.int64)}
    batch = meta_batch(shape, math.prod(family.token_grid(shape)), text, 4)
    found, forward = {}, 0.0
    for run in plan.runs:
        kind = method_class(run.method)
        method = kind(kind.settings_class.model_validate(run.settings), family, 100)
        cost = step_cost(family, method, batch, step=10)
        found[run.label], forward = cost.flops_per_sample, cost.forward_flops_per_sample
    with torch.device("meta"):
        depth = len(family.blocks(family.build()))
    return found, forward, plan.runs[1].settings["teacher_block"], depth


def test_self_flow_costs_its_floor(family_name: str, project: Places) -> None:
    """Within 2 % of ``(3 + share to the teacher block) / 3`` of a vanilla step."""
    found, forward, block, depth = micro_costs(family_name, project)
    assert found["vanilla"] == pytest.approx(3 * forward, rel=0.06), "backward is twice forward, less the first layer"
    ratio, floor = found["self_flow"] / found["vanilla"], (3 + block / depth) / 3
    assert ratio == pytest.approx(floor, rel=0.02)


@pytest.mark.parametrize("groups", [1, 8])
def test_convolutions_cost_three_forwards_with_any_groups(groups: int) -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False, device="meta")
    inputs = torch.empty(2, 8, 5, 5, device="meta", requires_grad=True)
    by_hand = 2 * 2 * 8 * 25 * 9 * 8 // groups
    assert counted(lambda: layer(inputs)) == by_hand
    assert counted(lambda: layer(inputs).sum().backward()) == 3 * by_hand


def test_a_linear_layer_counts_two_per_multiply_add() -> None:
    weight = torch.empty(7, 5, device="meta")
    assert counted(lambda: F.linear(torch.empty(3, 5, device="meta"), weight)) == 2 * 3 * 5 * 7
