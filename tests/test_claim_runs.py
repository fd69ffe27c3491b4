"""Every claim that is said to be plannable is planned, at its publication's size, method and length; and costed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from selfflow_bench.claim_runs import claim_cost, claim_runs, verdict
from selfflow_bench.cli import main
from selfflow_bench.errors import FieldError
from selfflow_bench.places import Places
from selfflow_bench.recipe import load_recipe
from selfflow_bench.registry import family_class
from selfflow_bench.results.claims import read_claims
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import read_all
from selfflow_bench.sample_export import write_samples
from tests.results.record_factory import record_content


@pytest.fixture(scope="module")
def claims(project: Places):
    return {
        claim.id: claim
        for claim in read_claims(project.results, {r.run_id for r in read_all(project.results).records}).claims
    }


def test_every_claim_about_a_method_here_is_planned_or_says_why_not(claims, project: Places) -> None:
    planned = []
    for claim in claims.values():
        if claim.not_plannable is not None:
            assert not claim.model.startswith("SiT-") or "RAE" in claim.model
            with pytest.raises(FieldError, match="is not plannable"):
                claim_runs(project, claim, 1)
            continue
        first, second = claim_runs(project, claim, 2)
        assert (first.tier, first.seed_index, second.seed_index) == ("reference", 0, 1)
        assert first.method == claim.here
        training = first.conditions.training
        assert training.samples == claim.steps_k * 1000 * 256
        assert training.batch == 256
        assert first.overrides == ({} if claim.steps_k == 400 else {"training.samples": training.samples})
        _, recipe = load_recipe(project.recipes, first.recipe.name)
        assert round(recipe.published.parameters / 1e6) == pytest.approx(claim.parameters_m, abs=1)
        with torch.device("meta"):
            built = family_class(first.family)(first.transformer).build()
        assert sum(value.numel() for value in built.parameters()) == recipe.published.parameters
        planned.append(claim.id)
    assert len(planned) == 15


def test_the_protocol_is_the_published_one(claims, project: Places) -> None:
    (run,) = claim_runs(project, claims["self-flow-1-sit-xl-self-flow-4000k"], 1)
    training, evaluation = run.conditions.training, run.conditions.evaluation
    assert (run.conditions.timesteps.kind, run.conditions.timesteps.shift) == ("uniform", 1.0)
    assert (training.learning_rate, training.betas, training.weight_decay) == (1e-4, [0.9, 0.999], 0.0)
    assert (training.condition_dropout, training.ema_decay, training.warmup_samples) == (0.1, 0.9999, 0)
    assert (training.gradient_clip, training.precision) == (1.0, "bf16")
    assert (evaluation.sampler, evaluation.sampler_steps, evaluation.samples) == ("euler_maruyama", 250, 50_000)
    settings = run.settings
    assert (settings["student_block"], settings["teacher_block"]) == (8, 20)
    assert (settings["mask_ratio"], settings["weight"], settings["projector"]) == (0.25, 0.8, "mlp_silu")
    (repa,) = claim_runs(project, claims["repa-3-sit-xl-repa-400k"], 1)
    assert (repa.settings["student_block"], repa.settings["weight"]) == (8, 0.5)
    assert (repa.settings["encoder"], repa.settings["projector"]) == ("dinov2-vitb14", "mlp3_silu")


def test_the_cost_of_a_claim(claims, project: Places) -> None:
    """A vanilla step is three forwards of 237.2 GFLOP; Self-Flow's is 1.24 of it, and its projector's."""
    cost = {}
    for name in ("self-flow-1-sit-xl-vanilla-7000k", "self-flow-1-sit-xl-self-flow-4000k", "repa-3-sit-xl-repa-400k"):
        (run,) = claim_runs(project, claims[name], 1)
        cost[run.label] = claim_cost(project, run)
    vanilla = cost["vanilla"]
    assert vanilla.training == pytest.approx(3 * 237.24e9 * 7_000_000 * 256, rel=0.001)
    assert vanilla.sampling == pytest.approx(237.24e9 * 250 * 50_000, rel=0.001)
    assert vanilla.hours(1e15, 0.5) == pytest.approx((vanilla.training + vanilla.sampling) / 1e15 / 0.5 / 3600)
    per_sample = cost["self_flow.paper"].training / (4_000_000 * 256)
    assert 1.238 < per_sample / (3 * 237.24e9) < 1.26
    assert cost["repa.paper"].encoder_per_item > 1e10
    assert vanilla.encoder_per_item == 0


def test_the_verdict_is_of_the_protocols_own_network(claims, project: Places) -> None:
    claim = claims["self-flow-1-sit-xl-self-flow-4000k"]
    (spec,) = claim_runs(project, claim, 1)

    def record(seed: int, fid: float, name: str = "fid/inception-v3-2048") -> Record:
        facts = {"value": fid, "n": 50_000, "network": name.partition("/")[2], "weights_sha256": "57" * 32}
        return Record.model_validate(record_content("self_flow.paper", seed, metrics={name: facts}))

    found = verdict(claim, spec, [record(seed, 5.7 + 0.01 * seed) for seed in range(3)])
    assert found is not None
    assert (found.status, found.n, found.published) == ("reproduced", 3, 5.7)
    assert verdict(claim, spec, [record(0, 5.7, "frechet/efficientnet-lite0-block10-112")]) is None


def test_reproduce_lists_and_plans(project: Places, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "repa-3-sit-b-vanilla-400k", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["recipe"], plan["label"], plan["samples"]) == ("sit_b@1", "vanilla", 102_400_000)
    assert plan["runs"] == [f"sit_b-reference-vanilla-s{seed}" for seed in range(3)]
    assert plan["hours"] == pytest.approx(3 * plan["hours_per_run"])
    assert main(["reproduce", "repa-3-dit-l-repa-400k", "--dry-run"]) == 2
    assert "DiT predicts noise" in " ".join(capsys.readouterr().err.split())


# The file for the evaluator.


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)


def test_samples_are_written_as_numpy_reads_them(tmp_path: Path) -> None:
    parts = [pictures(2), pictures(2, 1), pictures(1, 2)]
    assert write_samples(tmp_path / "samples.npz", iter(parts), 5) == (5, 4, 6, 3)
    with np.load(tmp_path / "samples.npz") as archive:
        assert archive.files == ["arr_0"]
        assert archive["arr_0"].dtype == np.uint8
        assert np.array_equal(archive["arr_0"], np.concatenate(parts))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    with pytest.raises(ValueError, match="3 pictures instead of 4"):
        write_samples(path, [pictures(3)], 4)
    with pytest.raises(FieldError, match="no pictures"):
        write_samples(path, [pictures(2).astype(np.int16)], 2)
    assert not list(tmp_path.iterdir())
