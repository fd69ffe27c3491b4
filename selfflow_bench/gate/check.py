"""The gate itself: runs what gate.toml names and compares it with what lies in ci/; or makes that anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from selfflow_bench.errors import NonFiniteLossError, SuiteError
from selfflow_bench.gate.bands import Reference, compare_bands, read_reference, reference_path, write_reference
from selfflow_bench.gate.golden import Golden, compare_golden, golden_path, read_golden, write_golden
from selfflow_bench.gate.outcome import Outcome
from selfflow_bench.gate.settings import GateSettings
from selfflow_bench.gate.short_run import Change, arithmetic, identity, short_run, smoke_spec
from selfflow_bench.places import Places

Say = Callable[[Outcome], None]


class Gate:
    """What one invocation of the gate works with."""

    def __init__(self, places: Places, folder: Path, settings: GateSettings) -> None:
        self.places, self.folder, self.settings = places, folder, settings

    def golden_curve(self, recipe: str, label: str, change: Change = lambda run: run) -> Golden:
        """The curve of the first steps, made now."""
        spec = smoke_spec(self.places, recipe, label, steps=self.settings.golden.steps)
        return Golden(identity(spec), arithmetic(), short_run(spec, self.places.cache, change))

    def losses(self, recipe: str, label: str, seeds: Iterable[int], change: Change = lambda run: run) -> list[float]:
        """Validation losses at the end of whole smoke runs."""
        specs = [smoke_spec(self.places, recipe, label, seed=seed) for seed in seeds]
        return [short_run(spec, self.places.cache, change).validation_loss for spec in specs]

    def band_identity(self, recipe: str, label: str) -> dict[str, str]:
        """What all runs of a band are."""
        known = identity(smoke_spec(self.places, recipe, label))
        return {field: value for field, value in known.items() if field != "seed"}

    def check_golden(self, recipe: str, label: str, *, exact: bool) -> Outcome:
        """One golden curve against its file."""
        golden = read_golden(golden_path(self.folder, recipe, label))
        subject = f"{recipe} {label}, golden curve"
        if golden is None:
            return Outcome(
                subject, "nothing measured", "there is no golden curve. Make it: selfflow-bench check --renew"
            )
        found = self.golden_curve(recipe, label)
        return compare_golden(subject, golden, found, tolerance=self.settings.golden.tolerance, exact=exact)

    def check_bands(self, recipe: str, label: str) -> Outcome:
        """Runs of seeds that the reference has not, against its spread."""
        settings = self.settings.bands
        reference = read_reference(reference_path(self.folder, recipe, label))
        seeds = range(settings.reference_runs, settings.reference_runs + settings.candidate_runs)
        candidate = self.losses(recipe, label, seeds) if reference else []
        return compare_bands(
            f"{recipe} {label}, bands",
            reference,
            self.band_identity(recipe, label),
            candidate,
            margin=settings.margin,
            false_alarms=settings.false_alarms,
        )

    def run(self, recipes: Sequence[str], *, bands: bool, exact: bool, say: Say) -> list[Outcome]:
        """Everything; each outcome is said as it is known."""
        found = []
        for recipe in recipes:
            for label in self.settings.methods:
                tasks = [lambda r=recipe, m=label: self.check_golden(r, m, exact=exact)]
                if bands and recipe in self.settings.bands.recipes:
                    tasks.append(lambda r=recipe, m=label: self.check_bands(r, m))
                for task in tasks:
                    found.append(_guarded(f"{recipe} {label}", task))
                    say(found[-1])
        return found

    def renew(self, recipes: Sequence[str], *, bands: bool) -> list[Path]:
        """Make golden curves, or references, from the code as it is; the files written."""
        written = []
        for recipe in recipes:
            for label in self.settings.methods:
                if not bands:
                    path = golden_path(self.folder, recipe, label)
                    write_golden(path, self.golden_curve(recipe, label))
                    written.append(path)
                elif recipe in self.settings.bands.recipes:
                    path = reference_path(self.folder, recipe, label)
                    losses = self.losses(recipe, label, range(self.settings.bands.reference_runs))
                    write_reference(path, Reference(self.band_identity(recipe, label), tuple(losses)))
                    written.append(path)
        return written


def _guarded(subject: str, task: Callable[[], Outcome]) -> Outcome:
    """A run that does not finish is a verdict too: the loss's own fault, or the machine's."""
    try:
        return task()
    except NonFiniteLossError as error:
        return Outcome(subject, "regression", str(error))
    except (SuiteError, OSError, MemoryError, RuntimeError) as error:
        return Outcome(subject, "infrastructure", f"did not finish: {type(error).__name__}: {error}")
