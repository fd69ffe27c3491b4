"""The losses of repa, irepa, crepa, layersync and sra against direct formulas in float64, and where gradients stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from selfflow_bench.flow import per_sample_shape
from selfflow_bench.hidden_states import captured_output
from selfflow_bench.methods.base import Batch, Method, Sizes
from selfflow_bench.methods.parts.alignment import frames_resized_to_tokens, resized_to_tokens, score
from selfflow_bench.methods.parts.projector import projector
from selfflow_bench.registry import method_class
from tests.conftest import Tiny
from tests.methods.of_recipes import made


def bilinear(picture: Tensor, rows: int, columns: int) -> Tensor:
    """``[r, c, D] -> [rows, columns, D]``, upwards, between the centres of cells, held at the edges."""
    r, c = picture.shape[:2]
    out = torch.zeros(rows, columns, picture.shape[2], dtype=picture.dtype)
    for i in range(rows):
        for j in range(columns):
            y, x = (i + 0.5) * r / rows - 0.5, (j + 0.5) * c / columns - 0.5
            y, x = min(max(y, 0.0), r - 1.0), min(max(x, 0.0), c - 1.0)
            top, left = min(int(y), r - 2), min(int(x), c - 2)
            v, u = y - top, x - left
            out[i, j] = (1 - v) * ((1 - u) * picture[top, left] + u * picture[top, left + 1]) + v * (
                (1 - u) * picture[top + 1, left] + u * picture[top + 1, left + 1]
            )
    return out


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double() / math.sqrt(float(a.double() @ a.double()) * float(b.double() @ b.double())))


def hidden_tokens(case: Tiny, batch: Batch, block: int) -> Tensor:
    noisy = case.family.noising.noised(batch.latents, batch.noise, per_sample_shape(batch.first, batch.latents))
    with torch.no_grad(), captured_output(case.family.blocks(case.transformer)[block - 1]) as outputs:
        case.family.predict(case.transformer, noisy, batch.first, batch.conditions)
    return case.family.hidden_tokens(outputs[0], noisy, batch.conditions)


def alignment_loss(case: Tiny, method: Method, heads: torch.nn.ModuleDict, batch: Batch) -> dict[str, float]:
    result = method.step(case.transformer, heads, case.transformer, batch, step=3)
    metrics = {name: float(value) for name, value in result.metrics.items()}
    assert float(result.loss) == pytest.approx(
        metrics["loss_generative"] + metrics["alignment_weight"] * metrics["loss_alignment"], rel=1e-6
    )
    return metrics


def test_repa_is_one_minus_the_cosine_to_the_resized_features(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("sana")
    method, heads = made(case, "repa", "sana")
    batch = case.batch(needs=method.needs)
    rows, columns = case.family.token_grid(case.latent_shape)
    assert batch.features is not None
    with torch.no_grad():
        student = heads["projector"](hidden_tokens(case, batch, 1))
    total = [
        cosine(student[sample, i * columns + j], target[i, j])
        for sample in range(3)
        for target in [bilinear(batch.features[sample].double(), rows, columns)]
        for i in range(rows)
        for j in range(columns)
    ]
    mean = sum(total) / len(total)
    found = alignment_loss(case, method, heads, batch)
    assert found["loss_alignment"] == pytest.approx(1 - mean, abs=1e-6)
    assert found["alignment_score"] == pytest.approx(mean, abs=1e-6)


def test_irepa_normalises_over_space_and_projects_by_a_convolution(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("sana")
    method, heads = made(case, "irepa", "sana")
    batch = case.batch(needs=method.needs)
    assert batch.features is not None
    features = batch.features.double().numpy()
    mean, deviation = features.mean((1, 2), keepdims=True), features.std((1, 2), keepdims=True, ddof=1)
    expected = torch.from_numpy((features - 0.6 * mean) / (deviation + 1e-6))
    torch.testing.assert_close(method.target(batch).double(), expected, rtol=1e-5, atol=1e-5)  # type: ignore[attr-defined]

    rows, columns = case.family.token_grid(case.latent_shape)
    tokens = hidden_tokens(case, batch, 1)
    found = method.projected(tokens, heads, (rows, columns))  # type: ignore[attr-defined]
    weight, bias = heads["projector"].weight, heads["projector"].bias
    i, j, by_hand = 2, 5, bias.clone()  # an inner token: its nine neighbours, by hand
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            by_hand = by_hand + weight[:, :, di + 1, dj + 1] @ tokens[0, (i + di) * columns + j + dj]
    torch.testing.assert_close(found[0, i * columns + j], by_hand)
    assert alignment_loss(case, method, heads, batch)["alignment_weight"] == 0.5


def test_crepa_is_the_written_out_sum_over_frames_and_neighbours(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("wan")
    method, heads = made(case, "crepa", "wan", neighbour_distance=2, neighbour_tau=1.5)
    batch = case.batch(needs=method.needs)
    frames, rows, columns = case.family.token_grid(case.latent_shape)
    assert batch.features is not None
    assert batch.features.shape[1] == 2 * frames, "two frames share a latent frame"
    shared = batch.features.double().unflatten(1, (frames, 2)).mean(2)
    with torch.no_grad():
        student = heads["projector"](hidden_tokens(case, batch, 1)).unflatten(1, (frames, rows, columns))
    total, own = 0.0, 0.0
    for sample in range(3):
        # The rows and columns of these tokens are fewer than the features': only the shape of sums is independent.
        target = resized_to_tokens(shared[sample], (rows, columns)).unflatten(1, (rows, columns))
        for f in range(frames):
            for other in range(frames):
                if abs(f - other) > 2:
                    continue
                weight = math.exp(-abs(f - other) / 1.5) if f != other else 1.0
                cosines = [
                    cosine(student[sample, f, i, j], target[other, i, j]) for i in range(rows) for j in range(columns)
                ]
                total += weight * (1 - sum(cosines) / len(cosines)) / frames / 3
                own += sum(cosines) / len(cosines) / frames / 3 if f == other else 0.0
    found = alignment_loss(case, method, heads, batch)
    assert found["loss_alignment"] == pytest.approx(total, abs=1e-5)
    assert found["alignment_score"] == pytest.approx(own, abs=1e-6)
    assert -1 <= found["neighbour_score"] <= 1


def test_resizing_is_bilinear_and_averages_frames_that_share_a_latent_frame() -> None:
    source = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 4, 3, generator=source, dtype=torch.float64)
    found = resized_to_tokens(features, (6, 10)).unflatten(1, (6, 10))
    torch.testing.assert_close(found[1], bilinear(features[1], 6, 10))
    assert torch.equal(resized_to_tokens(features, (4, 4)), features.flatten(1, 2)), "equal grids are left alone"
    clip = torch.randn(2, 6, 4, 4, 3, generator=source, dtype=torch.float64)
    by_frame = frames_resized_to_tokens(clip, (3, 4, 4)).unflatten(1, (3, 4, 4))
    torch.testing.assert_close(by_frame[:, 1], (clip[:, 2] + clip[:, 3]) / 2)


def test_layersync_stops_at_the_deeper_block_and_has_no_heads(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("sana")
    method, heads = made(case, "layersync", "sana")
    assert not list(heads.parameters())
    batch = case.batch()
    early, deep = hidden_tokens(case, batch, 1), hidden_tokens(case, batch, 2)
    cosines = [cosine(a, b) for a, b in zip(early.flatten(0, 1), deep.flatten(0, 1), strict=True)]
    found = alignment_loss(case, method, heads, batch)
    assert found["loss_alignment"] == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-6)

    model = copy.deepcopy(case.transformer)
    blocks = case.family.blocks(model)
    noisy = case.family.noising.noised(batch.latents, batch.noise, per_sample_shape(batch.first, batch.latents))
    with captured_output(blocks[0]) as low, captured_output(blocks[1]) as high:
        case.family.predict(model, noisy, batch.first, batch.conditions)
    tokens = [case.family.hidden_tokens(out[0], noisy, batch.conditions) for out in (low, high)]
    method.auxiliary_loss(tokens, heads, model, batch)[0].backward()  # type: ignore[attr-defined]
    assert all(value.grad is None or not value.grad.any() for value in blocks[1].parameters())
    assert any(value.grad is not None and value.grad.any() for value in blocks[0].parameters())


@pytest.mark.parametrize("loss", ["smooth_l1", "cosine"])
def test_sra_compares_with_a_slightly_cleaner_teacher(tiny: Callable[[str], Tiny], loss: str) -> None:
    case = tiny("sana")
    method, heads = made(case, "sra", "sana", loss=loss)
    batch = case.batch(size=64, needs=method.needs)
    assert batch.uniforms is not None
    sigma = (batch.first - 0.2 * batch.uniforms[:, 0]).clamp_min(0)
    assert bool(((batch.first - sigma) <= 0.2).all())
    assert bool((sigma <= batch.first).all())
    assert float(sigma.min()) >= 0
    view = case.family.noising.noised(batch.latents, batch.noise, per_sample_shape(sigma, batch.latents))
    with torch.no_grad(), captured_output(case.family.blocks(case.transformer)[1]) as outputs:
        case.family.predict(case.transformer, view, sigma, batch.conditions)
    target = case.family.hidden_tokens(outputs[0], view, batch.conditions).double()
    with torch.no_grad():
        student = heads["projector"](hidden_tokens(case, batch, 1)).double()
    gap = (student - target).abs()
    expected = {
        "smooth_l1": torch.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean(),
        "cosine": 1 - F.cosine_similarity(student, target, dim=-1).mean(),
    }[loss]
    assert alignment_loss(case, method, heads, batch)["loss_alignment"] == pytest.approx(float(expected), abs=1e-6)


def test_teacher_and_student_agree_at_step_zero_at_the_same_time_and_block(tiny: Callable[[str], Tiny]) -> None:
    """The EMA starts as the student: at interval 0 SRA's teacher tokens are the student's own after that block."""
    case = tiny("sana")
    method, _ = made(case, "sra", "sana", interval=0.0)
    batch = case.batch(needs=method.needs)
    teacher = copy.deepcopy(case.transformer)
    assert torch.equal(method.teacher_tokens(teacher, batch), hidden_tokens(case, batch, 2))  # type: ignore[attr-defined]


def test_projectors_have_their_documented_shapes() -> None:
    kinds = [type(part).__name__ for part in projector("mlp3_silu", 1152, 768)]  # type: ignore[arg-type]
    assert kinds == ["Linear", "SiLU", "Linear", "SiLU", "Linear"]
    widths = [part.weight.shape for part in projector("mlp3_silu", 1152, 768) if isinstance(part, torch.nn.Linear)]  # type: ignore[attr-defined]
    assert widths == [(2048, 1152), (2048, 2048), (768, 2048)]
    assert method_class("repa").settings_class(student_block=1, encoder="x").projector == "layernorm_linear"  # type: ignore[attr-defined]
    assert Sizes().hidden == 0


def test_logged_cosines_stay_within_one_whatever_the_rounding() -> None:
    assert float(score(torch.tensor(1.0000001))) == 1.0
    assert float(score(torch.tensor(-1.0000001))) == -1.0
