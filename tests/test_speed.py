"""What `speed` measures and writes; never how fast this machine is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from selfflow_bench.errors import FieldError
from selfflow_bench.middle_size import MIDDLE_SIZES
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.registry import family_class
from selfflow_bench.results.speed_table import COLUMNS, markdown, write
from selfflow_bench.speed import measure_speed


@pytest.mark.parametrize("recipe", MIDDLE_SIZES)
def test_a_middle_size_is_256_tokens_of_256_channels(recipe: str, project: Places) -> None:
    middle = MIDDLE_SIZES[recipe]
    spec = make_plan(project, recipe, tier="micro").runs[0]
    family = family_class(recipe)({**spec.transformer, **middle.transformer})
    assert math.prod(family.token_grid(middle.latent_shape)) == 256
    with torch.device("meta"):
        model = family.build()
    projection = next(module for name, module in model.named_modules() if name.endswith(("to_q", "to_query")))
    assert projection.weight.shape == (256, 256)


def test_measured_counts_and_their_table(project: Places, tmp_path: Path) -> None:
    found = measure_speed(project, "sana", steps=1, threads=1)
    kinds = found["kinds"]
    assert list(kinds) == ["vanilla", "self_flow", "one row per token", "full teacher", "both"]
    assert kinds["vanilla"]["flops_over_vanilla"] == kinds["vanilla"]["saved_over_vanilla"] == 1
    assert kinds["self_flow"]["flops_over_vanilla"] == pytest.approx(found["floor"], rel=0.02)
    for dearer in ("one row per token", "full teacher"):
        assert found["floor"] < kinds[dearer]["flops_over_vanilla"] < kinds["both"]["flops_over_vanilla"]
    # The teacher keeps nothing; two rows in place of one, and the projector, are little.
    assert 1 < kinds["self_flow"]["saved_over_vanilla"] < 1.05
    assert kinds["full teacher"]["saved_bytes_per_sample"] == kinds["self_flow"]["saved_bytes_per_sample"]
    assert kinds["one row per token"]["saved_over_vanilla"] > kinds["self_flow"]["saved_over_vanilla"] + 0.1
    assert all(row["milliseconds"] > 0 for row in kinds.values())

    text = write(tmp_path, [found]).read_text(encoding="utf-8")
    assert text == markdown([found])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in table[0].strip("|").split("|")] == list(COLUMNS)
    assert [line.split("|")[3].strip() for line in table[2:]] == list(kinds)
    assert all(line.count("|") == len(COLUMNS) + 1 for line in table)


def test_a_recipe_without_a_middle_size_is_refused(project: Places) -> None:
    with pytest.raises(FieldError, match="no middle size"):
        measure_speed(project, "auraflow", steps=1, threads=1)
