"""Gradient checkpointing and per-block compile: the numbers of a training without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from selfflow_bench.errors import FieldError
from selfflow_bench.recipe import Lora
from selfflow_bench.training.blocks import checkpoint_blocks
from selfflow_bench.training.loop import Training
from tests.conftest import Tiny
from tests.training.test_adapters import lora_of
from tests.training.test_loop import assert_no_wait, finished, run, run_steps, training

CHECKPOINTED = {"gradient_checkpointing": True}


@pytest.mark.parametrize("name", ["sana", "flux2", "wan", "longcat_video", "ace_step", "hunyuanvideo"])
@pytest.mark.parametrize("adapters", [False, True])
def test_checkpointing_changes_no_bit(name: str, adapters: bool, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """Under adapters, what runs again in backward is the student, although the teacher was active in between."""
    case = tiny(name)
    lora = lora_of(case) if adapters else None
    plain = training(case, tmp_path / "plain", lora=lora)
    made = training(case, tmp_path / "checkpointed", lora=lora, settings=CHECKPOINTED)
    again = runs_of_a_block(made)
    for each in (plain, made):
        run_steps(each, 2)
        each._read()
    assert again.count(True) >= 2, "blocks have run again with gradients"
    assert plain.progress.pending == made.progress.pending
    assert all(torch.equal(a, b) for a, b in zip(finished(plain)[0], finished(made)[0], strict=True))


def runs_of_a_block(made: Training) -> list[bool]:
    """Filled at every run of the student's first block: whether it is in backward."""
    seen: list[bool] = []
    block = made.method.family.blocks(made.trainee.transformer)[0]
    # Before it: what runs again ends as soon as backward has what it needs.
    block.register_forward_pre_hook(lambda *_: seen.append(torch._C._current_graph_task_id() != -1))
    return seen


@pytest.mark.parametrize("adapters", [False, True])
def test_no_step_waits_with_checkpointing_or_adapters(
    adapters: bool, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    case = tiny("sana")
    assert_no_wait(training(case, tmp_path, lora=lora_of(case) if adapters else None, settings=CHECKPOINTED))


def test_a_class_without_checkpointing_is_refused() -> None:
    with pytest.raises(FieldError, match=r"training.gradient_checkpointing = True: Linear has none"):
        checkpoint_blocks(torch.nn.Linear(1, 1))


@pytest.mark.once
@pytest.mark.parametrize(("name", "adapters"), [("sana", False), ("sana", True), ("flux2", True)])
def test_compiled_blocks_train_to_the_same_losses(
    name: str, adapters: bool, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    """Self-Flow, so that blocks are hooked onto, ended early behind, and seen with two timesteps and with one."""
    torch._dynamo.reset()
    case = tiny(name)
    lora: Lora | None = lora_of(case) if adapters else None
    plain = training(case, tmp_path / "plain", lora=lora)
    made = training(case, tmp_path / "compiled", lora=lora, settings={"compile": True, **CHECKPOINTED})
    for each in (plain, made):
        run(each)
    for mine, other in zip(plain.progress.rows, made.progress.rows, strict=True):
        assert other.keys() == mine.keys()
        assert other["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert other["alignment_score"] == pytest.approx(mine["alignment_score"], abs=1e-4)
