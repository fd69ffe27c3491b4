"""A record as the Hub's metadata: evaluation results (`.eval_results/*.yaml`) or a model card's `model-index`.

The formats are those of huggingface_hub, which is imported when something is exported. Knows records; nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfflow_bench.errors import FieldError
from selfflow_bench.results.record import Metric, Record
from selfflow_bench.results.wording import metric_title

Format = Literal["eval-results", "model-index"]
TASKS = {"image": "text-to-image", "video": "text-to-video", "audio": "text-to-audio"}
"""The Hub's name of what a model of each modality does."""


@dataclass(frozen=True)
class Published:
    """What only the one who publishes knows. `dataset` is the benchmark's data set on the Hub ("owner/name")."""

    dataset: str | None = None
    source_url: str | None = None


def eval_results(record: Record, published: Published) -> str:
    """YAML for a model's `.eval_results/` folder, an entry per measured metric.

    `task_id` is the protocol and the metric, so that the benchmark's eval.yaml must define it. Raises FieldError for a
    record without scores, or without the data set's id, which the format needs.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    if published.dataset is None:
        remedy = "Give the benchmark's data set on the Hub: --dataset OWNER/NAME."
        raise FieldError("export", "dataset", None, "the eval-results format names a data set of the Hub", remedy)
    entries = [
        EvalResultEntry(
            dataset_id=published.dataset,
            task_id=f"{record.protocol.name}-{name.partition('/')[0]}",
            value=metric.value,
            date=record.created,
            source_url=published.source_url,
            source_name=None if published.source_url is None else f"Self-Flow Bench, {record.run_id}",
            notes=_notes(record, name, metric),
        )
        for name, metric in _measured(record).items()
    ]
    return yaml_dump(eval_result_entries_to_yaml(entries))


def model_index(record: Record, modality: str, published: Published) -> str:
    """YAML for the head of a model card: `model-index` with every measured metric.

    The data set is named by its id on the Hub or else by the protocol. Raises FieldError for a record without scores.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASKS[modality],
            dataset_type=published.dataset or f"selfflow_bench/{record.protocol.name}",
            dataset_name=f"Self-Flow Bench {record.protocol}",
            dataset_split="validation",
            dataset_args={"protocol_digest": record.protocol.digest, **record.data},
            metric_type=name.partition("/")[0],
            metric_value=metric.value,
            metric_name=metric_title(name),
            metric_args=_arguments(metric),
            source_name=None if published.source_url is None else f"Self-Flow Bench, {record.run_id}",
            source_url=published.source_url,
        )
        for name, metric in _measured(record).items()
    ]
    return ModelCardData(model_name=record.run_id, eval_results=results, tags=["selfflow_bench"]).to_yaml() + "\n"


def _measured(record: Record) -> dict[str, Metric]:
    measured = {name: metric for name, metric in record.scores.items() if metric.value is not None}
    if record.status != "success" or not measured:
        remedy = "Give the run id of a run that succeeded."
        raise FieldError(record.run_id, "status", record.status, "the record has no scores to export", remedy)
    return measured


def _arguments(metric: Metric) -> dict[str, str | int | float | bool]:
    known = {
        "lower_is_better": metric.lower_is_better,
        "n": metric.n,
        "network": metric.network,
        "weights_sha256": metric.weights_sha256,
        "floor": metric.floor,
    }
    return {name: value for name, value in known.items() if value is not None}


def _notes(record: Record, name: str, metric: Metric) -> str:
    facts = [
        f"{metric_title(name)}, {'lower' if metric.lower_is_better else 'higher'} is better",
        f"n = {metric.n}" if metric.n else "",
        f"floor {metric.floor:.4g}" if metric.floor is not None else "",
        f"method {record.method.label}",
        f"{record.recipe} {record.tier}, protocol {record.protocol}, seed {record.seed.index}",
        f"protocol digest {record.protocol.digest[:12]}",
        "one seed, so no verdict by itself",
        f"open: made with overrides of {', '.join(sorted(record.overrides))}" if record.overrides else "",
        f"open: unpinned {', '.join(record.unpinned)}" if record.unpinned else "",
    ]
    return "; ".join(fact for fact in facts if fact)
