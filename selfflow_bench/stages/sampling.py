"""How a run's samples are made: of what, by which sampler, and which of them together.

Of embedded data all samples are made before any of them is looked at; of published sizes there is never more than a
batch. Knows nothing of what the samples are measured with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.data.prepare_published import Autoencoder
from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation import euler_maruyama
from selfflow_bench.evaluation.distances import fixed_choice
from selfflow_bench.evaluation.sampling import Sampler, sample
from selfflow_bench.families.base import GUIDANCE
from selfflow_bench.pipelines.base import PublishedPipeline, classifier_free
from selfflow_bench.plan import RunSpec
from selfflow_bench.randomness import per_sample
from selfflow_bench.stages.run import Run


@dataclass(frozen=True)
class Way:
    """One way of sampling a model: of each, the distances are measured.

    Args:
        steps: of the sampler.
        guidance: the scale; 1 is none.
        suffix: what the names of its metrics end in; empty for the protocol's own steps without guidance.
    """

    steps: int
    guidance: float
    suffix: str


def ways(run: Run) -> tuple[Way, ...]:
    """The protocol's guidance scales, each once, and the few steps that the method was trained for."""
    published, settings, spec = _published(run), run.spec.conditions.evaluation, run.spec
    steps = settings.sampler_steps
    if steps == "documented":
        steps = _documented(spec, published, "sampler_steps").steps
    scales = [
        _documented(spec, published, "guidance").guidance if scale == "documented" else scale
        for scale in settings.guidance
    ]
    guided = [Way(steps, scale, "" if scale == 1 else f"/guidance-{scale:g}") for scale in dict.fromkeys(scales)]
    return (*guided, *(Way(few, 1.0, f"/{few}-step") for few in run.method.few_steps))


class Samples:
    """All samples of a run's evaluation, made one way.

    Raises FieldError where the family cannot be sampled so.
    """

    def __init__(self, run: Run, way: Way) -> None:
        self._run, self._way = run, way
        self._settings = run.spec.conditions.evaluation
        self._published = _published(run)
        if self._settings.sampler == "euler_maruyama" and way.guidance != 1:
            where, problem = f"protocol {run.spec.protocol}", "this sampler has no guidance"
            raise FieldError(where, "evaluation.guidance", way.guidance, problem, "Leave evaluation.guidance out.")
        if self._settings.labels == "uniform":
            self._table, self._items, self.names = _of_drawn_classes(run)
        else:
            split = run.data.validation
            self._items = torch.from_numpy(fixed_choice(len(split.latents), self._settings.samples))
            self._table, self.names = run.conditions(split), [split.names[int(item)] for item in self._items]

    def parts(self) -> list[range]:
        """The samples that are made, and looked at, together."""
        return parts(self._settings.samples, self._settings.batch, published=self._published is not None)

    def media(self, model: nn.Module, samples: range, before_step: Callable[[], None]) -> np.ndarray[Any, Any]:
        """Generated media ``[M, ...]``; ``before_step`` is called in each step of each batch and may raise to stop."""
        made = []
        for start in range(samples.start, samples.stop, self._settings.batch):
            rows = range(start, min(start + self._settings.batch, samples.stop))
            made.append(self._latents(model, rows, before_step).cpu())
            self._run.events.write("sampling", done=rows.stop, of=self._settings.samples)
        return np.asarray(self._run.data.codec.decode(torch.cat(made)))

    def _latents(self, model: nn.Module, rows: range, before_step: Callable[[], None]) -> Tensor:
        run, items = self._run, self._items[rows.start : rows.stop]
        conditions = self._table.of(items)
        shape, model = run.data.latent_shape, model.eval()
        given: dict[str, Any] = {
            "samples": rows,
            "seed": run.spec.seed,
            "bfloat16": run.spec.conditions.training.precision == "bf16",
            "before_step": before_step,
        }
        if self._settings.sampler == "euler_maruyama":
            return euler_maruyama.sample(run.family, model, conditions, shape, steps=self._way.steps, **given)
        away = self._table.of(items, torch.ones(len(rows), dtype=torch.bool))
        for name, value in run.data.negative.items():
            away[name] = value.expand(len(rows), *value.shape[1:])
        if self._embeds_guidance:
            conditions[GUIDANCE] = torch.full((len(rows),), self._way.guidance)
        sampler = self._sampler(next(model.parameters()).device)
        return sample(run.family, model, conditions, away, shape, sampler, **given)

    @property
    def _embeds_guidance(self) -> bool:
        published = self._published
        return self._way.guidance != 1 and published is not None and published.guided_by == "embedded"

    def _sampler(self, device: torch.device) -> Sampler:
        run, way, published = self._run, self._way, self._published
        unguided = way.guidance == 1 or self._embeds_guidance
        if published is not None:
            return Sampler(
                lambda: published.schedule(run.data.latent_shape, way.steps),
                published.noise_scale,
                None if unguided else lambda: published.guide(way.guidance),
            )

        def schedule() -> Any:
            scheduler = run.family.scheduler(run.spec.conditions.timesteps.shift)
            scheduler.set_timesteps(way.steps, device=device)
            return scheduler

        return Sampler(schedule, guide=None if unguided else lambda: classifier_free(way.guidance))


def parts(count: int, batch: int, *, published: bool) -> list[range]:
    """``count`` samples in batches, or all of them together."""
    size = batch if published else count
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _published(run: Run) -> PublishedPipeline | None:
    codec = run.data.codec
    if not isinstance(codec, Autoencoder):
        return None
    codec.pipeline.video_grid = run.family.aligned_grid(run.data.latent_shape)
    return codec.pipeline


def _documented(spec: RunSpec, published: PublishedPipeline | None, field: str) -> PublishedPipeline:
    if published is None:
        problem, remedy = "only published weights come with a documented number", "Set a number."
        raise FieldError(f"protocol {spec.protocol}", f"evaluation.{field}", "documented", problem, remedy)
    return published


def _of_drawn_classes(run: Run) -> tuple[ConditionTable, Tensor, list[str]]:
    classes, settings = run.family.classes, run.spec.conditions.evaluation
    if classes is None:
        field = "evaluation.labels"
        problem = f"{run.spec.family} knows no classes"
        raise FieldError(f"protocol {run.spec.protocol}", field, settings.labels, problem, "Leave it out.")
    drawn = per_sample(
        lambda source: torch.randint(classes, (), generator=source), run.spec.seed, "label", range(settings.samples)
    )
    table = ConditionTable.of_classes(drawn, classes, {})
    return table, torch.arange(settings.samples), [f"class {label}" for label in drawn.tolist()]
