from __future__ import annotations

import pytest

from selfflow_bench.containers.choice import MachineFacts, chosen_gpus, executor_for, place
from selfflow_bench.containers.gpus import parse_gpus
from selfflow_bench.errors import FieldError, SuiteError
from selfflow_bench.execution import HostExecutor
from selfflow_bench.places import Places

READY = MachineFacts(engine=None, runtimes=("nvidia", "runc"), gpus=("GPU-1",))


@pytest.mark.parametrize("tier", ["smoke", "micro"])
def test_small_tiers_run_on_the_host_unless_a_container_is_asked_for(tier: str) -> None:
    assert place(tier, "auto") == "host"
    assert place(tier, "host") == "host"
    assert place(tier, "docker") == "cpu"


def test_the_reference_tier_runs_in_a_gpu_container_only() -> None:
    assert place("reference", "auto", READY) == "cuda"
    assert place("reference", "docker", READY) == "cuda"


@pytest.mark.parametrize(
    ("wanted", "facts", "missing"),
    [
        ("host", READY, ["a container"]),
        ("auto", MachineFacts("none answers", (), ("GPU-1",)), ["a container engine (none answers)"]),
        ("auto", MachineFacts(None, ("runc",), ("GPU-1",)), ["NVIDIA runtime", "nvidia-container-toolkit"]),
        ("auto", MachineFacts(None, ("nvidia",), ()), ["an NVIDIA GPU"]),
        ("host", MachineFacts("none answers", (), ()), ["a container (", "a container engine", "an NVIDIA GPU"]),
    ],
)
def test_the_reference_tier_says_all_that_is_missing(wanted: str, facts: MachineFacts, missing: list[str]) -> None:
    with pytest.raises(SuiteError) as caught:
        place("reference", wanted, facts)  # type: ignore[arg-type]
    assert all(text in str(caught.value) for text in missing)
    assert "selfflow-bench doctor" in str(caught.value)


def test_a_container_without_an_image_says_how_to_build_it(project: Places, tmp_path: object) -> None:
    assert isinstance(executor_for("micro", "auto", project.work), HostExecutor)
    with pytest.raises(SuiteError, match="selfflow-bench images build cpu"):
        executor_for("micro", "docker", tmp_path)  # type: ignore[arg-type]


def test_gpus_are_read_as_the_driver_lists_them() -> None:
    text = "GPU-0a1b, NVIDIA H100 80GB HBM3, 580.65.06, 81559\nGPU-2c3d, NVIDIA L4, 580.65.06, 23034\n"
    assert [(gpu.uuid, gpu.driver, gpu.memory_mb) for gpu in parse_gpus(text)] == [
        ("GPU-0a1b", "580.65.06", 81559),
        ("GPU-2c3d", "580.65.06", 23034),
    ]
    assert parse_gpus("No devices were found\n") == []


def test_a_run_gets_as_many_gpus_as_its_budget_names_the_wanted_one_first() -> None:
    assert chosen_gpus(["GPU-a", "GPU-b", "GPU-c"], None, 2) == ("GPU-a", "GPU-b")
    assert chosen_gpus(["GPU-a", "GPU-b", "GPU-c"], "GPU-b", 2) == ("GPU-b", "GPU-a")
    with pytest.raises(FieldError, match=r"budget.gpus = 4: this machine has 3"):
        chosen_gpus(["GPU-a", "GPU-b", "GPU-c"], None, 4)
    with pytest.raises(FieldError, match="no GPU of that UUID"):
        chosen_gpus(["GPU-a"], "GPU-z", 1)
