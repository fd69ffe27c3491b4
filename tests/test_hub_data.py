"""A protocol that names data on the hub: what may be unpinned, and which sizes it must give."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from selfflow_bench.errors import FieldError
from selfflow_bench.places import Places
from selfflow_bench.protocol import Protocol, check_protocol, protocol_digest
from selfflow_bench.recipe import load_protocol

PINNED = "0123456789abcdef0123456789abcdef01234567"
HUB = {
    "id": "org/pictures",
    "revision": PINNED,
    "train": "train",
    "validation": "validation",
    "medium": "image",
    "caption": "caption",
    "resolution": [512, 512],
}


def protocol(project: Places, **data: Any) -> Protocol:
    content = load_protocol(project.recipes, "image-micro@1")[1].model_dump(mode="json")
    content["data"] |= data
    return Protocol.model_validate(content)


def test_hashes_may_be_unpinned_where_the_hub_has_the_data(project: Places) -> None:
    unpinned = {"train_sha256": "unpinned", "validation_sha256": "unpinned"}
    check_protocol("v1.toml", protocol(project, **unpinned, hub=HUB | {"revision": "unpinned"}))
    with pytest.raises(FieldError, match=r"data\.train_sha256 = 'unpinned'.*only a data set on the hub"):
        check_protocol("v1.toml", protocol(project, **unpinned))


def test_the_table_is_part_of_the_digest_and_its_absence_is_not(project: Places) -> None:
    plain, hub = protocol(project), protocol(project, hub=HUB)
    assert "hub" not in plain.model_dump(mode="json")["data"]
    other = protocol(project, hub=HUB | {"resolution": [256, 256]})
    assert len({protocol_digest(one) for one in (plain, hub, other)}) == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"resolution": None}, "data.hub.resolution"),
        ({"frames": 16}, "data.hub.frames"),
        ({"seconds": 1.0}, "data.hub.seconds"),
        ({"fps": 16.0}, "data.hub.fps"),
        ({"label": "class"}, "data.hub.caption"),
        ({"caption": None}, "data.hub.caption"),
        ({"validation": "train"}, "data.hub.validation_items"),
    ],
)
def test_sizes_must_be_those_of_the_modality(project: Places, change: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        check_protocol("v1.toml", protocol(project, hub=HUB | change))
    assert caught.value.field == field


@pytest.mark.parametrize("change", [{"revision": "main"}, {"id": "pictures"}, {"resolution": [512]}])
def test_revisions_are_commits_and_ids_have_an_owner(project: Places, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        protocol(project, hub=HUB | change)
