"""Two real processes on the CPU, over gloo: the numbers of one up to the order of sums; and what if one dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfflow_bench.errors import FieldError
from selfflow_bench.protocol import TrainingSettings
from selfflow_bench.training.processes import Processes, check_shared
from selfflow_bench.worker_processes import processes_together
from tests.conftest import Tiny
from tests.training.several_processes import CASES, outcome, trained
from tests.training.test_loop import SETTINGS


def in_two(out: Path, cases: list[str]) -> list[int]:
    command = [sys.executable, "-m", "tests.training.several_processes", str(out), *cases]
    with open(os.devnull) as nothing:
        return processes_together(command, 2, lambda: False, nothing.fileno())


@pytest.fixture(scope="module")
def found(tmp_path_factory: Any) -> Callable[[str], dict[str, Any]]:
    """What two processes made of each case, in one start of the two."""
    out: Path = tmp_path_factory.mktemp("two")
    assert in_two(out, list(CASES)) == [0, 0]
    return lambda name: torch.load(out / f"{name}.pt", weights_only=True)


@pytest.mark.once
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(
    name: str, found: Callable[[str], dict[str, Any]], tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    """Every step's loss and clipped gradient, the validations, the EMA, and what the whole model predicts."""
    case = tiny("sana")
    one, two = outcome(case, trained(case, tmp_path, name)), found(name)
    for mine, other in zip(one["rows"], two["rows"], strict=True):
        assert mine.keys() == other.keys()
        for metric in ("samples", "loss", "grad_norm", "loss_generative", "loss_alignment", "alignment_score"):
            assert other[metric] == pytest.approx(mine[metric], rel=1e-5, abs=1e-6), metric
    for mine, other in zip(one["validations"], two["validations"], strict=True):
        assert other["loss"] == pytest.approx(mine["loss"], rel=1e-5)
        assert other["per_timestep"] == pytest.approx(mine["per_timestep"], rel=1e-4)
        assert other["distance"] == pytest.approx(mine["distance"], rel=1e-4, abs=1e-8)
    assert one["ema"].keys() == two["ema"].keys()
    assert_equal_weights(one["ema"], two["ema"])
    torch.testing.assert_close(two["predicted"], one["predicted"], rtol=1e-4, atol=1e-4)


def assert_equal_weights(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    """But for the keys' biases: the softmax makes their gradient nothing but rounding, and Adam makes that a step."""
    for name, value in one.items():
        if not name.endswith("to_k.bias"):
            torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.once
@pytest.mark.parametrize("name", ["ddp", "fsdp-lora"])
def test_a_process_killed_ends_the_others_and_the_run_goes_on(
    name: str, found: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    """To the very bits of two processes undisturbed."""
    codes = in_two(tmp_path, [f"{name}:20"])
    assert -signal.SIGKILL in codes
    assert not (tmp_path / f"{name}.pt").exists()
    assert in_two(tmp_path, [name]) == [0, 0]
    again, whole = torch.load(tmp_path / f"{name}.pt", weights_only=True), found(name)
    assert again["rows"] == whole["rows"]
    assert again["validations"] == whole["validations"]
    assert all(torch.equal(value, whole["ema"][weight]) for weight, value in again["ema"].items())


@pytest.mark.once
def test_one_process_goes_on_from_what_two_have_written(
    found: Callable[[str], dict[str, Any]], tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    """The checkpoint is whole. Written by sharded processes, it continues unsharded, up to the order of sums."""
    in_two(tmp_path, ["fsdp:20"])
    case = tiny("sana")
    one, two = outcome(case, trained(case, tmp_path / "fsdp", "fsdp")), found("fsdp")
    assert one["rows"][-1]["loss"] == pytest.approx(two["rows"][-1]["loss"], rel=1e-5)
    assert_equal_weights(one["ema"], two["ema"])


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    settings: TrainingSettings = SETTINGS.model_copy(update={"batch": 4})
    alone = Processes(settings)
    assert (alone.index, alone.count, alone.share(range(8, 12))) == (0, 1, range(8, 12))
    check_shared(4, 2)
    with pytest.raises(FieldError, match=r"training.batch = 4: cannot be shared equally by 3 processes"):
        check_shared(4, 3)


def test_processes_keep_their_exit_codes_and_none_is_left(tmp_path: Path) -> None:
    """One that fails ends the one that would wait for ever; one that is asked to stop says so."""
    waits = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(71)\ntime.sleep(600)"
    with open(os.devnull) as nothing:
        codes = processes_together([sys.executable, "-c", waits], 2, lambda: False, nothing.fileno())
    assert codes == [71]
    stops = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(130))\ntime.sleep(600)"
    asked = iter([False] * 20)
    with open(os.devnull) as nothing:
        command = [sys.executable, "-c", stops]
        codes = processes_together(command, 2, lambda: next(asked, None) is not False, nothing.fileno())
    assert codes == [130, 130]
