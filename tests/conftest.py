"""Tiny real transformers, one per registered family, built from the smoke tier of its recipe."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
# Two test processes side by side; threads that wait for each other would slow both.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from selfflow_bench.families.base import Family
from selfflow_bench.methods.base import Batch
from selfflow_bench.places import Places, default_places
from selfflow_bench.plan import make_plan
from selfflow_bench.registry import family_class, names

# Tests are judged by what they find, never by the clock.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
torch.set_num_threads(1)

TEXT_TOKENS, TEXT_CHANNELS = 7, 384
CELLS = {"image": (6, 10), "video": (3, 4, 6), "audio": (22,)}
"""Odd, not square, and no multiple of 32 tokens."""


@dataclass(frozen=True)
class Tiny:
    """A family with a tiny transformer of its real class and what a forward needs."""

    family: Family
    transformer: nn.Module
    latent_shape: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return math.prod(self.family.token_grid(self.latent_shape))

    def batch(self, size: int = 3, seed: int = 0) -> Batch:
        source = torch.Generator().manual_seed(seed)
        latents = torch.randn(size, *self.latent_shape, generator=source)
        keep = torch.arange(TEXT_TOKENS) < torch.tensor([[2 + row % TEXT_TOKENS] for row in range(size)])
        text = torch.randn(size, TEXT_TOKENS, TEXT_CHANNELS, generator=source) * keep[..., None]
        return Batch(
            latents=latents,
            noise=torch.randn(latents.shape, generator=source),
            first=torch.rand(size, generator=source),
            second=torch.rand(size, generator=source),
            mask_draw=torch.rand(size, self.tokens, generator=source),
            conditions={"text": text, "text_mask": keep},
        )


@pytest.fixture(scope="session")
def project() -> Places:
    return default_places()


@pytest.fixture(scope="session")
def tiny(project: Places) -> Callable[[str], Tiny]:
    made: dict[str, Tiny] = {}

    def make(name: str) -> Tiny:
        if name not in made:
            spec = make_plan(project, name, tier="smoke").runs[0]
            family = family_class(name)(spec.transformer)
            torch.manual_seed(0)
            transformer = family.build().eval()
            with torch.no_grad():
                for value in transformer.parameters():
                    if not value.any():  # a zero-initialised part would make its tests vacuous
                        value.normal_(std=0.05)
            channels = latent_channels(family)
            made[name] = Tiny(family, transformer, (channels, *CELLS[family.modality]))
        return made[name]

    return make


def latent_channels(family: Family) -> int:
    """Channels of the latents: what the transformer puts out."""
    return int(family.config.get("out_channels") or family.config.get("audio_acoustic_hidden_dim"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``family_name`` runs for every registered family."""
    if "family_name" in metafunc.fixturenames:
        metafunc.parametrize("family_name", names("families"))


@pytest.fixture
def tiny_family(family_name: str, tiny: Callable[[str], Tiny]) -> Tiny:
    return tiny(family_name)


def token_mask(tokens: Tensor) -> Tensor:
    """A mixed mask from uniform draws."""
    return tokens < 0.4
