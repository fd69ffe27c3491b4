"""What a step of a run costs, counted and not timed."""

from __future__ import annotations

import math

from torch import nn

from selfflow_bench.cost import encoder_flops, meta_batch, step_cost
from selfflow_bench.registry import method_class
from selfflow_bench.stages.run import Run
from selfflow_bench.training.adapters import as_evaluated
from selfflow_bench.training.start import starting_transformer


def count_cost(run: Run) -> dict[str, float]:
    """FLOPs of a step, counted on the meta device, at the step where the method's weight is in full force.

    An external encoder's, which ran in preparation, are spread over the samples of the run.
    """
    settings = run.spec.conditions.training
    shape = run.data.latent_shape
    conditions = run.conditions(run.data.train).shapes()
    tokens, needs = math.prod(run.family.token_grid(shape)), run.method.needs

    def adapted() -> tuple[nn.Module, nn.Module]:
        transformer = starting_transformer(run.family, 0, where=f"recipe {run.spec.recipe}", lora=run.spec.lora)
        return transformer, as_evaluated(transformer)

    models = None if run.spec.lora is None else adapted
    vanilla_kind = method_class("vanilla")
    vanilla = step_cost(
        run.family,
        vanilla_kind(vanilla_kind.settings_class(), run.family, 1),
        meta_batch(shape, tokens, conditions, settings.batch),
        step=0,
        models=models,
    )
    features = () if run.features is None else run.features.shape
    own = step_cost(
        run.family,
        run.method,
        meta_batch(shape, tokens, conditions, settings.batch, needs, features),
        step=run.spec.conditions.steps // 2,
        models=models,
    )
    encoding = 0.0
    if needs.encoder is not None and run.features is not None:
        # Every item is encoded once, whatever the number of times it is seen.
        pictures = run.features.pictures_per_item * len(run.data.train.latents)
        encoding = encoder_flops(needs.encoder) * pictures / settings.samples
    whole = own.flops_per_sample + encoding
    return {
        "flops_per_sample": whole,
        "encoder_flops_per_sample": encoding,
        "forward_flops_per_sample": own.forward_flops_per_sample,
        "flops_over_vanilla": whole / vanilla.flops_per_sample,
        "parameters": own.parameters,
    }
