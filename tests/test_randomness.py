"""Draws are functions of (seed, purpose, index) and nothing else; batches can be cut anywhere."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.flow import RectifiedFlow, TimestepDistribution, shifted
from selfflow_bench.randomness import EpochOrder, key, normal
from selfflow_bench.training.batches import Batches


def batches(seed: int = 1) -> Batches:
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(11, 2, 4, 4, generator=source)
    text = {"text": torch.randn(5, 3, 6, generator=source), "text_mask": torch.ones(5, 3, dtype=torch.bool)}
    caption = torch.arange(11) % 4 + 1
    return Batches(latents, ConditionTable(caption, text), (2, 2), TimestepDistribution("logit_normal"), 0.3, seed)


@given(cut=st.integers(1, 15), start=st.integers(0, 40))
def test_a_batch_is_the_same_however_it_is_cut(cut: int, start: int) -> None:
    whole = batches().make(range(start, start + 16))
    parts = [batches().make(range(start, start + cut)), batches().make(range(start + cut, start + 16))]
    for name in ("latents", "noise", "first", "second", "mask_draw"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
    for name in whole.conditions:
        assert torch.equal(whole.conditions[name], torch.cat([part.conditions[name] for part in parts]))


def test_every_item_is_seen_once_an_epoch() -> None:
    order = EpochOrder(11, seed=3)
    first, second = ([order.item(sample) for sample in range(11 * epoch, 11 * epoch + 11)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second


def test_other_seeds_purposes_and_indices_give_other_draws() -> None:
    keys = {key(seed, purpose, index) for seed in (0, 1) for purpose in ("noise", "mask") for index in range(50)}
    assert len(keys) == 200
    assert key(1, "noise", 1) != key(11, "noise", "")
    assert not torch.equal(normal((4,), 0, "noise", range(3)), normal((4,), 1, "noise", range(3)))


def test_golden_draws_do_not_move() -> None:
    """Records made by other versions stay comparable only while these do not move."""
    assert key(0, "noise", 0) == 5858681329433569406
    values = normal((2,), 0, "noise", range(2)).flatten().tolist()
    assert [round(value, 6) for value in values] == [1.360296, -1.314396, -0.248035, -1.909126]


def test_condition_dropout_gives_the_empty_caption_at_its_rate() -> None:
    made = batches()
    empty = made.conditions.by_caption["text"][0]
    batch = made.make(range(2000))
    share = (batch.conditions["text"] == empty).flatten(1).all(1).float().mean()
    assert abs(float(share) - 0.3) < 0.03


def test_uniform_draws_have_the_documented_mean_gap() -> None:
    """For uniform p, E[min(t, s)] = E|t - s| = 1/3."""
    pairs = TimestepDistribution("uniform").draw(200_000, torch.Generator().manual_seed(0)).view(2, -1)
    assert abs(float(pairs.amin(0).mean()) - 1 / 3) < 0.005
    assert abs(float((pairs[0] - pairs[1]).abs().mean()) - 1 / 3) < 0.005


@given(sigma=st.floats(0, 1), shift=st.floats(0.2, 5))
def test_the_shift_keeps_the_ends_and_the_order(sigma: float, shift: float) -> None:
    value = shifted(torch.tensor([0.0, sigma, 1.0], dtype=torch.float64), shift)
    assert value[0] == 0
    assert abs(float(value[2]) - 1) < 1e-12
    assert 0 <= float(value[1]) <= 1 + 1e-12


def test_noise_ends() -> None:
    x0, noise = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(RectifiedFlow().noised(x0, noise, torch.zeros(2, 1)), x0)
    assert torch.equal(RectifiedFlow().noised(x0, noise, torch.ones(2, 1)), noise)
