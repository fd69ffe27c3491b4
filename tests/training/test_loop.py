"""The loop on real tiny transformers: bit-equal resuming, the null ablation, what is never done in a step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.cost import head_sizes
from selfflow_bench.data import captions
from selfflow_bench.errors import DamagedFileError, InterruptedRunError, NonFiniteLossError
from selfflow_bench.flow import TimestepDistribution
from selfflow_bench.methods.base import Method
from selfflow_bench.protocol import TrainingSettings
from selfflow_bench.recipe import Lora
from selfflow_bench.registry import method_class
from selfflow_bench.training import checkpoint
from selfflow_bench.training.batches import Batches
from selfflow_bench.training.loop import Training, _mean
from selfflow_bench.training.start import starting_transformer
from tests.conftest import TEXT_TOKENS, Tiny
from tests.training.no_sync import Forbids

SETTINGS = TrainingSettings(
    samples=48,
    batch=4,
    learning_rate=1e-3,
    betas=[0.9, 0.95],
    weight_decay=0.01,
    warmup_samples=8,
    gradient_clip=1.0,
    condition_dropout=0.2,
    ema_decay=0.9,
    precision="float32",
    threads=2,
    log_every=8,
    checkpoint_every=16,
)
SELF_FLOW = {"mask_ratio": 0.4, "student_block": 1, "teacher_block": 2}


def training(
    tiny: Tiny,
    folder: Path,
    method: str = "self_flow",
    poison: int | None = None,
    lora: Lora | None = None,
    settings: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Training:
    """A fresh training; ``poison`` makes that item's latents not a number, ``settings`` changes the protocol's."""
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(20, *tiny.latent_shape, generator=source)
    if poison is not None:
        latents[poison] = float("nan")
    text = {
        "text": torch.randn(5, TEXT_TOKENS, captions.WIDTH, generator=source),
        "text_mask": torch.ones(5, TEXT_TOKENS, dtype=torch.bool),
        "text_ids": torch.randint(0, captions.VOCABULARY, (5, TEXT_TOKENS), generator=source),
    }
    others = {
        name: tiny.family.drawn_condition(name, 20, tiny.latent_shape, source)
        for name in (*tiny.family.needs, *tiny.optional)
    }
    conditions = ConditionTable(torch.arange(20) % 5, text, others)
    grid = tiny.family.token_grid(tiny.latent_shape)
    kind = method_class(method)
    chosen = {**(SELF_FLOW if method == "self_flow" else {}), **changes}
    made: Method = kind(kind.settings_class(**chosen), tiny.family, steps=12)
    needs = made.needs
    features = None
    if needs.encoder is not None:
        # Values do not matter here; the encoders' own are tested with their files.
        features = torch.randn(20, *tiny.feature_shape, generator=source).__getitem__
    times = TimestepDistribution("logit_normal")
    batches = Batches(latents, conditions, grid, times, 0.2, 9, needs, features)
    protocol = SETTINGS.model_copy(update=dict(settings or {}))
    transformer = starting_transformer(tiny.family, 0, where="recipe tiny", lora=lora, precision=protocol.precision)
    sizes = head_sizes(tiny.family, transformer, made, batches.make(range(1)))
    torch.manual_seed(1)
    return Training(transformer, made.heads(sizes), made, batches, protocol, folder=folder, run_key="key")


def run(made: Training, stop_after: int | None = None) -> None:
    made.run(
        stop=lambda: stop_after is not None and made.progress.samples >= stop_after,
        on_log=lambda row: None,
        on_checkpoint=lambda samples: None,
        validate=lambda model: {"norm": float(sum(value.square().sum() for value in model.parameters()))},
        validate_every=16,
    )


def finished(made: Training) -> tuple[list[torch.Tensor], list[dict[str, float]], list[dict[str, Any]]]:
    weights = [*made.trainee.state_dict().values(), *made.ema.model.state_dict().values()]
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in made.progress.rows]
    return weights, rows, made.progress.validations


def assert_equal_runs(first: Training, second: Training) -> None:
    (a, rows_a, checks_a), (b, rows_b, checks_b) = finished(first), finished(second)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert rows_a == rows_b
    assert checks_a == checks_b


def test_two_runs_are_bit_equal(tiny_family: Tiny, tmp_path: Path) -> None:
    made = [training(tiny_family, tmp_path / name) for name in "ab"]
    for each in made:
        run(each)
    assert_equal_runs(*made)
    assert [row["samples"] for row in made[0].progress.rows] == [8, 16, 24, 32, 40, 48]
    assert [entry["samples"] for entry in made[0].progress.validations] == [0, 16, 32, 48]
    assert set(made[0].progress.rows[0]) >= {
        "loss",
        "loss_generative",
        "loss_alignment",
        "alignment_score",
        "grad_norm",
    }


@pytest.mark.parametrize("stop_after", [4, 16, 36])
def test_an_interrupted_run_resumes_bit_equally(tiny_family: Tiny, tmp_path: Path, stop_after: int) -> None:
    """Stopped at a log boundary and between two."""
    whole = training(tiny_family, tmp_path / "whole")
    run(whole)
    stopped = training(tiny_family, tmp_path / "cut")
    with pytest.raises(InterruptedRunError):
        run(stopped, stop_after)
    resumed = training(tiny_family, tmp_path / "cut")
    assert resumed.restore()
    assert resumed.progress.samples == stop_after
    run(resumed)
    assert_equal_runs(whole, resumed)


def test_similarity_cutoff_survives_an_interruption(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    cutoff = {"similarity_cutoff": {"threshold": -0.99, "decay": 0.5, "permanent": True, "probe_steps": 1}}
    whole = training(tiny("sana"), tmp_path / "whole", **cutoff)
    run(whole)
    weights = [row["alignment_weight"] for row in whole.progress.rows]
    assert weights == [0.5, 0.0, 0.0, 0.0, 0.0, 0.0], "decided at the first log interval"
    stopped = training(tiny("sana"), tmp_path / "cut", **cutoff)
    with pytest.raises(InterruptedRunError):
        run(stopped, 4)
    resumed = training(tiny("sana"), tmp_path / "cut", **cutoff)
    resumed.restore()
    run(resumed)
    assert_equal_runs(whole, resumed)


def test_null_ablation_trains_as_vanilla_bit_for_bit(tiny_family: Tiny, tmp_path: Path) -> None:
    vanilla = training(tiny_family, tmp_path / "vanilla", "vanilla")
    null = training(tiny_family, tmp_path / "null", mask_ratio=0.0, weight=0.0)
    for made in (vanilla, null):
        run(made)
    for a, b in (
        (vanilla.trainee.transformer, null.trainee.transformer),
        (vanilla.ema.model, null.ema.model),
    ):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert [r["loss"] for r in vanilla.progress.rows] == [r["loss"] for r in null.progress.rows]


def test_methods_share_weights_data_noise_and_timesteps(tiny_family: Tiny, tmp_path: Path) -> None:
    made = [training(tiny_family, tmp_path / name, name) for name in ("vanilla", "self_flow")]
    first, second = ([(name, value) for name, value in each.trainee.transformer.state_dict().items()] for each in made)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))
    batches = [each.batches.make(range(8, 12)) for each in made]
    for name in ("latents", "noise", "first", "second", "mask_draw"):
        assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))


def test_training_learns(tiny_family: Tiny, tmp_path: Path) -> None:
    """On twenty items, the loss of the same noise falls."""
    made = training(tiny_family, tmp_path, "vanilla")
    batch = made.batches.make(range(100, 120))

    def loss() -> float:
        with torch.no_grad():
            return float(made.method.step(made.trainee.transformer, made.trainee.heads, made.ema.model, batch, 0).loss)

    before = loss()
    run(made)
    assert loss() < before


def test_a_loss_that_is_no_number_fails_the_run_and_is_not_kept(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    made = training(tiny("sana"), tmp_path, poison=made_item(tiny, tmp_path))
    with pytest.raises(NonFiniteLossError, match="after 12 samples"):
        run(made)
    assert checkpoint.load(tmp_path, "key") is None


def made_item(tiny: Callable[[str], Tiny], tmp_path: Path) -> int:
    """The item of the run's tenth sample: step 3."""
    return training(tiny("sana"), tmp_path).batches._item(9)


def test_no_step_reads_the_device_back(tiny_family: Tiny, tmp_path: Path) -> None:
    """The whole of a step: forward, backward, clipping, optimizer and EMA."""
    if tiny_family.expected.waits:
        pytest.skip("the class itself waits in its forward")
    assert_no_wait(training(tiny_family, tmp_path))


def assert_no_wait(made: Training) -> None:
    run_steps(made, 1)  # state that the optimizer makes at its first step
    batch = made.batches.make(range(4, 8))
    with Forbids():
        logged = made.update(batch, 1)
    with pytest.raises(AssertionError, match="waits for the device"), Forbids():
        float(logged["loss"])


def test_a_metric_that_is_no_number_in_a_step_was_not_measured_in_it() -> None:
    nan = float("nan")
    rows = [{"loss": 1.0, "group": nan, "samples": 4}, {"loss": 3.0, "group": 5.0, "samples": 8}]
    assert _mean(rows) == {"loss": 2.0, "group": 5.0, "samples": 8}
    assert _mean([{"loss": 1.0, "group": nan, "samples": 4}]) == {"loss": 1.0, "samples": 4}


def run_steps(made: Training, count: int) -> None:
    for _ in range(count):
        made.step()


def test_a_checkpoint_is_refused_when_damaged_or_anothers(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"value": torch.arange(3)}, 16, "one")
    loaded = checkpoint.load(tmp_path, "one")
    assert loaded is not None
    assert torch.equal(loaded["value"], torch.arange(3))
    with pytest.raises(DamagedFileError, match="belongs to run one"):
        checkpoint.load(tmp_path, "two")
    path = next(tmp_path.glob("checkpoint-*.pt"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="damaged"):
        checkpoint.load(tmp_path, "one")


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    for samples in (16, 32):
        checkpoint.save(tmp_path, {"samples": samples}, samples, "one")
    assert [path.name for path in tmp_path.glob("*.pt")] == ["checkpoint-000000000032.pt"]
    assert json.loads((tmp_path / checkpoint.POINTER).read_text())["samples"] == 32
