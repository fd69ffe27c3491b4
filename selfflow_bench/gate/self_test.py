"""Does the gate catch what it is there to catch? Known faults are put into runs, and what it says of them is counted.

The faults are subclasses and patches that live here only: the product has no switch that breaks it. Unchanged code is
counted too, because a gate that always fails also catches everything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from torch import Tensor

from selfflow_bench.evaluation.validation import ValidationLoss, validation_loss
from selfflow_bench.flow import Noising
from selfflow_bench.gate.bands import compare_bands, read_reference, reference_path
from selfflow_bench.gate.check import Gate
from selfflow_bench.gate.golden import Golden, compare_golden
from selfflow_bench.gate.outcome import Verdict
from selfflow_bench.gate.short_run import Change
from selfflow_bench.methods.base import StepResult
from selfflow_bench.stages import training
from selfflow_bench.stages.run import Run
from selfflow_bench.training import loop
from selfflow_bench.training.ema import Ema

UNCHANGED = "unchanged code"
_WORSE = 1.02


@dataclass(frozen=True)
class Fault:
    """Something wrong that can be put into a run. ``applies`` says to which methods."""

    name: str
    change: Change = lambda run: run
    patch: Callable[[], AbstractContextManager[Any]] = nullcontext
    applies: Callable[[str], bool] = lambda _label: True


@dataclass(frozen=True)
class Counted:
    """What the gate said of one fault: verdicts of golden curves to the bit, within the tolerance, and of bands."""

    name: str
    exact: Mapping[Verdict, int]
    tolerant: Mapping[Verdict, int]
    bands: Mapping[Verdict, int]


class _WrongSignNoising(Noising):
    """A target of the wrong sign."""

    def __init__(self, right: Noising) -> None:
        self._right = right

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return self._right.noised(x0, noise, sigma)

    def target(self, x0: Tensor, noise: Tensor) -> Tensor:
        return -self._right.target(x0, noise)

    def data(self, noisy: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        return self._right.data(noisy, -prediction, sigma)


class _StaleEma(Ema):
    """An average that misses every other step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._updates = 0

    def update(self) -> None:
        self._updates += 1
        if self._updates % 2:
            super().update()


class _WorseLoss:
    """Mixed into a method's class: a loss 2 % too high."""

    def step(self, *arguments: Any) -> StepResult:
        right: StepResult = super().step(*arguments)  # type: ignore[misc]
        return StepResult(right.loss * _WORSE, right.metrics)


def _wrong_sign(run: Run) -> Run:
    method, family = copy.copy(run.method), copy.copy(run.method.family)
    family.noising = _WrongSignNoising(family.noising)  # type: ignore[misc]
    method.family = family
    return replace(run, method=method)


def _shifted_mask(run: Run) -> Run:
    method = copy.copy(run.method)
    ratio = method.settings.mask_ratio
    method.settings = method.settings.model_copy(update={"mask_ratio": ratio + 0.1 if ratio < 0.4 else ratio - 0.1})
    return replace(run, method=method)


def _worse_loss(run: Run) -> Run:
    kind = type(run.method)
    worse: type[Any] = type(f"Worse{kind.__name__}", (_WorseLoss, kind), {})
    method = object.__new__(worse)
    vars(method).update(vars(run.method))
    return replace(run, method=method)


def _worse_validation() -> AbstractContextManager[Any]:
    def measured(*arguments: Any) -> ValidationLoss:
        right = validation_loss(*arguments)
        return ValidationLoss(right.whole * _WORSE, tuple(loss * _WORSE for loss in right.per_timestep))

    return mock.patch.object(training, "validation_loss", measured)


FAULTS = (
    Fault(UNCHANGED),
    Fault("a wrong sign", change=_wrong_sign),
    Fault("a mask ratio shifted by 0.1", change=_shifted_mask, applies=lambda label: label != "vanilla"),
    Fault("a stale EMA", patch=lambda: mock.patch.object(loop, "Ema", _StaleEma)),
    Fault("a loss 2 % worse", change=_worse_loss, patch=_worse_validation),
)


def self_test(gate: Gate, recipes: Sequence[str], groups: int) -> list[Counted]:
    """Count over recipes, their methods and, for bands, as many groups of candidate runs, each of other seeds."""
    goldens = {
        (recipe, label): gate.golden_curve(recipe, label) for recipe in recipes for label in gate.settings.methods
    }
    return [_counted(gate, fault, goldens, groups) for fault in FAULTS]


def caught(counted: Sequence[Counted]) -> bool:
    """Whether golden curves found every fault both ways, and nothing in unchanged code."""
    return all(
        set(found) == {"pass" if one.name == UNCHANGED else "regression"}
        for one in counted
        for found in (one.exact, one.tolerant)
    )


def _counted(gate: Gate, fault: Fault, goldens: Mapping[tuple[str, str], Golden], groups: int) -> Counted:
    exact: dict[Verdict, int] = {}
    tolerant: dict[Verdict, int] = {}
    bands: dict[Verdict, int] = {}
    settings = gate.settings
    for (recipe, label), golden in goldens.items():
        if not fault.applies(label):
            continue
        with ExitStack() as stack:
            stack.enter_context(fault.patch())
            found = gate.golden_curve(recipe, label, fault.change)
            for counts, arithmetic in ((exact, found.arithmetic), (tolerant, {"cpu": "another"})):
                ours = replace(found, arithmetic=arithmetic)
                outcome = compare_golden(recipe, golden, ours, tolerance=settings.golden.tolerance)
                counts[outcome.verdict] = counts.get(outcome.verdict, 0) + 1
            reference = read_reference(reference_path(gate.folder, recipe, label))
            first, size = settings.bands.reference_runs, settings.bands.candidate_runs
            for group in range(groups if recipe in settings.bands.recipes else 0):
                start = first + group * size
                outcome = compare_bands(
                    recipe,
                    reference,
                    gate.band_identity(recipe, label),
                    gate.losses(recipe, label, range(start, start + size), fault.change) if reference else [],
                    margin=settings.bands.margin,
                    false_alarms=settings.bands.false_alarms,
                )
                bands[outcome.verdict] = bands.get(outcome.verdict, 0) + 1
    return Counted(fault.name, exact, tolerant, bands)
