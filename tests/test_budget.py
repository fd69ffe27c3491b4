"""The estimate of a reference run: arithmetic that can be done by hand."""

from __future__ import annotations

import pytest

from selfflow_bench.budget import FILLED, GPU_GB, GPU_TFLOPS, SHARE_OF_PEAK, Counted, estimate
from selfflow_bench.places import Places
from selfflow_bench.protocol import Protocol
from selfflow_bench.recipe import load_protocol


@pytest.fixture
def protocol(project: Places) -> Protocol:
    """1,000 samples in batches of 10, validated 3 times on 16 triples; 100 samples of 20 steps, unguided."""
    content = load_protocol(project.recipes, "image-smoke@1")[1].model_dump(mode="json")
    content["training"] |= {"samples": 1000, "batch": 10}
    content["evaluation"] |= {
        "validation_every": 500, "validation_triples": 16, "samples": 100, "sampler_steps": 20, "untrained": False,
    }  # fmt: skip
    return Protocol.model_validate(content)


def test_hours_are_flops_over_what_a_gpu_reaches(protocol: Protocol) -> None:
    found = estimate(Counted(forward=1.0, step=3.0, weights=10.0, sample=1.0), protocol)
    per_hour = 3600 * SHARE_OF_PEAK * GPU_TFLOPS
    assert found.training_hours == pytest.approx(3.0 * 1000 / per_hour)
    assert found.evaluation_hours == pytest.approx((3 * 16 + 100 * 20) / per_hour)
    assert (found.gpus, found.memory_gb) == (1, 20.0)
    assert found.hours == pytest.approx(found.training_hours + found.evaluation_hours)


def test_guidance_runs_the_model_twice_and_untrained_weights_are_sampled_too(protocol: Protocol) -> None:
    counted = Counted(forward=1.0, step=0.0, weights=1.0, sample=0.0)
    changed = protocol.evaluation.model_copy(update={"guidance": [1.0, "documented"], "untrained": True})
    plain = estimate(counted, protocol).evaluation_hours
    more = estimate(counted, protocol.model_copy(update={"evaluation": changed})).evaluation_hours
    assert more / plain == pytest.approx((3 * 16 + 2 * 3 * 100 * 20) / (3 * 16 + 100 * 20))


def test_as_few_gpus_as_hold_it_share_weights_samples_and_hours(protocol: Protocol) -> None:
    one = estimate(Counted(1.0, 3.0, weights=FILLED * GPU_GB - 10, sample=1.0), protocol)
    two = estimate(Counted(1.0, 3.0, weights=FILLED * GPU_GB - 9, sample=1.0), protocol)
    assert (one.gpus, two.gpus) == (1, 2)
    assert two.hours == pytest.approx(one.hours / 2)
    assert estimate(Counted(1.0, 3.0, weights=9 * GPU_GB, sample=1.0), protocol).memory_gb is None


def test_longer_samples_cost_more_and_weights_do_not() -> None:
    assert Counted(1.0, 3.0, 10.0, 2.0).scaled(1.5) == Counted(1.5, 4.5, 10.0, 3.0)
