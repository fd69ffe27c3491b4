"""The training loop: set-up, then a loop of a few lines. Everything is counted in samples seen.

State is weights, optimizer, EMA, the method's few numbers, logged rows, and the count of samples: every draw is keyed
by (seed, purpose, sample), so nothing else is needed to resume bit-equally. The step never waits for the device;
metrics are read back at the log interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from selfflow_bench.errors import InterruptedRunError, NonFiniteLossError
from selfflow_bench.methods.base import Batch, Method
from selfflow_bench.precision import bfloat16_where
from selfflow_bench.protocol import TrainingSettings
from selfflow_bench.training import checkpoint
from selfflow_bench.training.adapters import AdapterEma, has_adapters
from selfflow_bench.training.ahead import Ahead
from selfflow_bench.training.batches import Batches
from selfflow_bench.training.blocks import checkpoint_blocks, compile_blocks
from selfflow_bench.training.ema import Ema, averaged_copy
from selfflow_bench.training.processes import Processes, as_held, keep_whole, optimizer_as_held, whole

Row = dict[str, float]


class Trainee(nn.Module):
    """What the optimizer trains: the transformer and the method's heads, with the method's loss as forward."""

    def __init__(self, transformer: nn.Module, heads: nn.ModuleDict, method: Method, precision: str) -> None:
        super().__init__()
        self.transformer, self.heads = transformer, heads
        self._method, self._autocasts = method, precision == "bf16"

    def forward(self, teacher: nn.Module, batch: Batch, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The step's loss and what to log of it."""
        with bfloat16_where(self._autocasts, batch.latents.device):
            result = self._method.step(self.transformer, self.heads, teacher, batch, step)
        return result.loss, result.metrics


@dataclass
class Progress:
    """What a run has logged so far; part of its checkpoint."""

    samples: int = 0
    rows: list[Row] = field(default_factory=list)
    """One row per log interval: means over its steps."""
    pending: list[Row] = field(default_factory=list)
    """Rows of the steps since the last whole interval."""
    validations: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    """Time spent in training steps, over all sittings."""
    processor_seconds: float = 0.0
    """Processor time of all threads in the same."""

    def spend(self, since: tuple[float, float]) -> None:
        """Count the time since a `_now`."""
        now = _now()
        self.seconds += now[0] - since[0]
        self.processor_seconds += now[1] - since[1]


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class Training:
    """One run's training, from a fresh or restored state."""

    def __init__(
        self,
        transformer: nn.Module,
        heads: nn.ModuleDict,
        method: Method,
        batches: Batches,
        settings: TrainingSettings,
        *,
        folder: Path,
        run_key: str,
    ) -> None:
        self.settings, self.method, self.batches = settings, method, batches
        self.folder, self.run_key = folder, run_key
        self.processes = Processes(settings)
        self.accelerator = self.processes.accelerator
        blocks, adapted = method.family.blocks, has_adapters(transformer)
        averaged = None if adapted else averaged_copy(transformer)
        self.processes.place(
            [
                (transformer.train(), blocks(transformer)),
                *([] if averaged is None else [(averaged, blocks(averaged))]),
                *((head, ()) for head in heads.children()),
            ]
        )
        if settings.gradient_checkpointing:
            checkpoint_blocks(transformer)
        if settings.compile:
            compile_blocks([*blocks(transformer), *([] if averaged is None else blocks(averaged))])
        self.trainee = Trainee(transformer, heads, method, settings.precision)
        self.ema = (
            AdapterEma(transformer, settings.ema_decay) if adapted else Ema(transformer, settings.ema_decay, averaged)
        )
        self.parameters = [value for value in self.trainee.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.wrapped, self.optimizer = self.processes.wrap(self.trainee), self.accelerator.prepare(optimizer)
        self.progress = Progress()
        self._unread: list[Mapping[str, Tensor | float]] = []
        self._ahead: Ahead[Batch] | None = None

    def restore(self) -> bool:
        """Continue from the folder's checkpoint. False where there is none.

        The checkpoint is whole, so that any number of processes can go on from it: bit-equally with as many as wrote
        it, up to the order of sums with others.
        """
        state = checkpoint.load(self.folder, self.run_key, mapped=self.processes.shards)
        if state is None:
            return False
        self._load_weights(state)
        self.optimizer.load_state_dict(optimizer_as_held(state["optimizer"], self.parameters))
        self.method.load_state(state["method"])
        self.progress = Progress(**state["progress"])
        return True

    def save(self) -> None:
        """Write the checkpoint. Metrics not yet read are read first, so a broken state is never kept."""
        self._read()
        first = self.processes.is_first
        state = {
            "trainee": whole(self._trained(), keep=first),
            "ema": whole(dict(self.ema.values), keep=first),
            "optimizer": whole(self.optimizer.state_dict(), keep=first),
            "method": self.method.state(),
            "progress": vars(self.progress),
        }
        if first:
            checkpoint.save(self.folder, state, self.progress.samples, self.run_key)

    def evaluated(self) -> nn.Module:
        """The averaged model after training, whole in every process: each can run it by itself. All must ask."""
        keep_whole(self.trainee.transformer if has_adapters(self.trainee.transformer) else self.ema.model)
        return self.ema.model

    def _trained(self) -> dict[str, Tensor]:
        """What training changes of the trainee's state: everything but a frozen base."""
        frozen = {name for name, value in self.trainee.named_parameters() if not value.requires_grad}
        return {name: value for name, value in self.trainee.state_dict().items() if name not in frozen}

    def _load_weights(self, state: Mapping[str, Any]) -> None:
        held = self._trained()
        saved = {name: as_held(state["trainee"][name], value) for name, value in held.items()}
        self.trainee.load_state_dict(saved, strict=False)
        with torch.no_grad():
            for name, value in self.ema.values.items():
                value.copy_(as_held(state["ema"][name], value))

    def run(
        self,
        *,
        stop: Callable[[], bool],
        on_log: Callable[[Row], None],
        on_checkpoint: Callable[[int], None],
        validate: Callable[[nn.Module], dict[str, Any]],
        validate_every: int,
    ) -> None:
        """Train to the end of the budget.

        Args:
            stop: asked before each step; when true, a checkpoint is written and InterruptedRunError raised.
            on_log: receives each interval's row.
            on_checkpoint: receives the samples of each checkpoint written.
            validate: measures the EMA model; its result is kept in `progress.validations`.
            validate_every: samples between validations; a multiple of the batch. One is made at 0 and at the end.

        Raises:
            NonFiniteLossError: a loss was not a number.
            InterruptedRunError: ``stop`` was true.
        """
        settings, progress = self.settings, self.progress
        started = _now()
        with self._batches_ahead():
            while True:
                at_end = progress.samples >= settings.samples
                due = progress.samples % validate_every == 0 or at_end
                if due and not any(entry["samples"] == progress.samples for entry in progress.validations):
                    self._read()
                    progress.spend(started)
                    progress.validations.append({"samples": progress.samples, **validate(self.ema.model)})
                    started = _now()
                if at_end:
                    break
                if self.processes.any(stop()):
                    self.save()
                    raise InterruptedRunError(f"stopped after {progress.samples} samples; a checkpoint is written")
                self.step()
                if progress.samples % settings.log_every == 0:
                    self._read()
                    self.method.decide()
                    progress.spend(started)
                    started = _now()
                    on_log({**progress.rows[-1], "seconds": progress.seconds})
                    progress.rows[-1]["seconds"] = progress.seconds
                if progress.samples % settings.checkpoint_every == 0 and progress.samples < settings.samples:
                    self.save()
                    on_checkpoint(progress.samples)
            self.save()
            on_checkpoint(progress.samples)

    @contextmanager
    def _batches_ahead(self) -> Iterator[None]:
        self._ahead = Ahead(self.batch)
        try:
            yield
        finally:
            self._ahead.close()
            self._ahead = None

    def learning_rate(self, samples: int) -> float:
        """Linear warm-up over ``warmup_samples``, then constant."""
        warmup = self.settings.warmup_samples
        return self.settings.learning_rate * (min(1.0, (samples + self.settings.batch) / warmup) if warmup else 1.0)

    def batch(self, samples: range) -> Batch:
        """This process's part of a batch, on its device."""
        return self.batches.make(self.processes.share(samples)).to(self.processes.device)

    def _taken(self, samples: range) -> Batch:
        """The batch of these samples; inside `run`, the next is begun with."""
        if self._ahead is None:
            return self.batch(samples)
        following = range(samples.stop, samples.stop + len(samples))
        return self._ahead.take(samples, following if samples.stop < self.settings.samples else None)

    def step(self) -> None:
        """One training step, counted and logged."""
        settings, progress = self.settings, self.progress
        step = progress.samples // settings.batch
        batch = self._taken(range(progress.samples, progress.samples + settings.batch))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress.samples)
        self._unread.append(self.update(batch, step))
        progress.samples += settings.batch

    def update(self, batch: Batch, step: int) -> Mapping[str, Tensor | float]:
        """One step of the optimizer and the EMA on this process's part of a batch; what to log of it."""
        loss, metrics = self.wrapped(self.ema.model, batch, step)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update()
        return {"loss": loss.detach(), "grad_norm": norm, **metrics}

    def _read(self) -> None:
        """Bring the metrics of the steps since the last call to the host: the one place that waits for the device."""
        if not self._unread:
            return
        names = [(index, name) for index, row in enumerate(self._unread) for name in row]
        values = [self._unread[index][name] for index, name in names]
        device = self.processes.device
        stacked = torch.stack(
            [value.float() if isinstance(value, Tensor) else torch.tensor(value, device=device) for value in values]
        )
        rows: list[Row] = [{} for _ in self._unread]
        shares = self.processes.gathered(stacked)
        for (index, name), parts in zip(names, shares.T.tolist(), strict=True):
            rows[index][name] = _mean_of_shares(name, parts)
        self._unread.clear()
        first = self.progress.samples - self.settings.batch * len(rows)
        for index, row in enumerate(rows):
            row["samples"] = first + self.settings.batch * (index + 1)
            if not math.isfinite(row["loss"]):
                raise NonFiniteLossError(
                    f"the loss is {row['loss']} after {int(row['samples'])} samples "
                    f"(step {int(row['samples']) // self.settings.batch}); the run has failed and is recorded so"
                )
        self.method.observe(rows)
        self.progress.pending.extend(rows)
        if self.progress.pending and self.progress.pending[-1]["samples"] % self.settings.log_every == 0:
            self.progress.rows.append(_mean(self.progress.pending))
            self.progress.pending = []


def _mean_of_shares(name: str, shares: list[float]) -> float:
    """A metric over the processes' equal shares of a batch; those that did not measure it (not a number) left out."""
    measured = shares if name == "loss" else [value for value in shares if not math.isnan(value)]
    return math.fsum(measured) / len(measured) if measured else math.nan


def _mean(rows: list[Row]) -> Row:
    """Means over an interval of the metrics present; ``samples`` is the interval's end.

    A metric that is not a number in a step was not measured in it.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    means = {}
    for name in names:
        values = [row[name] for row in rows if name in row and not math.isnan(row[name])]
        if values:
            means[name] = math.fsum(values) / len(values)
    return {**means, "samples": rows[-1]["samples"]}
