"""What runs a claim of the ledger, what that costs, and what its records say of it.

A published number is of one method at one number of samples: its runs are the recipe's reference tier with that
method, over the suite's derived seeds, for as many samples. Where these are not the protocol's own the runs are
recorded as overridden, and so are never ranked. Knows nothing of how runs are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from selfflow_bench.cost import encoder_flops, meta_batch, step_cost
from selfflow_bench.encoders import encoder_class
from selfflow_bench.errors import FieldError
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan, method_of
from selfflow_bench.recipe import load_recipe
from selfflow_bench.registry import family_class
from selfflow_bench.results.claims import FILE, Claim
from selfflow_bench.results.record import Record
from selfflow_bench.results.reproduction import Reproduction, judge

FID = "FID"
"""The published metric that is measured here; the others come from the evaluator that `export-samples` writes for."""
_BATCH = 2


@dataclass(frozen=True)
class ClaimCost:
    """FLOPs of one run, a multiply-add being 2. An external encoder's are for one pass over a sample."""

    training: float
    sampling: float
    encoder_per_item: float

    @property
    def whole(self) -> float:
        """Training and sampling."""
        return self.training + self.sampling

    def hours(self, peak: float, share: float) -> float:
        """On one device that does ``peak`` FLOPs a second, of which ``share`` are reached."""
        return self.whole / (peak * share) / 3600


def claim_runs(places: Places, claim: Claim, seeds: int) -> tuple[RunSpec, ...]:
    """The runs of a claim, one a seed. Raises FieldError for a claim that nothing here runs."""
    if claim.run is None:
        raise FieldError(FILE, claim.id, claim.model, f"is not plannable: {claim.not_plannable}", "Choose another.")
    _, recipe = load_recipe(places.recipes, claim.run.recipe)
    if "reference" not in recipe.tiers:
        raise FieldError(FILE, f"{claim.id}.run.recipe", claim.run.recipe, "has no reference tier", "Name another.")
    options = {"tier": "reference", "labels": (claim.run.label,), "seeds": seeds}
    plan = make_plan(places, claim.run.recipe, **options)  # type: ignore[arg-type]
    training = plan.runs[0].conditions.training
    samples = claim.samples(training.batch)
    if samples != training.samples:
        plan = make_plan(places, claim.run.recipe, **options, overrides={"training.samples": samples})  # type: ignore[arg-type]
    return tuple(run for run in plan.runs if run.label == claim.run.label)


def claim_cost(places: Places, spec: RunSpec) -> ClaimCost:
    """Counted on the meta device: steps with the method in full force, and one forward a step of the sampler."""
    _, recipe = load_recipe(places.recipes, spec.recipe.name, spec.recipe.version)
    family = family_class(spec.family)(spec.transformer)
    method = method_of(spec, family)
    shape = recipe.published.latent_shape
    drawn = {name: family.drawn_condition(name, 1, shape) for name in family.needs}
    conditions = {name: (tuple(value.shape[1:]), value.dtype) for name, value in drawn.items()}
    encoder = method.needs.encoder
    features: tuple[int, ...] = ()
    if encoder is not None:
        features = (*encoder_class(encoder).grid, encoder_class(encoder).channels)
    tokens = math.prod(family.token_grid(shape))
    batch = meta_batch(shape, tokens, conditions, _BATCH, method.needs, features)
    with torch.no_grad():
        encoding = 0.0 if encoder is None else encoder_flops(encoder)
    step = step_cost(family, method, batch, step=spec.conditions.steps // 2)
    evaluation = spec.conditions.evaluation
    forwards = evaluation.samples * int(evaluation.sampler_steps)
    return ClaimCost(
        training=step.flops_per_sample * spec.conditions.training.samples,
        sampling=step.forward_flops_per_sample * forwards,
        encoder_per_item=encoding,
    )


def verdict(claim: Claim, spec: RunSpec, records: Sequence[Record]) -> Reproduction | None:
    """What the records of a claim's runs say of its FID; None where none of them measured it.

    The margin is the protocol's own, written down before the runs.
    """
    name = f"fid/{spec.conditions.evaluation.network}"
    found = [record.metrics[name].value for record in records if name in record.metrics]
    measured = [value for value in found if value is not None]
    margins = spec.conditions.margins
    if not measured or margins is None or margins.fid is None or FID not in claim.metrics:
        return None
    return judge(claim.metrics[FID], measured, margins.fid)
