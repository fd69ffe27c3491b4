"""The cost table: current, and at its floor everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from selfflow_bench.places import Places
from selfflow_bench.published import recipe_cost
from selfflow_bench.recipe import load_recipe, recipe_names
from selfflow_bench.results.cost_table import COLUMNS, cells, markdown, read, write, write_one

COUNTED_AGAIN = ("auraflow", "ltxvideo", "wan")
"""Counting all takes minutes; these are quick and differ in kind."""


def test_the_table_has_every_recipe_at_its_floor(project: Places) -> None:
    table = read(project.results)
    assert set(table) == set(recipe_names(project.recipes))
    for name, row in table.items():
        _, recipe = load_recipe(project.recipes, name)
        assert row["size"] == recipe.published.size
        assert row["parameters"] == f"{recipe.published.parameters / 1e9:.2f}"
        ratio, floor = (float(re.sub("x", "", row[name])) for name in ("ratio", "floor"))
        assert ratio == pytest.approx(floor, rel=0.02)
        assert 1.15 < floor < 1.28


@pytest.mark.parametrize("family", COUNTED_AGAIN)
def test_counting_again_gives_the_table(family: str, project: Places) -> None:
    assert list(read(project.results)[family].values()) == cells(recipe_cost(project, family))


def test_one_line_is_written_in_its_place_and_no_other(tmp_path: Path) -> None:
    rows = [
        {"family": family, "size": "1x1", **dict.fromkeys((name for name, _ in COLUMNS[2:]), number)}
        for number, family in enumerate(("auraflow", "sana", "wan"), start=1)
    ]
    write(tmp_path, [rows[0], rows[2]])
    path = write_one(tmp_path, rows[1])
    assert path.read_text(encoding="utf-8") == markdown(rows)
    again = rows[1] | {"ratio": 1.5}
    assert write_one(tmp_path, again).read_text(encoding="utf-8") == markdown([rows[0], again, rows[2]])
    path.unlink()
    assert write_one(tmp_path, again).read_text(encoding="utf-8") == markdown([again])
