"""What `profile` measures: the trainer's own steps, taken apart without being changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from selfflow_bench.gpu_peaks import peak_flops
from selfflow_bench.recipe import Lora
from selfflow_bench.step_profile import PARTS, WARM_UP, Profile, advice, profile_training
from tests.conftest import Tiny
from tests.training.test_loop import SETTINGS, training

STEPS = 3


@pytest.mark.parametrize("lora", [None, Lora(rank=4, alpha=4.0, targets=["to_q"])])
def test_profiled_steps_are_the_trainer_s_own(lora: Lora | None, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    profiled, plain = (training(tiny("sana"), tmp_path / name, lora=lora) for name in ("profiled", "plain"))
    trace = tmp_path / "trace.json"
    found = profile_training(profiled, steps=STEPS, flops=1e6, trace=trace)
    for _ in range(WARM_UP + STEPS + 2):  # the trace's steps count too
        plain.step()
    for first, second in zip(profiled.parameters, plain.parameters, strict=True):
        assert torch.equal(first, second)
    for name, value in plain.ema.values.items():
        assert torch.equal(profiled.ema.values[name], value)
    # Nothing stays behind on what was timed.
    for owner in (profiled.batches, profiled.trainee, profiled.ema, profiled.ema.model, profiled.accelerator):
        assert not {"make", "forward", "update", "backward"} & vars(owner).keys()

    assert set(found.seconds) == set(PARTS)
    assert all(value > 0 for value in found.seconds.values())
    assert found.step >= max(found.seconds.values())
    assert found.achieved == pytest.approx(1e6 / found.step)
    assert found.of_peak is None
    weights = sum(4 * value.numel() for value in profiled.trainee.parameters())
    trained = sum(4 * value.numel() for value in profiled.parameters)
    assert found.memory["gradients"] == trained
    assert found.memory["optimizer"] >= 2 * trained
    assert found.memory["weights"] >= weights
    # Adapters' average lies among the weights: there is no copy of the base.
    assert (found.memory["EMA"] > 0) == (lora is None)
    assert found.memory["kept for backward"] > 0
    assert json.loads(trace.read_text())["traceEvents"]


def test_a_vanilla_step_has_no_teacher(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    found = profile_training(training(tiny("sana"), tmp_path, method="vanilla"), steps=STEPS, flops=1e6)
    assert found.seconds["teacher"] == 0
    assert found.seconds["student forward"] > 0


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA GB200", 2500.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_the_longest_name_that_fits_gives_the_peak(name: str, tflops: float) -> None:
    assert peak_flops(name) == 1e12 * tflops


def test_an_unknown_accelerator_has_no_peak() -> None:
    assert peak_flops("Another Accelerator 1") is None


def profile(accelerator: str | None = None, *, kept: int = 10, step: float = 1.0, **seconds: float) -> Profile:
    every = {**dict.fromkeys(PARTS, 0.0), **seconds}
    every["backward"] += step - sum(every.values())
    return Profile(every, step, {"weights": 20, "kept for backward": kept}, 400e12, accelerator)


def test_advice_is_about_what_stands_out() -> None:
    fast = SETTINGS.model_copy(update={"compile": True, "precision": "bf16"})
    assert advice(profile("NVIDIA H100 80GB HBM3"), fast) == []
    (data,) = advice(profile("NVIDIA H100 80GB HBM3", data=0.3), fast)
    assert data.startswith("Data takes 30 % of a step")
    (memory,) = advice(profile(kept=50), fast)
    assert "gradient_checkpointing" in memory
    assert advice(profile(kept=50), fast.model_copy(update={"gradient_checkpointing": True})) == []
    slow = " ".join(advice(profile("NVIDIA H100 80GB HBM3", step=10.0), SETTINGS))
    assert all(text in slow for text in ("training.compile", "bf16", "4 % of the peak"))
