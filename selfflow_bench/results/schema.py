"""The published JSON Schema of records. `python -m selfflow_bench.results.schema` writes it anew from the model."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from selfflow_bench.results.record import Record

SCHEMA_PATH = Path(__file__).with_name("record.schema.json")


def schema_text() -> str:
    """The schema as the file must hold it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Record.model_json_schema(by_alias=True, mode="validation"),
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def schema_problems(content: Any) -> list[str]:
    """Where parsed JSON departs from the published schema, one line each, in order of place; empty if it conforms."""
    found = sorted(_validator().iter_errors(content), key=lambda error: error.json_path)
    return [f"{error.json_path.removeprefix('$.')}: {error.message}" for error in found]


@lru_cache(maxsize=1)
def _validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
