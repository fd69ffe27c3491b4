"""The methods and variants of a recipe's smoke tier, made for a tiny transformer."""

from __future__ import annotations

import torch
from torch import nn

from selfflow_bench.cost import head_sizes
from selfflow_bench.methods.base import Method
from selfflow_bench.places import default_places
from selfflow_bench.plan import make_plan
from selfflow_bench.recipe import load_recipe, method_labels
from selfflow_bench.registry import method_class
from tests.conftest import Tiny


def all_labels(family: str) -> tuple[str, ...]:
    """Methods and variants of the family's recipe."""
    return method_labels(load_recipe(default_places().recipes, family)[1])


def made(tiny: Tiny, label: str, family: str, **changes: object) -> tuple[Method, nn.ModuleDict]:
    """A method with its recipe's settings, changed, and its heads."""
    runs = {run.label: run for run in make_plan(default_places(), family, tier="smoke", labels=[label]).runs}
    kind = method_class(label.partition(".")[0])
    settings = kind.settings_class.model_validate({**runs[label].settings, **changes})
    method = kind(settings, tiny.family, steps=100)
    batch = tiny.batch(needs=method.needs)
    torch.manual_seed(7)
    return method, method.heads(head_sizes(tiny.family, tiny.transformer, method, batch))
