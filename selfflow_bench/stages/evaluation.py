"""What a trained model is measured to be worth: the distances of its samples from real media."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.canonical import digest
from selfflow_bench.data import sources
from selfflow_bench.errors import FieldError, InterruptedRunError
from selfflow_bench.evaluation import euler_maruyama
from selfflow_bench.evaluation.distances import fixed_choice, measure
from selfflow_bench.evaluation.features import network
from selfflow_bench.evaluation.sampling import sample
from selfflow_bench.families.base import LABEL
from selfflow_bench.plan import RunSpec
from selfflow_bench.randomness import per_sample
from selfflow_bench.stages.run import Run, initial_transformer
from selfflow_bench.training.adapters import as_evaluated

SHOWN_SAMPLES = 32
"""Generated media kept for looking at: the first of the evaluation's."""


def evaluate(run: Run, model: nn.Module) -> dict[str, Any]:
    """Distances of the model's samples; the same for the untrained weights, made once per seed and shared.

    Writes the first samples to ``samples.npz`` for looking at.
    """
    run.events.write("stage", name="evaluate")
    media, captions = generate(run, model)
    metrics = distances(run, media)
    for steps in run.method.few_steps:
        few, _ = generate(run, model, steps)
        metrics |= {f"{name}/{steps}-step": value for name, value in distances(run, few).items()}
    shown = min(SHOWN_SAMPLES, len(media))
    np.savez_compressed(run.folder / "samples.npz", media=media[:shown], captions=np.array(captions[:shown]))
    untrained = run.cache / "untrained" / f"{_untrained_key(run.spec)}.json"
    if not untrained.exists():
        run.events.write("stage", name="evaluate untrained weights")
        start = as_evaluated(initial_transformer(run.spec, run.family)).to(next(model.parameters()).device)
        start_media, _ = generate(run, start)
        untrained.parent.mkdir(parents=True, exist_ok=True)
        replace_text(untrained, json.dumps(distances(run, start_media)))
    return {"metrics": metrics, "untrained": json.loads(untrained.read_text(encoding="utf-8"))}


def generate(run: Run, model: nn.Module, steps: int | None = None) -> tuple[np.ndarray[Any, Any], list[str]]:
    """One medium per chosen validation item, from its caption, or per drawn class: uint8 or int16 media, and of what.

    ``steps`` of the sampler; by default the protocol's.
    """
    settings, spec = run.spec.conditions.evaluation, run.spec
    conditions, names = _wanted(run)

    def progress(done: int) -> None:
        if run.stop():
            raise InterruptedRunError("stopped while sampling; training is kept, sampling will start again")
        run.events.write("sampling", done=done, of=settings.samples)

    shape, count = run.data.latent_shape, steps or _sampler_steps(run.spec)
    if settings.sampler == "euler_maruyama":
        parts = []
        for start in range(0, settings.samples, settings.batch):
            rows = range(start, min(start + settings.batch, settings.samples))
            chosen = {name: value[rows.start : rows.stop] for name, value in conditions.items()}
            made = euler_maruyama.sample(
                run.family, model.eval(), chosen, shape, steps=count, samples=rows, seed=spec.seed
            )
            parts.append(made.cpu())
            progress(rows.stop)
        latents = torch.cat(parts)
    else:
        latents = sample(
            run.family,
            model.eval(),
            conditions,
            shape,
            steps=count,
            shift=spec.conditions.timesteps.shift,
            batch=settings.batch,
            seed=spec.seed,
            progress=progress,
        )
    return np.asarray(run.data.codec.decode(latents)), names


def _wanted(run: Run) -> tuple[dict[str, Tensor], list[str]]:
    """The conditions of all samples, and their names."""
    settings, split = run.spec.conditions.evaluation, run.data.validation
    if settings.labels == "validation":
        chosen = torch.from_numpy(fixed_choice(len(split.latents), settings.samples))
        return run.conditions(split).of(chosen), [split.names[int(index)] for index in chosen]
    classes = run.family.classes
    if classes is None:
        field = "evaluation.labels"
        problem = f"{run.spec.family} knows no classes"
        raise FieldError(f"protocol {run.spec.protocol}", field, settings.labels, problem, "Leave it out.")
    drawn = per_sample(
        lambda source: torch.randint(classes, (), generator=source), run.spec.seed, "label", range(settings.samples)
    )
    return {LABEL: drawn}, [f"class {label}" for label in drawn.tolist()]


def distances(run: Run, media: np.ndarray[Any, Any]) -> dict[str, dict[str, Any]]:
    """KID and Frechet distance with the protocol's network, each with its real-vs-real floor."""
    settings, source = run.spec.conditions.evaluation, run.spec.conditions.data.source
    real = {}
    for split in ("train", "validation"):
        data = sources.load(source, split)
        real[split] = sources.media(data.select(fixed_choice(len(data), settings.samples)))
    # The floor is what a perfect model could reach: real media, through the codec as every sample is.
    codec = run.data.codec
    real["train"] = np.asarray(codec.decode(codec.encode(real["train"])))
    found = measure(
        network(settings.network, run.cache, where=f"protocol {run.spec.protocol}"),
        media,
        real["validation"],
        real["train"],
        cache=run.cache,
        subsets=settings.kid_subsets,
        subset_size=settings.kid_subset_size,
    )
    return found.metrics()


def _sampler_steps(spec: RunSpec) -> int:
    steps = spec.conditions.evaluation.sampler_steps
    if steps == "documented":
        problem = "only published weights come with a documented number"
        raise FieldError(f"protocol {spec.protocol}", "evaluation.sampler_steps", steps, problem, "Set a number.")
    return steps


def _untrained_key(spec: RunSpec) -> str:
    return digest(
        {
            "recipe": spec.recipe.digest,
            "protocol": spec.protocol.digest,
            "seed": spec.seed,
            "torch": torch.__version__,
        }
    )
