"""The stand-in for a timestep: its algebra, and its refusals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from selfflow_bench.conditioning import ConditioningError, LevelRows, TokenLevels, TokenSequences, TokenTimes

shapes = st.tuples(st.integers(1, 4), st.integers(13, 40), st.integers(1, 5), st.integers(1, 3))


def levels_of(batch: int, tokens: int, levels: int, seed: int = 0) -> TokenLevels:
    source = torch.Generator().manual_seed(seed)
    return TokenLevels.of(torch.randint(0, levels, (batch, tokens), generator=source), levels)


def sequences_of(*levels: TokenLevels) -> TokenSequences:
    return TokenSequences.of([one.level for one in levels], torch.zeros(levels[0].levels, levels[0].batch))


def picked(rows: torch.Tensor, levels: TokenLevels) -> torch.Tensor:
    """Each token's row by a plain loop."""
    batch, tokens = levels.level.shape
    return torch.stack(
        [torch.stack([rows[int(levels.level[b, n]) * batch + b, 0] for n in range(tokens)]) for b in range(batch)]
    )


@given(shapes)
def test_select_is_the_plain_loop_and_sum_is_its_transpose(shape: tuple[int, int, int, int]) -> None:
    batch, tokens, channels, count = shape
    levels = levels_of(batch, tokens, count)
    source = torch.Generator().manual_seed(1)
    rows = torch.randn(count * batch, 1, channels, generator=source, dtype=torch.float64)
    assert torch.equal(levels.select(rows, torch.empty(batch, tokens, channels)), picked(rows, levels))
    other = torch.randn(batch, tokens, channels, generator=source, dtype=torch.float64)
    torch.testing.assert_close(
        (levels.select(rows, torch.empty(batch, tokens, channels)) * other).sum(),
        (rows * levels.sum_tokens(other)).sum(),
    )


@given(shapes, st.sampled_from(["add", "multiply"]), st.booleans())
def test_meeting_tokens_is_the_plain_operation_with_its_gradients(
    shape: tuple[int, int, int, int], operation: str, from_the_left: bool
) -> None:
    batch, tokens, channels, count = shape
    levels = levels_of(batch, tokens, count)
    source = torch.Generator().manual_seed(2)
    values = [
        torch.randn(count * batch, 1, channels, generator=source, dtype=torch.float64),
        torch.randn(batch, tokens, channels, generator=source, dtype=torch.float64),
    ]
    gradients = []
    for plain in (True, False):
        rows, hidden = (value.clone().requires_grad_() for value in values)
        left = picked(rows, levels) if plain else LevelRows(rows, sequences_of(levels))
        pair = (left, hidden) if from_the_left else (hidden, left)
        result = pair[0] + pair[1] if operation == "add" else pair[0] * pair[1]
        assert isinstance(result, torch.Tensor)
        (result * torch.arange(result.numel()).view_as(result)).sum().backward()
        gradients.append((result.detach(), rows.grad, hidden.grad))
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_row_operations_act_on_every_level() -> None:
    levels = levels_of(2, 16, 3)
    rows = torch.randn(6, 8)
    stand_in = LevelRows(rows, sequences_of(levels))
    weight = torch.randn(12, 8)
    assert stand_in.shape == (2, 8)
    assert (stand_in.ndim, stand_in.dim(), stand_in.size(1), stand_in.dtype) == (2, 2, 8, torch.float32)
    made = F.silu(F.linear(stand_in, weight)).reshape(2, 6, -1)
    assert torch.equal(made._rows, F.silu(F.linear(rows, weight)).reshape(6, 6, 2))
    table = torch.randn(6, 2)
    parts = (table[None] + made).chunk(6, dim=1)
    assert [part.shape for part in parts] == [(2, 1, 2)] * 6
    assert torch.equal(parts[3]._rows, (table[None] + made._rows)[:, 3:4])
    both = torch.cat([torch.sin(stand_in), torch.cos(stand_in)], dim=-1)
    assert torch.equal(both._rows, torch.cat([rows.sin(), rows.cos()], -1))
    assert torch.equal((stand_in - stand_in)._rows, torch.zeros(6, 8))
    assert torch.equal(stand_in[:, None].squeeze(1).unsqueeze(-1).to(torch.float64)._rows, rows.double()[..., None])
    assert torch.equal((stand_in * torch.rsqrt(stand_in.pow(2).mean(-1, keepdim=True)))._rows, normalised(rows))
    assert torch.equal(stand_in[:, None].repeat(1, 3, 1)._rows, rows[:, None].repeat(1, 3, 1))
    times, frequencies = torch.rand(6), torch.rand(5)
    outer = torch.outer(LevelRows(times, sequences_of(levels)), frequencies)
    assert torch.equal(outer._rows, torch.outer(times, frequencies))
    pooled = torch.randn(2, 8)
    joined = torch.cat([stand_in, pooled, torch.zeros(1, 3)], dim=1)
    assert torch.equal(joined._rows, torch.cat([rows, pooled.repeat(3, 1), torch.zeros(6, 3)], 1))
    assert torch.equal((stand_in + pooled)._rows, rows + pooled.repeat(3, 1))


def test_a_models_own_choice_between_two_timesteps() -> None:
    levels = levels_of(2, 16, 2)
    rows = torch.randn(2, 4, 1, 8)
    first, second = (LevelRows(one, sequences) for sequences in [sequences_of(levels)] for one in rows)
    condition = torch.rand(2, 16, 1) < 0.5
    made = torch.where(condition, first.expand(-1, 16, -1), second)
    assert torch.equal(made, torch.where(condition, picked(rows[0], levels), picked(rows[1], levels)))
    with pytest.raises(ConditioningError, match="where"):
        torch.where(condition[:, :5], first, second)


def test_one_sample_beside_a_plain_part() -> None:
    levels = levels_of(1, 16, 3)
    rows, plain = torch.randn(3, 8), torch.randn(1, 4)
    joined = torch.cat([LevelRows(rows, sequences_of(levels)), plain], dim=1)
    assert torch.equal(joined._rows, torch.cat([rows, plain.repeat(3, 1)], 1))


def normalised(rows: torch.Tensor) -> torch.Tensor:
    return rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True))


def test_what_has_no_rule_raises() -> None:
    levels = levels_of(2, 16, 2)
    stand_in = LevelRows(torch.randn(4, 1, 8), sequences_of(levels))
    for wrong in (
        lambda: torch.softmax(stand_in, -1),
        lambda: stand_in + torch.randn(2, 17, 8),
        lambda: stand_in - torch.randn(2, 16, 8),
        lambda: stand_in + torch.randn(3, 1, 8),
        lambda: stand_in[0],
        lambda: stand_in.reshape(4, 8),
        lambda: stand_in.chunk(2, dim=0),
        lambda: stand_in.unsqueeze(0),
        lambda: stand_in.repeat(2, 1, 1),
        lambda: stand_in.expand(2, 15, 8),
        lambda: torch.cat([stand_in, stand_in], dim=0),
        lambda: stand_in + LevelRows(torch.randn(4, 1, 8), sequences_of(levels_of(2, 16, 2))),
    ):
        with pytest.raises(ConditioningError):
            wrong()


def test_a_sequence_is_known_by_its_length() -> None:
    target, whole = levels_of(2, 16, 3), levels_of(2, 21, 3, seed=1)
    rows = torch.randn(6, 1, 8)
    stand_in = LevelRows(rows, sequences_of(target, whole))
    for levels in (target, whole):
        hidden = torch.randn(2, levels.tokens, 8)
        assert torch.equal(stand_in * hidden, picked(rows, levels) * hidden)
        # An expanded row still picks by the sequence it meets.
        assert torch.equal(stand_in.expand(-1, levels.tokens, -1) + hidden, picked(rows, levels) + hidden)
    grid = torch.randn(2, 4, 4, 8)
    met = LevelRows(rows[:, None], sequences_of(target, whole)) * grid
    assert torch.equal(met, picked(rows, target).view(2, 4, 4, 8) * grid)
    with pytest.raises(ConditioningError, match="another text length"):
        sequences_of(target, levels_of(2, 16, 3, seed=2))


def test_a_part_of_the_targets_is_a_sequence_of_its_own() -> None:
    levels = levels_of(2, 16, 2)
    rows = torch.randn(4, 1, 8)
    whole = LevelRows(rows, sequences_of(levels))
    for start, stop in ((0, 8), (8, 16)):
        hidden = torch.randn(2, 8, 8)
        assert torch.equal(whole.part(start, stop) * hidden, picked(rows, levels)[:, start:stop] * hidden)
    with pytest.raises(ConditioningError, match="different batches"):
        whole.part(0, 8) + whole.part(8, 16)


def test_the_contexts_row_is_the_mean_over_target_tokens() -> None:
    target = levels_of(2, 16, 2)
    shares = torch.stack([(target.level == level).float().mean(1) for level in (0, 1, 2, 3)])
    rows = torch.randn(8, 1, 5, dtype=torch.float64)
    for mean in (True, False):
        sequences = TokenSequences.of([target.level], shares, context=2, mean=mean)
        filled = LevelRows(rows, sequences).with_context_mean()
        expected = picked(rows, target).mean(1) if mean else rows[4:6, 0]
        torch.testing.assert_close(filled.context()[:, 0], expected)
        others = [0, 1, 2, 3, 6, 7]
        assert torch.equal(filled._rows[others], rows[others])
    with pytest.raises(ConditioningError, match="context takes no timestep"):
        LevelRows(rows, TokenSequences.of([target.level], shares)).context()


def test_one_sample_is_not_mistaken_for_a_table() -> None:
    levels = levels_of(1, 16, 2)
    rows = torch.randn(2, 1, 8)
    hidden = torch.randn(1, 16, 8)
    assert torch.equal(LevelRows(rows, sequences_of(levels)) * hidden, picked(rows, levels) * hidden)
    few = levels_of(1, 6, 2)
    with pytest.raises(ConditioningError, match="use batch 2"):
        LevelRows(rows, sequences_of(few)) + torch.randn(1, 6, 8)


def test_mixed_times_pick_by_the_mask() -> None:
    first, second = torch.tensor([0.1, 0.2]), torch.tensor([0.8, 0.9])
    mask = torch.tensor([[True, False, False], [False, False, True]])
    times = TokenTimes.mixed(first, second, mask)
    expected = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.2, 0.9]])
    assert torch.equal(times.per_token(), expected)
    torch.testing.assert_close(times.shares(), torch.tensor([[2 / 3, 2 / 3], [1 / 3, 1 / 3]], dtype=torch.float64))
    torch.testing.assert_close(TokenTimes.mixed(first, second, mask, "time_mean").context_time(), expected.mean(1))


def test_saved_memory_is_that_of_the_ordinary_call() -> None:
    """A modulation keeps tokens and rows for backward, never a selected copy of the rows."""
    levels = levels_of(4, 64, 2)
    hidden = torch.randn(4, 64, 32, requires_grad=True)
    rows = torch.randn(8, 1, 32, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        result = hidden * LevelRows(rows, sequences_of(levels))
        result = result + LevelRows(rows, sequences_of(levels))
    assert sorted(kept) == [rows.numel(), hidden.numel()]
    assert result.shape == hidden.shape
