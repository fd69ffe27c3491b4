"""What a reference run will take, estimated before anything is run: GPUs, memory and hours, from counted FLOPs.

Pure arithmetic on the cost table's numbers and a protocol. Knows no models, no machine and no files.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfflow_bench.protocol import Protocol

GPU, GPU_GB, GPU_TFLOPS = "H100 SXM", 80.0, 989.0
"""The GPU that is reckoned with: its memory, and its dense bfloat16 peak."""
SHARE_OF_PEAK = 0.4
"""What training of transformers commonly reaches of the peak."""
FILLED = 0.9
"""Share of a GPU's memory that may be planned for."""
STEPS = 50
"""Sampler steps where a protocol leaves them to the published pipeline: what most of them document."""
COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Counted:
    """A recipe's step as the cost table has it, of one sample, in TFLOP and GB (1e9 bytes).

    Args:
        forward: one plain forward.
        step: a training step.
        weights: what the model takes in training without a sample: weights, and what belongs to those that are trained.
        sample: what one sample's hidden states take.
    """

    forward: float
    step: float
    weights: float
    sample: float

    def scaled(self, share: float) -> Counted:
        """The same for samples of ``share`` times as many tokens; attention, which grows faster, is a small part."""
        return Counted(self.forward * share, self.step * share, self.weights, self.sample * share)


@dataclass(frozen=True)
class Estimate:
    """One run's needs. Hours are on ``gpus`` GPUs together; ``memory_gb`` is one GPU's, None where 8 are too few."""

    gpus: int
    memory_gb: float | None
    training_hours: float
    evaluation_hours: float

    @property
    def hours(self) -> float:
        """In all."""
        return self.training_hours + self.evaluation_hours


def estimate(counted: Counted, protocol: Protocol) -> Estimate:
    """What a run of a protocol takes, on as few GPUs as hold it with weights sharded over them."""
    training, evaluation = protocol.training, protocol.evaluation
    needed = {count: (counted.weights + training.batch * counted.sample) / count for count in COUNTS}
    gpus = next((count for count, gb in needed.items() if gb <= FILLED * GPU_GB), COUNTS[-1])
    validations = 1 + -(-training.samples // evaluation.validation_every)
    steps = STEPS if evaluation.sampler_steps == "documented" else evaluation.sampler_steps
    # Guidance other than 1 runs the model twice.
    passes = sum(1 if scale == 1.0 else 2 for scale in evaluation.guidance)
    sampled = evaluation.samples * (2 if evaluation.untrained else 1) * steps * passes
    per_hour = 3600 * SHARE_OF_PEAK * GPU_TFLOPS * gpus
    return Estimate(
        gpus=gpus,
        memory_gb=needed[gpus] if needed[gpus] <= FILLED * GPU_GB else None,
        training_hours=training.samples * counted.step / per_hour,
        evaluation_hours=(validations * evaluation.validation_triples + sampled) * counted.forward / per_hour,
    )
