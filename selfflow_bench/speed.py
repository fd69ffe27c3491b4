"""What a Self-Flow step costs against a vanilla one: FLOPs, bytes kept for backward, times interleaved in one process.

Beside the suite's own step it times what others do: one conditioning row per token, and a teacher run to its end. A
measurement, not a test: ratios on this machine now.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.cost import forward_flops, head_sizes, meta_batch, step_cost
from selfflow_bench.data import captions
from selfflow_bench.errors import FieldError
from selfflow_bench.families.base import Family
from selfflow_bench.flow import TimestepDistribution, per_sample_shape
from selfflow_bench.hidden_states import captured_output
from selfflow_bench.methods.base import Batch, Method
from selfflow_bench.methods.self_flow import SelfFlow
from selfflow_bench.middle_size import MIDDLE_SIZES
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, make_plan
from selfflow_bench.registry import family_class, method_class
from selfflow_bench.saved_for_backward import saved_bytes
from selfflow_bench.training.batches import Batches
from selfflow_bench.training.ema import Ema

BATCH = 4


class _PerTokenRows(SelfFlow):
    """Self-Flow as trainers do it that run the modulation once per token: a level, and so a row, for each."""

    def sigma(self, batch: Batch) -> Tensor | TokenTimes:
        times = super().sigma(batch)
        assert isinstance(times, TokenTimes)
        tokens = times.level.shape[1]
        every = torch.arange(tokens, device=times.level.device).expand_as(times.level)
        return TokenTimes(times.per_token().t(), every, times.context)


class _FullTeacher(SelfFlow):
    """Self-Flow as trainers do it that run the teacher to its end."""

    def teacher_tokens(self, teacher: nn.Module, batch: Batch) -> Tensor:
        cleaner = torch.minimum(batch.first, batch.second)
        view = self.family.noising.noised(batch.latents, batch.noise, per_sample_shape(cleaner, batch.latents))
        block = self.family.blocks(teacher)[(self.settings.teacher_block or 0) - 1]
        with torch.no_grad(), captured_output(block) as outputs:
            self.family.predict(teacher, view, cleaner, batch.conditions)
        return self.family.hidden_tokens(outputs[0], view, batch.conditions)


def measure_speed(places: Places, recipe: str, *, steps: int, threads: int) -> dict[str, Any]:
    """Time interleaved training steps of a recipe at its middle size, and count their FLOPs and saved bytes.

    Returns:
        per kind of step: FLOPs and saved bytes of a sample and median milliseconds of a step, all over vanilla's too;
        the floor; the share of a step outside forward, backward and optimizer.

    Raises FieldError for a recipe without a middle size.
    """
    if recipe not in MIDDLE_SIZES:
        known = ", ".join(MIDDLE_SIZES)
        raise FieldError("speed", "recipe", recipe, "has no middle size", f"One of each modulation has: {known}.")
    middle = MIDDLE_SIZES[recipe]
    plan = make_plan(places, recipe, tier="micro")
    vanilla, self_flow = plan.runs[0], plan.runs[1]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    family = family_class(vanilla.family)({**vanilla.transformer, **middle.transformer})
    kinds: dict[str, tuple[RunSpec, type[Method]]] = {
        "vanilla": (vanilla, method_class("vanilla")),
        "self_flow": (self_flow, SelfFlow),
        "one row per token": (self_flow, _PerTokenRows),
        "full teacher": (self_flow, _FullTeacher),
        "both": (self_flow, type("_Both", (_PerTokenRows, _FullTeacher), {})),
    }
    shape = middle.latent_shape
    batches = _batches(vanilla, family, shape)
    steppers, flops, saved = {}, {}, {}
    for name, (spec, kind) in kinds.items():
        method = kind(kind.settings_class.model_validate(spec.settings), family, 1000)
        steppers[name] = _Stepper(family, method, batches)
        meta = meta_batch(shape, math.prod(family.token_grid(shape)), batches.conditions.shapes(), BATCH)
        flops[name] = step_cost(family, method, meta, step=10).flops_per_sample
        teacher = forward_flops(family, meta, self_flow.settings["teacher_block"])
        saved[name] = steppers[name].saved_bytes() / BATCH
    for stepper in steppers.values():
        stepper.step()
        stepper.forget_times()
    for _ in range(steps):
        for stepper in steppers.values():
            stepper.step()
    medians = {name: statistics.median(stepper.totals) for name, stepper in steppers.items()}
    other = steppers["self_flow"]
    return {
        "recipe": str(plan.recipe),
        "modulation": middle.modulation,
        "batch": BATCH,
        "threads": threads,
        "floor": 1 + teacher / flops["vanilla"],
        "steps": steps,
        "kinds": {
            name: {
                "flops_per_sample": flops[name],
                "flops_over_vanilla": flops[name] / flops["vanilla"],
                "saved_bytes_per_sample": saved[name],
                "saved_over_vanilla": saved[name] / saved["vanilla"],
                "milliseconds": 1000 * medians[name],
                "time_over_vanilla": medians[name] / medians["vanilla"],
            }
            for name in kinds
        },
        "outside_share": 1 - statistics.median(other.inside) / statistics.median(other.totals),
    }


def print_speed(found: dict[str, Any], console: Console) -> None:
    """The measurement as a table."""
    title = f"{found['recipe']} ({found['modulation']}), over vanilla"
    table = Table("step", "FLOPs", "saved", "time", "ms", box=None, pad_edge=False, title=title)
    for name, row in found["kinds"].items():
        table.add_row(
            name,
            f"{row['flops_over_vanilla']:.3f}x",
            f"{row['saved_over_vanilla']:.3f}x",
            f"{row['time_over_vanilla']:.2f}x",
            f"{row['milliseconds']:.0f}",
        )
    console.print(table)
    console.print(
        f"Floor {found['floor']:.3f}x; medians of {found['steps']} interleaved steps on {found['threads']} threads. "
        f"Outside forward, backward and optimizer: {100 * found['outside_share']:.1f} % of a self_flow step.",
        highlight=False,
    )


class _Stepper:
    """Training steps of one method on its own weights, timed whole and inside forward, backward and optimizer."""

    def __init__(self, family: Family, method: Method, batches: Batches) -> None:
        self.method, self.batches = method, batches
        self.transformer = family.build().train()
        self.ema = Ema(self.transformer, 0.99)
        probe = batches.make(range(1))
        self.heads = method.heads(head_sizes(family, self.transformer, method, probe))
        self.parameters = [*self.transformer.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)
        self.totals: list[float] = []
        self.inside: list[float] = []
        self.count = 0

    def step(self) -> None:
        """One training step as the trainer does it."""
        start = time.perf_counter()
        batch = self._batch()
        inside = _timed(lambda: self._loss(batch).backward())  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        inside += _timed(self.optimizer.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        self.totals.append(time.perf_counter() - start)
        self.inside.append(inside)
        self.count += 1

    def forget_times(self) -> None:
        """Leave warm-up steps out."""
        self.totals.clear()
        self.inside.clear()

    def saved_bytes(self) -> int:
        """Bytes kept for a step's backward."""
        return saved_bytes(lambda: self._loss(self._batch()), self.parameters)

    def _batch(self) -> Batch:
        return self.batches.make(range(self.count * BATCH, (self.count + 1) * BATCH))

    def _loss(self, batch: Batch) -> Tensor:
        return self.method.step(self.transformer, self.heads, self.ema.model, batch, self.count + 1).loss


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _batches(spec: RunSpec, family: Family, shape: tuple[int, ...]) -> Batches:
    """Batches of random data of the right shapes: what is timed does not depend on the values."""
    length, count = spec.conditions.data.text_length, 4 * BATCH
    text = {
        "text": torch.randn(64, length, captions.WIDTH),
        "text_mask": torch.ones(64, length, dtype=torch.bool),
        "text_ids": torch.randint(0, captions.VOCABULARY, (64, length)),
    }
    others = {name: family.drawn_condition(name, count, shape) for name in family.needs}
    table = ConditionTable(torch.arange(count) % 64, text, others)
    times = TimestepDistribution("logit_normal")
    return Batches(torch.randn(count, *shape), table, family.token_grid(shape), times, 0.1, spec.seed)
