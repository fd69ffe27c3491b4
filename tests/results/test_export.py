"""Exports are read back by the Hub's own library as what the record says."""

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData, parse_eval_result_entries
from record_factory import FRECHET, KID, record

from selfflow_bench.errors import FieldError
from selfflow_bench.results.export import Published, eval_results, model_index

PUBLISHED = Published("owner/benchmark", "https://example.org/record.json")


def test_a_model_index_is_read_back_by_the_hub_library() -> None:
    made = record("self_flow", 2)
    card = ModelCard(f"---\n{model_index(made, 'image', PUBLISHED)}---\n")
    data = card.data
    assert isinstance(data, ModelCardData)
    assert data.model_name == made.run_id
    found = {result.metric_type: result for result in data.eval_results or []}
    assert {name: result.metric_value for name, result in found.items()} == {
        "validation_loss": made.validations[-1].loss,
        "kid": made.metrics[KID].value,
        "frechet": made.metrics[FRECHET].value,
    }
    kid = found["kid"]
    assert (kid.task_type, kid.dataset_type, kid.source_url) == (
        "text-to-image",
        "owner/benchmark",
        PUBLISHED.source_url,
    )
    assert kid.metric_args is not None
    assert kid.metric_args["network"] == made.metrics[KID].network
    assert kid.dataset_args is not None
    assert kid.dataset_args["protocol_digest"] == made.protocol.digest


def test_eval_results_are_read_back_by_the_hub_library() -> None:
    made = record("self_flow", 2, overrides={"training.samples": 640})
    entries = parse_eval_result_entries(yaml.safe_load(eval_results(made, PUBLISHED)))
    assert [(entry.dataset_id, entry.task_id) for entry in entries] == [
        ("owner/benchmark", f"image-micro-{name}") for name in ("validation_loss", "kid", "frechet")
    ]
    assert [entry.value for entry in entries] == [metric.value for metric in made.scores.values()]
    assert {entry.date for entry in entries} == {made.created}
    assert entries[0].notes is not None
    assert "method self_flow" in entries[0].notes
    assert "made with overrides of training.samples" in entries[0].notes


def test_a_missing_metric_is_left_out() -> None:
    entries = parse_eval_result_entries(yaml.safe_load(eval_results(record(kid=None), PUBLISHED)))
    assert [entry.task_id for entry in entries] == ["image-micro-validation_loss", "image-micro-frechet"]


def test_what_cannot_be_exported_is_refused() -> None:
    with pytest.raises(FieldError, match=r"status = 'failed': the record has no scores"):
        model_index(record(status="failed"), "image", PUBLISHED)
    with pytest.raises(FieldError, match=r"dataset = None.*--dataset OWNER/NAME"):
        eval_results(record(), Published())
