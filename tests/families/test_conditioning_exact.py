"""Per-token conditioning by levels is exact: against the ordinary call, and against one row per token."""

from __future__ import annotations

import copy

import pytest
import torch

from selfflow_bench.conditioning import TokenTimes
from tests.conftest import Tiny, token_mask
from tests.families.oracles import ORACLES

COMPUTES_IN_FLOAT32 = {"wan"}
"""Their blocks cast to float32 whatever the weights are, so float64 brings no more digits."""


def test_plain_timestep_is_the_bare_model_bit_for_bit(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    arguments = family.arguments(batch.latents, family.model_time(batch.first), batch.conditions)
    with torch.no_grad():
        bare = family.velocity(tiny_family.transformer(**arguments).sample, batch.latents)
        ours = family.predict(tiny_family.transformer, batch.latents, batch.first, batch.conditions)
    assert torch.equal(bare, ours)


def test_equal_levels_are_the_plain_call(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    times = TokenTimes.mixed(batch.first, batch.first, token_mask(batch.mask_draw))
    with torch.no_grad():
        plain = family.predict(tiny_family.transformer, batch.latents, batch.first, batch.conditions)
        mixed = family.predict(tiny_family.transformer, batch.latents, times, batch.conditions)
    torch.testing.assert_close(mixed, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_mixed_levels_are_one_row_per_token(
    family_name: str, tiny_family: Tiny, dtype: torch.dtype, tolerance: float
) -> None:
    if dtype == torch.float64 and family_name in COMPUTES_IN_FLOAT32:
        tolerance = 1e-5
    batch, family = tiny_family.batch(), tiny_family.family
    first, second = copy.deepcopy(tiny_family.transformer).to(dtype), copy.deepcopy(tiny_family.transformer).to(dtype)
    conditions = {name: v.to(dtype) if v.is_floating_point() else v for name, v in batch.conditions.items()}
    latents = batch.latents.to(dtype)
    # Models compute their sinusoids in float32 whatever their weights are, so the times themselves stay float32.
    times = TokenTimes.mixed(batch.first, batch.second, token_mask(batch.mask_draw))
    if family_name == "ace_step":  # its class takes the type of the embedding from the type of the time
        times = times.map(lambda value: value.to(dtype))

    ours = family.predict(first, latents, times, conditions)
    per_token = family.model_time(times.per_token())
    theirs = ORACLES[family_name](second, latents, per_token, conditions)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)

    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    expected = dict(second.named_parameters())
    scale = max(float(value.grad.abs().max()) for value in expected.values() if value.grad is not None)
    for name, value in first.named_parameters():
        if expected[name].grad is None:
            assert value.grad is None or not value.grad.any(), name
        else:
            torch.testing.assert_close(value.grad, expected[name].grad, rtol=0, atol=tolerance * scale, msg=name)


def test_one_masked_token_changes_its_own_modulation_only(tiny_family: Tiny) -> None:
    """What enters the first attention: a token's timestep has touched that token and no other."""
    batch, family = tiny_family.batch(size=2), tiny_family.family
    token = tiny_family.tokens // 2
    mask = torch.zeros(2, tiny_family.tokens, dtype=torch.bool)
    attention = next(module for module in tiny_family.transformer.modules() if hasattr(module, "to_q"))
    seen: list[torch.Tensor] = []
    handle = attention.register_forward_pre_hook(
        lambda _module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    try:
        for chosen in (False, True):
            mask[:, token] = chosen
            with torch.no_grad():
                times = TokenTimes.mixed(batch.first, batch.second, mask)
                family.predict(tiny_family.transformer, batch.latents, times, batch.conditions)
    finally:
        handle.remove()
    changed = (seen[0] != seen[1]).any(-1)
    assert changed.nonzero()[:, 1].unique().tolist() == [token]
    assert changed[:, token].all()


def test_spread_moves_exactly_its_tokens_patch(tiny_family: Tiny) -> None:
    """A token's value covers the latent cells that reach that token alone through the patch embedding."""
    family, shape = tiny_family.family, tiny_family.latent_shape
    batch = tiny_family.batch(size=1)
    block = family.blocks(tiny_family.transformer)[0]
    seen: list[torch.Tensor] = []

    def keep(_module, args, kwargs) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        for token in (0, 1, tiny_family.tokens // 2, tiny_family.tokens - 1):
            one = torch.zeros(1, tiny_family.tokens)
            one[0, token] = 1
            moved = batch.latents + family.spread(one, shape)
            seen.clear()
            with torch.no_grad():
                for latents in (batch.latents, moved):
                    family.predict(tiny_family.transformer, latents, batch.first, batch.conditions)
            changed = (seen[0] != seen[1]).any(-1)[0]
            assert changed.nonzero().flatten().tolist() == [token]
    finally:
        handle.remove()


def test_gradient_checkpointing_and_deepcopy_change_nothing(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    times = TokenTimes.mixed(batch.first, batch.second, token_mask(batch.mask_draw))
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(tiny_family.transformer).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        family.predict(model, batch.latents, times, batch.conditions).square().mean().backward()
        gradients.append([value.grad for value in model.parameters() if value.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bf16_autocast_runs_and_stays_near(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    times = TokenTimes.mixed(batch.first, batch.second, token_mask(batch.mask_draw))
    with torch.no_grad():
        exact = family.predict(tiny_family.transformer, batch.latents, times, batch.conditions)
        with torch.autocast("cpu", torch.bfloat16):
            rough = family.predict(tiny_family.transformer, batch.latents, times, batch.conditions).float()
    assert torch.isfinite(rough).all()
    assert (rough - exact).norm() / exact.norm() < 0.05
