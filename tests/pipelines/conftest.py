"""Tiny published pipelines, each made and loaded once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.cases import FAMILIES, Case


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty hub cache."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", params=FAMILIES)
def case(request: pytest.FixtureRequest, hub: Path) -> Case:
    return Case(request.param, hub)
