"""What a run starts from: published weights in diffusers' own format, or fresh ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.families.base import Family
from selfflow_bench.recipe import Lora
from selfflow_bench.training.start import starting_transformer
from tests.conftest import Tiny


@pytest.mark.parametrize("name", ["sana", "anima", "wan"])
def test_published_weights_are_what_a_run_starts_from(name: str, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """Whatever the seed; with a frozen base in bfloat16 where adapters are trained in it."""
    case = tiny(name)
    case.family.save(case.transformer, tmp_path)
    published = case.transformer.state_dict()
    whole = starting_transformer(case.family, 1, where="recipe", snapshot=tmp_path)
    assert all(torch.equal(value, published[key]) for key, value in whole.state_dict().items())
    assert all(value.dtype == torch.float32 for value in whole.parameters())
    lora = Lora(rank=2, alpha=2.0, targets=["to_q"] if name != "anima" else ["attn1.to_q"])
    base = starting_transformer(case.family, 1, where="recipe", snapshot=tmp_path, lora=lora, precision="bf16")
    kept = {key.replace(".base_layer", ""): value for key, value in base.state_dict().items() if "lora_" not in key}
    assert kept.keys() == published.keys()
    assert sum(value.dtype == torch.bfloat16 for value in kept.values()) > 0.5 * len(kept)
    assert all(torch.equal(value, published[key].to(value.dtype)) for key, value in kept.items())


def test_fresh_weights_and_adapters_are_the_seeds(tiny: Callable[[str], Tiny]) -> None:
    family, lora = tiny("sana").family, Lora(rank=2, alpha=2.0, targets=["to_q"])
    one, same, other = (starting_transformer(family, seed, where="", lora=lora).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not torch.equal(one["proj_out.weight"], other["proj_out.weight"])
    adapter = next(key for key in one if "lora_A.student" in key)
    assert not torch.equal(one[adapter], other[adapter])


@pytest.mark.parametrize("name", ["sana", "anima"])
def test_another_configuration_than_the_recipes_is_refused(
    name: str, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    case = tiny(name)
    case.family.save(case.transformer, tmp_path)
    changed = _with_more_layers(case.family)
    with pytest.raises(FieldError, match=r"recipe x@1: transformer.*num_layers = \d: the published weights have \d"):
        starting_transformer(changed, 1, where="recipe x@1", snapshot=tmp_path)


def test_missing_published_weights_are_said_to_be_missing(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"cannot be loaded.*Fetch the snapshot anew"):
        starting_transformer(tiny("sana").family, 1, where="recipe", snapshot=tmp_path)


def _with_more_layers(family: Family) -> Family:
    config = dict(family.config)
    if "transformer_config" in config:
        inner = dict(config["transformer_config"])
        config["transformer_config"] = {**inner, "num_layers": inner["num_layers"] + 1}
    else:
        config["num_layers"] += 1
    return type(family)(config)
