"""What a training step costs at the published size: the published configuration on the meta device, counted.

Nothing is allocated and nothing is downloaded. What cannot be counted as it stands is said in `step_costs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.cost import counted, matrix_products
from selfflow_bench.families.base import LABEL, REFERENCE, Family
from selfflow_bench.hidden_states import output_of_block
from selfflow_bench.meta_values import MetaValues
from selfflow_bench.places import Places
from selfflow_bench.recipe import Published, load_recipe
from selfflow_bench.registry import family_class

BATCH = 1


@dataclass(frozen=True)
class PublishedCost:
    """FLOPs of one sample's training step, in units of 1 (a multiply-add is 2), and memory in bytes.

    Args:
        forward: one plain forward, F.
        teacher: a forward that ends behind the teacher's block.
        vanilla: forward and backward of the student.
        self_flow: vanilla with two levels of conditioning, and the teacher.
        row: what one more conditioning row per sample costs, forward and backward.
        tokens: target tokens of a sample.
        parameters: of the transformer.
        activations: bytes of one bfloat16 hidden state behind every block, as gradient checkpointing keeps them.
    """

    forward: float
    teacher: float
    vanilla: float
    self_flow: float
    row: float
    tokens: int
    parameters: int
    activations: int

    @property
    def ratio(self) -> float:
        """Self-Flow over vanilla."""
        return self.self_flow / self.vanilla

    @property
    def floor(self) -> float:
        """The least it can be: the student's step and the teacher's part of a forward."""
        return (self.vanilla + self.teacher) / self.vanilla

    @property
    def per_token_rows(self) -> float:
        """Over vanilla, with a conditioning row for every token instead of two levels."""
        return (self.self_flow + (self.tokens - 2) * self.row) / self.vanilla

    @property
    def full_teacher(self) -> float:
        """Over vanilla, with a teacher that runs to its end."""
        return (self.self_flow + self.forward - self.teacher) / self.vanilla

    @property
    def full_training_bytes(self) -> int:
        """bfloat16 weights and gradients, float32 AdamW moments and EMA: 16 bytes a parameter; and activations."""
        return 16 * self.parameters + self.activations

    @property
    def lora_training_bytes(self) -> int:
        """bfloat16 weights, and activations; adapters, their moments and EMA are under a hundredth of that."""
        return 2 * self.parameters + self.activations

    def row_of(self, recipe: str, size: str) -> dict[str, Any]:
        """What the cost table shows: a line a recipe, by the family's name but for its other sizes."""
        return {
            "family": recipe,
            "size": size,
            "parameters": self.parameters / 1e9,
            "tokens": self.tokens,
            "forward_tflop": self.forward / 1e12,
            "vanilla_tflop": self.vanilla / 1e12,
            "self_flow_tflop": self.self_flow / 1e12,
            "ratio": self.ratio,
            "floor": self.floor,
            "per_token_rows": self.per_token_rows,
            "full_teacher": self.full_teacher,
            "full_gb": self.full_training_bytes / 1e9,
            "lora_gb": self.lora_training_bytes / 1e9,
        }


def recipe_cost(places: Places, recipe: str) -> dict[str, Any]:
    """The cost table's row of a recipe."""
    where, found = load_recipe(places.recipes, recipe)
    family = family_class(found.family)(found.published.transformer)
    return published_cost(family, found.published).row_of(where.name, found.published.size)


def published_cost(family: Family, published: Published) -> PublishedCost:
    """Count a family's step at its published size. ``family`` holds the published configuration."""
    with MetaValues() as values:
        return _counted_cost(family, published, values)


def _counted_cost(family: Family, published: Published, values: MetaValues) -> PublishedCost:
    with torch.device("meta"):
        transformer = family.countable(family.build().train())
    latents, conditions = sample_of(published, published.latent_shape, values)
    blocks = family.blocks(transformer)
    sigma = torch.empty(BATCH, device="meta")
    grid = family.token_grid(latents.shape[1:])
    tokens = math.prod(grid)

    def plain() -> Tensor:
        return family.predict(transformer, latents, sigma, conditions)

    def step(levels: int) -> None:
        times = torch.empty(levels, BATCH, device="meta")
        level = torch.zeros(BATCH, tokens, dtype=torch.int64, device="meta")
        family.predict(transformer, latents, TokenTimes(times, level), conditions).sum().backward()  # type: ignore[no-untyped-call]

    def in_inference(work: Any) -> Any:
        with torch.no_grad():
            return work()

    forward = counted(lambda: in_inference(plain))
    hidden: list[Tensor] = []

    def until_teacher() -> None:
        output = output_of_block(blocks[published.teacher_block - 1], plain)
        hidden.append(family.hidden_tokens(output, latents, conditions))

    teacher = counted(lambda: in_inference(until_teacher))
    vanilla = counted(lambda: plain().sum().backward())  # type: ignore[no-untyped-call]
    student = counted(lambda: step(2))
    row = (matrix_products(lambda: step(4)) - matrix_products(lambda: step(2))) / 2
    return PublishedCost(
        forward=forward / BATCH,
        teacher=teacher / BATCH,
        vanilla=vanilla / BATCH,
        self_flow=(student + teacher) / BATCH,
        row=row / BATCH,
        tokens=tokens,
        parameters=sum(value.numel() for value in transformer.parameters()),
        activations=2 * len(blocks) * math.prod(hidden[0].shape),
    )


def sample_of(
    published: Published, latent_shape: Sequence[int], values: MetaValues
) -> tuple[Tensor, dict[str, Tensor]]:
    """Latents of a shape and conditions without data; the values of masks, which hide nothing, are known.

    References have the latents' shape, or that of one of their frames.
    """
    latents = torch.empty(BATCH, *latent_shape, device="meta")
    conditions: dict[str, Tensor] = {}
    for name, size in published.conditions.items():
        shape = [size[0], 1, *latent_shape[2:]] if name == REFERENCE and len(latent_shape) == 4 else size
        kind = torch.int64 if name == LABEL else torch.float32
        conditions[name] = torch.empty(BATCH, *shape, dtype=kind, device="meta")
        if name.startswith("text"):
            conditions[f"{name}_mask"] = values.give(torch.ones(BATCH, shape[0], dtype=torch.bool))
    if "text" in conditions:
        conditions["text_ids"] = torch.zeros(BATCH, conditions["text"].shape[1], dtype=torch.int64, device="meta")
    return latents, conditions
