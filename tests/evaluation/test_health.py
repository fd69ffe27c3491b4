"""The health of features on a real tiny transformer, and the alarm when they collapse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.evaluation.health import FeatureHealth, feature_health
from selfflow_bench.evaluation.validation import ValidationTriples
from selfflow_bench.stages.training import alarms
from selfflow_bench.training.ema import Ema
from tests.conftest import Tiny


def triples(case: Tiny) -> ValidationTriples:
    batch = case.batch(size=8)
    table = ConditionTable(torch.arange(8), batch.conditions)
    return ValidationTriples(batch.latents, table, count=8, batch=8)


def test_a_collapse_is_seen_and_raises_the_alarm(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("sana")
    collapsed = copy.deepcopy(case.transformer)
    case.family.blocks(collapsed)[1].register_forward_hook(lambda _module, _args, out: out.mean((0, 1)).expand_as(out))
    alive = feature_health(case.family, case.transformer, triples(case), block=2)
    dead = feature_health(case.family, collapsed, triples(case), block=2)
    assert alive.effective_rank > 5
    assert not alive.collapsed_since(alive)
    assert dead.collapsed_since(alive)
    rows = [{"samples": 0, "health": asdict(alive)}, {"samples": 64, "health": asdict(dead) | {"ema_distance": 0.1}}]
    (alarm,) = alarms(rows)
    assert alarm.startswith("features collapsed: after 64 samples effective rank ")
    assert alarms(rows[:1]) == []


@pytest.mark.parametrize(
    ("rank", "deviation", "collapsed"), [(20.0, 1.0, False), (1.9, 1.0, True), (20.0, 0.04, True), (2.1, 0.06, False)]
)
def test_the_alarms_thresholds(rank: float, deviation: float, collapsed: bool) -> None:
    start = FeatureHealth(4, standard_deviation=1.0, effective_rank=30.0)
    assert FeatureHealth(4, deviation, rank).collapsed_since(start) is collapsed


def test_ema_distance_is_the_relative_gap() -> None:
    source = torch.nn.Linear(3, 2)
    ema = Ema(source, decay=0.9)
    assert ema.distance() == 0.0
    before = torch.cat([value.detach().flatten().clone() for value in source.parameters()])
    with torch.no_grad():
        for value in source.parameters():
            value.add_(0.5)
    assert ema.distance() == pytest.approx(float((0.5 * torch.ones(8)).norm() / before.norm()), rel=1e-6)
