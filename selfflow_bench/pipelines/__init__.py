"""Published pipelines around the families' transformers, found by the family's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfflow_bench.by_name import names, only_subclass
from selfflow_bench.errors import FieldError

if TYPE_CHECKING:
    from selfflow_bench.pipelines.base import PublishedPipeline

LACKING = {
    "z_image_omni": "its weights are announced and not published, so what its captions look like is not settled",
}
"""Families without a published pipeline, and why."""
NOT_YET = "the suite does not read its folder yet"


def pipeline_class(family: str) -> type[PublishedPipeline]:
    """The published pipeline of a family. Raises FieldError where there is none, with the reason."""
    from selfflow_bench.pipelines.base import PublishedPipeline

    if family not in names("pipelines.families"):
        problem = f"no pipeline: {LACKING.get(family, NOT_YET)}"
        remedy = "Use the smoke or micro tier, whose codecs and captions need none."
        raise FieldError("selfflow_bench/pipelines", "family", family, problem, remedy)
    return only_subclass("pipelines.families", "family", family, PublishedPipeline)
