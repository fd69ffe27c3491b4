"""Tiny published pipelines, each made and loaded once for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.pipelines.cases import ASSEMBLED, FAMILIES, Case


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty hub cache."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def cases(hub: Path) -> Callable[[str], Case]:
    """A family's case, made once."""
    return cache(lambda name: Case(name, hub))


@pytest.fixture(scope="session", params=[name for name in FAMILIES if name != "ltxvideo2"])
def case(request: pytest.FixtureRequest, cases: Callable[[str], Case]) -> Case:
    """Of every family whose media are of one stream."""
    return cases(request.param)


@pytest.fixture(scope="session", params=[name for name in FAMILIES if name not in ASSEMBLED])
def called(request: pytest.FixtureRequest, cases: Callable[[str], Case]) -> Case:
    """Of every family that diffusers has a pipeline of."""
    return cases(request.param)
