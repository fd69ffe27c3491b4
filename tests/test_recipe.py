"""Recipes and protocols: strict, locked, and errors that say what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from selfflow_bench.by_name import names
from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.places import Places
from selfflow_bench.plan import lock_entries, make_plan
from selfflow_bench.protocol import protocol_digest
from selfflow_bench.recipe import load_protocol, load_recipe, read_lock, recipe_names
from selfflow_bench.seeds import derive_seed


@pytest.fixture
def places(project: Places, tmp_path: Path) -> Places:
    shutil.copytree(project.recipes, tmp_path / "recipes")
    return Places(tmp_path / "recipes", tmp_path / "results", tmp_path / "work")


def edit(places: Places, file: str, old: str, new: str) -> Path:
    path = places.recipes / file
    text = path.read_text()
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new, 1))
    return path


def test_every_family_has_its_recipe(project: Places) -> None:
    """Under its own name; other sizes of a family may have recipes of their own."""
    found = {name: load_recipe(project.recipes, name)[1].family for name in recipe_names(project.recipes)}
    assert {name: found[name] for name in names("families")} == {name: name for name in names("families")}


def test_locked_digests_have_not_moved(project: Places) -> None:
    locked = json.loads((project.recipes / "lock.json").read_text())
    assert lock_entries(project) == locked, "a change of meaning is a new version file, then `selfflow-bench lock`"


@pytest.mark.parametrize(
    ("file", "old", "new", "field", "says"),
    [
        ("sana/v1.toml", 'family = "sana"', 'family = "sanaa"', "family", "Known: ace_step, anima, auraflow"),
        (
            "sana/v1.toml",
            "[tiers.smoke]\n",
            "[tiers.smoke]\nspeed = 1\n",
            "tiers.smoke.speed",
            "Allowed: checkpoint, codec, encoder",
        ),
        ("sana/v1.toml", "[tiers.smoke]", "[tiers.huge]", "tiers.huge", "'smoke', 'micro' or 'reference'"),
        ("sana/v1.toml", "[methods.vanilla]", "[methods.repo]", "methods", "unknown method"),
        (
            "sana/v1.toml",
            "mask_ratio = 0.25",
            "mask_ratio = 0.75",
            "methods.self_flow.mask_ratio",
            "outside [0.0, 0.5]",
        ),
        ("sana/v1.toml", "mask_ratio = 0.25", 'mask_ratio = "some"', "mask_ratio", "valid number"),
        (
            "sana/v1.toml",
            "mask_ratio = 0.25",
            "mask_share = 0.25",
            "mask_share",
            "Allowed: context_time, feature_source",
        ),
        ("sana/v1.toml", "teacher_block = 2", "teacher_block = 1", "teacher_block", "not deeper"),
        ("sana/v1.toml", "num_layers = 3", "num_floors = 3", "transformer", "num_floors"),
        ("sana/v1.toml", "image-smoke@1", "video-smoke@1", "protocol", "protocol for video"),
        ("sana/v1.toml", "image-smoke@1", "image-smoke@7", "version", "no such version"),
        ("protocols/image-smoke/v1.toml", "batch = 16", "batch = 15", "training.samples", "multiple of 15"),
        ("protocols/image-smoke/v1.toml", "batch = 16", "batch = -1", "training.batch", "greater than 0"),
        ("protocols/image-smoke/v1.toml", "batch = 16", 'batch = "16"', "training.batch", "valid integer"),
        ("protocols/image-smoke/v1.toml", "batch = 16\n", "", "training.batch", "missing"),
        (
            "protocols/image-smoke/v1.toml",
            'precision = "float32"',
            'precision = "fp8"',
            "precision",
            "'float32' or 'bf16'",
        ),
        (
            "protocols/image-smoke/v1.toml",
            "condition_dropout = 0.1",
            "condition_dropout = nan",
            "dropout",
            "finite number",
        ),
        (
            "protocols/image-smoke/v1.toml",
            "validation_triples = 32",
            "validation_triples = 30",
            "triples",
            "multiple of 8",
        ),
        ("protocols/image-smoke/v1.toml", "kid_subset_size = 16", "kid_subset_size = 64", "kid_subset", "larger than"),
        *(
            ("protocols/image-smoke/v1.toml", "kid_subset_size = 16", f"kid_subset_size = 16\n{line}", field, says)
            for line, field, says in (
                ("kid_samples = 8", "kid_subset_size", "Set at most evaluation.kid_samples"),
                ("kid_samples = 64", "kid_samples", "Set at most evaluation.samples"),
                ("guidance = [1.0, 0.5]", "evaluation.guidance.1", "equal to 1, or input should be 'documented'"),
                ("guidance = [2.0, 2.0]", "evaluation.guidance", "names one twice"),
                ('networks = ["efficientnet-lite0-block10-112"]', "evaluation.networks", "names one twice"),
                ('reference_statistics = { fid = "unpinned" }', "reference_statistics", "no network of this protocol"),
            )
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_field(
    places: Places, file: str, old: str, new: str, field: str, says: str
) -> None:
    path = edit(places, file, old, new)
    with pytest.raises(FieldError) as refused:
        make_plan(places, "sana", tier="smoke")
    assert field in refused.value.field
    assert says in str(refused.value)
    assert path.name in str(refused.value) or "protocols" in str(refused.value)


def test_a_file_that_is_no_toml_is_named(places: Places) -> None:
    path = edit(places, "sana/v1.toml", "[methods.vanilla]", "[methods.vanilla")
    with pytest.raises(DamagedFileError, match=re.escape(str(path))):
        load_recipe(places.recipes, "sana")


def test_an_unknown_recipe_says_which_there_are(project: Places) -> None:
    with pytest.raises(FieldError, match="There are: ace_step, anima, auraflow"):
        make_plan(project, "sanna", tier="smoke")
    with pytest.raises(FieldError, match="no such version"):
        make_plan(project, "sana@9", tier="smoke")
    with pytest.raises(FieldError, match="not a number"):
        make_plan(project, "sana@new", tier="smoke")
    with pytest.raises(FieldError, match=re.escape("It has: vanilla, irepa, layersync, repa, repa.paper, self_flow")):
        make_plan(project, "sana", tier="smoke", labels=["self_flow.nope"])


def test_what_a_protocol_does_not_use_moves_no_digest_and_what_it_uses_does(project: Places) -> None:
    _, protocol = load_protocol(project.recipes, "image-micro@1")
    given = protocol.evaluation
    assert protocol_digest(protocol) == read_lock(project.recipes)["protocols"]["image-micro@1"]
    changes: list[dict[str, Any]] = [
        {"validation_grid": "eighths"}, {"guidance": [1.0, "documented"]}, {"networks": ["other"]},
        {"reference_statistics": {given.network: "unpinned"}}, {"kid_samples": 400}, {"untrained": False},
        {"sampler_steps": "documented"},
    ]  # fmt: skip
    digests = {
        protocol_digest(protocol.model_copy(update={"evaluation": given.model_copy(update=change)}))
        for change in ({}, *changes)
    }
    assert len(digests) == len(changes) + 1


def test_plans_are_pure_and_matched(project: Places) -> None:
    plan = make_plan(project, "sana", tier="micro", seeds=3)
    assert plan == make_plan(project, "sana", tier="micro", seeds=3)
    assert [(run.label, run.seed_index) for run in plan.runs] == [
        (label, index) for index in range(3) for label in ("vanilla", "self_flow")
    ]
    for index in range(3):
        seeds = {run.seed for run in plan.runs if run.seed_index == index}
        assert seeds == {derive_seed(plan.recipe.digest, index)}
    assert len({run.key for run in plan.runs}) == 6


def test_vanilla_is_always_planned(project: Places) -> None:
    plan = make_plan(project, "sana", tier="micro", labels=["self_flow.paper"])
    assert [run.label for run in plan.runs] == ["vanilla", "self_flow.paper"]


def test_adding_a_method_moves_no_seed_and_no_key(places: Places) -> None:
    before = make_plan(places, "sana", tier="micro")
    path = places.recipes / "sana/v1.toml"
    path.write_text(
        path.read_text().replace("[tiers.smoke]", '[methods."self_flow.heavy"]\nweight = 2.0\n\n[tiers.smoke]')
    )
    assert make_plan(places, "sana", tier="micro") == before


def test_prose_and_budget_are_not_in_the_digest_but_data_are(places: Places) -> None:
    before = make_plan(places, "sana", tier="micro").protocol.digest
    edit(places, "protocols/image-micro/v1.toml", 'summary = "', 'summary = "Now: ')
    edit(places, "protocols/image-micro/v1.toml", "minutes = ", "minutes = 1")
    assert make_plan(places, "sana", tier="micro").protocol.digest == before
    edit(places, "protocols/image-micro/v1.toml", 'train_sha256 = "', 'train_sha256 = "0')
    with pytest.raises(FieldError, match="train_sha256"):
        load_protocol(places.recipes, "image-micro@1")


def test_overrides_are_kept_and_change_the_digest(project: Places) -> None:
    plain = make_plan(project, "sana", tier="smoke")
    changed = make_plan(project, "sana", tier="smoke", overrides={"training.samples": 128})
    assert changed.runs[0].overrides == {"training.samples": 128}
    assert changed.runs[0].conditions.training.samples == 128
    assert changed.protocol.digest != plain.protocol.digest
    assert changed.runs[0].key != plain.runs[0].key
    for bad in ("training.sample", "samples"):
        with pytest.raises(FieldError, match="no such protocol field"):
            make_plan(project, "sana", tier="smoke", overrides={bad: 1})
    with pytest.raises(FieldError, match="multiple of 16"):
        make_plan(project, "sana", tier="smoke", overrides={"training.samples": 100})


def test_margins_are_locked_and_move_no_digest(places: Places) -> None:
    """They say how runs are read; the runs are the same."""
    before = make_plan(places, "sana", tier="smoke")
    margins = lock_entries(places)["margins"]["image-smoke@1"]
    assert {name for name in margins if name != "since"} == {"validation_loss", "kid", "frechet"}
    edit(places, "protocols/image-smoke/v1.toml", "validation_loss = 0.01", "validation_loss = 0.02")
    after = make_plan(places, "sana", tier="smoke")
    assert (after.protocol, [run.key for run in after.runs]) == (before.protocol, [run.key for run in before.runs])
    assert lock_entries(places)["margins"]["image-smoke@1"]["validation_loss"] == 0.02
