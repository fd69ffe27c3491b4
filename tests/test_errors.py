"""Errors come back from another process as they were."""

from __future__ import annotations

import pickle

from selfflow_bench.errors import FieldError


def test_an_error_of_a_field_comes_back_whole() -> None:
    error = FieldError("some.toml", "data.fps", None, "is missing", "Set it.")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, FieldError)
    assert str(again) == "some.toml: data.fps = None: is missing. Set it."
    assert again.reason == error.reason
