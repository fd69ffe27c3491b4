"""Records survive being written and read, and refuse what must not be in them."""

import json
import math
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from record_factory import KID, record, record_content

from selfflow_bench.results.privacy import path_in, scrub
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import canonical_text, record_text
from selfflow_bench.results.schema import SCHEMA_PATH, schema_problems, schema_text

finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_characters="/\\~"), max_size=20)


@given(
    loss=st.floats(1e-6, 1e6),
    kid=finite | st.none(),
    settings=st.dictionaries(words, finite | st.integers(-(2**40), 2**40) | st.booleans() | words, max_size=4),
    columns=st.lists(
        st.dictionaries(st.sampled_from(["loss", "norm"]), finite | st.integers() | st.none()), max_size=4
    ),
)
def test_written_and_read_again_a_record_is_the_same(
    loss: float, kid: float | None, settings: dict[str, Any], columns: list[dict[str, Any]]
) -> None:
    content = record_content(loss=loss, kid=kid)
    content["method"]["settings"] = settings
    content["curve"] = [{"samples": index, **row} for index, row in enumerate(columns)]
    made = Record.model_validate(content)
    text = record_text(made)
    again = Record.model_validate_json(text)
    assert again == made
    assert record_text(again) == canonical_text(json.loads(text)) == text
    assert schema_problems(json.loads(text)) == []


@pytest.mark.parametrize("status", ["success", "failed", "cancelled", "infrastructure"])
def test_the_published_schema_is_the_models_and_accepts_its_records(status: str) -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), "run: python -m selfflow_bench.results.schema"
    assert schema_problems(json.loads(record_text(record(status=status)))) == []


def test_the_schema_refuses_unknown_fields_and_wrong_types_by_their_place() -> None:
    content = json.loads(record_text(record()))
    content["host"] = "x"
    content["seed"]["index"] = -1
    problems = schema_problems(content)
    assert any("'host' was unexpected" in problem for problem in problems)
    assert any(problem.startswith("seed.index: -1") for problem in problems)


@pytest.mark.parametrize(
    "text",
    ["/tmp/x", "see /srv/project/run.py line 3", "File '/a/b'", "~/runs/x", "C:\\Users\\x", "file:///a/b"],
)
def test_absolute_paths_are_refused_wherever_they_stand(text: str) -> None:
    assert path_in(text)
    with pytest.raises(ValidationError, match=r"failure\.message: holds the path"):
        record(status="failed", failure={"class": "OSError", "message": text})
    content = record_content()
    content["method"]["settings"]["teacher"] = {"file": ["ok", text]}
    with pytest.raises(ValidationError, match=r"settings\.teacher\.file\[1\]: holds the path"):
        Record.model_validate(content)
    assert path_in(scrub(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "kid/efficientnet-lite0",
        "https://example.org/a/b",
        "samples/s",
        "1/2",
        "ghcr.io/a/b@sha256:12",
        "a / b",
        "and/or",
    ],
)
def test_what_only_has_a_slash_is_let_through(text: str) -> None:
    assert path_in(text) is None
    record(status="failed", failure={"class": "OSError", "message": text})


def test_scrubbing_keeps_the_last_part_of_a_path_and_drops_this_machines_name() -> None:
    assert scrub("cannot open /home/someone/runs/x.pt: no space") == "cannot open <path>/x.pt: no space"
    host = socket.gethostname()
    if len(host) > 3:
        assert host not in scrub(f"lost {host} again")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    content = record_content()
    for change in (
        {"cost": {"flops": value}},
        {"curve": [{"samples": 1, "loss": value}]},
        {"overrides": {"a": [value]}},
    ):
        with pytest.raises(ValidationError):
            Record.model_validate(content | change)


def test_a_missing_metric_says_why_and_only_then() -> None:
    assert record(kid=None).metrics[KID].reason == "sampling failed"
    for metric in ({"value": None}, {"value": 1.0, "reason": "x"}):
        with pytest.raises(ValidationError, match="either a value or"):
            record(metrics={KID: metric})


def test_failure_and_status_belong_together() -> None:
    for content in (
        record_content() | {"failure": {"class": "x", "message": "y"}},
        record_content() | {"status": "failed"},
    ):
        with pytest.raises(ValidationError, match="null exactly when status is success"):
            Record.model_validate(content)


def test_curves_must_rise() -> None:
    for curve in ([{"samples": 2}, {"samples": 1}], [{"samples": 1}, {"samples": 1}], [{"loss": 1.0}]):
        with pytest.raises(ValidationError, match="curve: samples must be given and rise"):
            record(curve=curve)


def test_the_last_validation_loss_is_a_score() -> None:
    made = record(loss=0.5)
    assert made.scores["validation_loss"].value == made.validations[-1].loss
    assert "validation_loss" not in record(status="failed").scores


def test_records_are_frozen_and_refuse_unknown_fields() -> None:
    with pytest.raises(ValidationError):
        record().samples = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        record(host="x")
