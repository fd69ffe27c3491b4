"""Tiny real transformers, one per registered family, built from the smoke tier of its recipe."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
# Two test processes side by side; threads that wait for each other would slow both.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from selfflow_bench.by_name import names
from selfflow_bench.data import captions, sources
from selfflow_bench.data.codecs import codec_from
from selfflow_bench.families.base import LABEL, Family
from selfflow_bench.methods.base import NOTHING_MORE, Batch, Needs
from selfflow_bench.places import Places, default_places
from selfflow_bench.plan import make_plan
from selfflow_bench.registry import family_class
from tests.families.expectations import Expectations, expected

# Tests are judged by what they find, never by the clock.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
torch.set_num_threads(1)

TEXT_TOKENS = 7
CELLS = {"image": (6, 10), "video": (3, 4, 6), "audio": (22,)}
"""Odd, not square, and no multiple of 32 tokens."""


@dataclass(frozen=True)
class Tiny:
    """A family with a tiny transformer of its real class and what a forward needs."""

    family: Family
    transformer: nn.Module
    latent_shape: tuple[int, ...]
    expected: Expectations
    optional: tuple[str, ...] = ()
    """Optional conditions that its batches have."""

    @property
    def tokens(self) -> int:
        return math.prod(self.family.token_grid(self.latent_shape))

    @property
    def aligned(self) -> int:
        """Tokens that are aligned."""
        return math.prod(self.family.aligned_grid(self.latent_shape))

    def batch(self, size: int = 3, seed: int = 0, text_tokens: int = TEXT_TOKENS, needs: Needs = NOTHING_MORE) -> Batch:
        source = torch.Generator().manual_seed(seed)
        latents = torch.randn(size, *self.latent_shape, generator=source)
        keep = torch.arange(text_tokens) < torch.tensor([[2 + (3 * row) % (text_tokens - 1)] for row in range(size)])
        text = torch.randn(size, text_tokens, captions.WIDTH, generator=source) * keep[..., None]
        conditions = {
            "text": text,
            "text_mask": keep,
            "text_ids": torch.randint(0, captions.VOCABULARY, (size, text_tokens), generator=source) * keep,
        }
        for name in (*self.family.needs, *self.optional):
            conditions[name] = self.family.drawn_condition(name, size, self.latent_shape, source)
        noise = torch.randn(latents.shape, generator=source)
        first, second = torch.rand(size, generator=source), torch.rand(size, generator=source)
        mask_draw = torch.rand(size, self.tokens, generator=source)
        # Captions and classes alone are taken away: a reference or a sound stays.
        empty = {name: value.clone() for name, value in conditions.items()}
        if LABEL in empty:
            empty[LABEL] = torch.full_like(empty[LABEL], self.family.classes)
        empty["text"], empty["text_ids"] = torch.zeros_like(text), torch.zeros_like(conditions["text_ids"])
        return Batch(
            latents=latents,
            noise=noise,
            first=first,
            second=second,
            mask_draw=mask_draw,
            conditions=conditions,
            unconditional=empty if needs.unconditional else {},
            features=torch.randn(size, *self.feature_shape, generator=source) if needs.encoder else None,
            uniforms=torch.rand(size, needs.uniforms, generator=source) if needs.uniforms else None,
            noises=torch.randn(size, needs.noises, *self.latent_shape, generator=source) if needs.noises else None,
        )

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of one item's encoder features; clips have two frames for each of the latents'."""
        frames = (2 * self.latent_shape[1],) if self.family.modality == "video" else ()
        return (*frames, 4, 4, 12)


def make_tiny(places: Places, name: str) -> Tiny:
    """A family's smoke tier, its weights those of seed 0, and nothing in it zero."""
    spec = make_plan(places, name, tier="smoke").runs[0]
    family = family_class(name)(spec.transformer)
    torch.manual_seed(0)
    transformer = family.build().eval()
    with torch.no_grad():
        for value in transformer.parameters():
            if not value.any():  # a zero-initialised part would make its tests vacuous
                value.normal_(std=0.05)
    channels = codec_from(spec.codec).latent_shape(sources.media_shape(spec.conditions.data.source))[0]
    known = expected(name)
    return Tiny(family, transformer, (channels, *(known.cells or CELLS[family.modality])), known)


@pytest.fixture(scope="session")
def project() -> Places:
    return default_places()


@pytest.fixture(scope="session")
def tiny(project: Places) -> Callable[[str], Tiny]:
    made: dict[str, Tiny] = {}

    def make(name: str) -> Tiny:
        """A family by name; ``wan+reference`` is one with an optional condition."""
        name, *optional = name.split("+")
        if optional:
            return replace(make(name), optional=tuple(optional))
        if name not in made:
            made[name] = make_tiny(project, name)
        return made[name]

    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``family_name`` runs for every registered family; for ``tiny_family``, also with each of
    its optional conditions."""
    if "family_name" in metafunc.fixturenames:
        metafunc.parametrize("family_name", names("families"))
    if "tiny_family" in metafunc.fixturenames:
        cases = [name for family in names("families") for name in (family, *_with_options(family))]
        metafunc.parametrize("tiny_family", cases, indirect=True)


def _with_options(family: str) -> list[str]:
    return [f"{family}+{option}" for option in family_class(family).accepts]


@pytest.fixture
def tiny_family(request: pytest.FixtureRequest, tiny: Callable[[str], Tiny]) -> Tiny:
    return tiny(request.param)


def token_mask(tokens: Tensor) -> Tensor:
    """A mixed mask from uniform draws."""
    return tokens < 0.4
