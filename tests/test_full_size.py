"""Every reference configuration at full size on the meta device: no memory, no weights, real shapes and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from selfflow_bench.by_name import names
from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.families.base import Family
from selfflow_bench.hidden_states import output_of_block
from selfflow_bench.meta_values import MetaValues
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.published import sample_of
from selfflow_bench.recipe import Published, load_recipe
from selfflow_bench.registry import family_class
from selfflow_bench.training.adapters import add_adapters

QUICK = ("sana",)
"""Run always; the others take minutes together."""
FAMILIES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.once) for name in names("families") if name != "sit"
]


def reference(project: Places, name: str) -> tuple[Published, tuple[int, ...]]:
    """The published facts and the latent shape of the tier's media."""
    recipe = load_recipe(project.recipes, name)[1]
    hub = make_plan(project, name, tier="reference").runs[0].conditions.data.hub
    assert hub is not None
    media = recipe.published.media_of(hub)
    return recipe.published, recipe.published.compression.latent_shape(media, hub.fps or recipe.published.fps)


@pytest.mark.parametrize("name", names("families"))
def test_the_published_latents_follow_from_media_and_autoencoder(name: str, project: Places) -> None:
    published = load_recipe(project.recipes, name)[1].published
    assert list(published.compression.latent_shape(published.media, published.fps)) == published.latent_shape


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_of_the_reference_configuration(name: str, project: Places) -> None:
    spec = make_plan(project, name, tier="reference").runs[0]
    tier = load_recipe(project.recipes, name)[1].tiers["reference"]
    published, shape = reference(project, name)
    family = family_class(name)(spec.transformer)
    with MetaValues() as values:
        with torch.device("meta"):
            transformer = family.build().train()
            if spec.lora is not None:
                add_adapters(transformer, spec.lora, name)
            transformer = family.countable(transformer)
        latents, conditions = sample_of(published, shape, values)
        _teacher_leaves_behind_its_block(family, transformer, latents, conditions, tier.teacher_block)
        tokens = math.prod(family.token_grid(shape))
        times = TokenTimes(torch.empty(2, 1, device="meta"), torch.zeros(1, tokens, dtype=torch.int64, device="meta"))
        predicted = family.predict(transformer, latents, times, conditions)
        assert predicted.shape == latents.shape
        predicted.sum().backward()  # type: ignore[no-untyped-call]
    trained = {key for key, value in transformer.named_parameters() if value.grad is not None}
    wanted = {key for key, value in transformer.named_parameters() if value.requires_grad}
    assert trained <= wanted
    assert len(trained) > 0.8 * len(wanted), sorted(wanted - trained)[:10]
    if spec.lora is not None:
        assert all("lora_" in key and ".student." in key for key in wanted)
        for target in spec.lora.targets:
            assert any(f".{target}.lora_A." in key for key in trained), target


def _teacher_leaves_behind_its_block(
    family: Family, transformer: nn.Module, latents: Tensor, conditions: dict[str, Tensor], block: int
) -> None:
    sigma = torch.empty(1, device="meta")
    with torch.no_grad():
        output = output_of_block(
            family.blocks(transformer)[block - 1], lambda: family.predict(transformer, latents, sigma, conditions)
        )
    hidden = family.hidden_tokens(output, latents, conditions)
    assert hidden.shape[:2] == (1, math.prod(family.aligned_grid(latents.shape[1:])))
