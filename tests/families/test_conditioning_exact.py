"""Per-token conditioning by levels is exact: against the ordinary call, and against one row per token."""

from __future__ import annotations

import copy

import pytest
import torch

from selfflow_bench.conditioning import ConditioningError, TokenTimes
from selfflow_bench.methods.base import Batch
from tests.conftest import Tiny, token_mask


def mixed(batch: Batch, **settings) -> TokenTimes:
    return TokenTimes.mixed(batch.first, batch.second, token_mask(batch.mask_draw), **settings)


def test_plain_timestep_is_the_bare_model_bit_for_bit(tiny_family: Tiny) -> None:
    """Against the class as diffusers makes it, without our hooks."""
    batch, family = tiny_family.batch(), tiny_family.family
    bare = family.make().eval()
    bare.load_state_dict(tiny_family.transformer.state_dict())
    arguments = family.arguments(batch.latents, family.model_time(batch.first), batch.conditions)
    with torch.no_grad():
        theirs = family.prediction(family.output(bare(**arguments, return_dict=False)), batch.latents)
        ours = family.predict(tiny_family.transformer, batch.latents, batch.first, batch.conditions)
    assert theirs.shape == batch.latents.shape
    assert torch.equal(theirs, ours)


def test_the_output_depends_on_time_text_and_latents(tiny_family: Tiny) -> None:
    """Or the other tests would hold of a model that ignores them."""
    batch, other, family = tiny_family.batch(), tiny_family.batch(seed=1), tiny_family.family

    def made(latents, sigma, conditions) -> torch.Tensor:
        with torch.no_grad():
            return family.predict(tiny_family.transformer, latents, sigma, conditions)

    base = made(batch.latents, batch.first, batch.conditions)
    for changed in (
        made(other.latents, batch.first, batch.conditions),
        made(batch.latents, other.first, batch.conditions),
        *(
            made(batch.latents, batch.first, {**batch.conditions, name: other.conditions[name]})
            for name in batch.conditions
            if name not in ("text", "text_mask", "text_ids")
        ),
        made(batch.latents, batch.first, other.conditions),
    ):
        assert (changed - base).abs().max() > 1e-5 * base.abs().max()


def test_equal_levels_are_the_plain_call(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    times = TokenTimes.mixed(batch.first, batch.first, token_mask(batch.mask_draw))
    with torch.no_grad():
        plain = family.predict(tiny_family.transformer, batch.latents, batch.first, batch.conditions)
        equal = family.predict(tiny_family.transformer, batch.latents, times, batch.conditions)
    torch.testing.assert_close(equal, plain, rtol=0, atol=tiny_family.expected.equal_tolerance)


def test_text_as_long_as_the_target_is_right_or_refused(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(text_tokens=tiny_family.tokens), tiny_family.family
    times = TokenTimes.mixed(batch.first, batch.first, token_mask(batch.mask_draw))
    with torch.no_grad():
        plain = family.predict(tiny_family.transformer, batch.latents, batch.first, batch.conditions)
        if tiny_family.expected.refuses_equal_lengths:
            with pytest.raises(ConditioningError, match="another text length"):
                family.predict(tiny_family.transformer, batch.latents, times, batch.conditions)
            return
        equal = family.predict(tiny_family.transformer, batch.latents, times, batch.conditions)
    torch.testing.assert_close(equal, plain, rtol=0, atol=tiny_family.expected.equal_tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixed_levels_are_one_row_per_token(tiny_family: Tiny, dtype: torch.dtype) -> None:
    expected = tiny_family.expected
    tolerance = expected.float64_tolerance if dtype == torch.float64 else expected.tolerance
    if tolerance is None:
        pytest.skip("the class keeps its time embedding in float32 and cannot run in float64")
    batch, family = tiny_family.batch(), tiny_family.family
    first, second = (copy.deepcopy(tiny_family.transformer).to(dtype).train(expected.train) for _ in range(2))
    conditions = {name: v.to(dtype) if v.is_floating_point() else v for name, v in batch.conditions.items()}
    latents = batch.latents.to(dtype)
    # Most models compute their sinusoids in float32 whatever their weights are, so the times stay float32.
    time_dtype = expected.time_dtype if dtype == torch.float64 else torch.float32
    times = mixed(batch)
    times = TokenTimes(times.times.to(time_dtype), times.level, times.context)

    ours = family.predict(first, latents, times, conditions)
    theirs = expected.forward(second, latents, expected.clock(times.per_token()), conditions)
    assert ours.shape == latents.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)

    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    gradients = dict(second.named_parameters())
    scale = max(float(value.grad.abs().max()) for value in gradients.values() if value.grad is not None)
    for name, value in first.named_parameters():
        if gradients[name].grad is None:
            assert value.grad is None or not value.grad.any(), name
        else:
            torch.testing.assert_close(value.grad, gradients[name].grad, rtol=0, atol=tolerance * scale, msg=name)


def test_mixed_levels_change_the_output(tiny_family: Tiny) -> None:
    """The second time really arrives: the mixed call is neither of the plain ones."""
    batch, family = tiny_family.batch(), tiny_family.family
    with torch.no_grad():
        made = [
            family.predict(tiny_family.transformer, batch.latents, sigma, batch.conditions)
            for sigma in (mixed(batch), batch.first, batch.second)
        ]
    assert (made[0] - made[1]).abs().max() > 1e-4
    assert (made[0] - made[2]).abs().max() > 1e-4


def test_one_masked_token_changes_its_own_modulation_only(tiny_family: Tiny) -> None:
    """What has just been modulated for the first time: a token's timestep has touched that token and no other."""
    batch, family, expected = tiny_family.batch(size=2), tiny_family.family, tiny_family.expected
    token = tiny_family.tokens // 2
    mask = torch.zeros(2, tiny_family.tokens, dtype=torch.bool)
    module, argument = expected.modulated(tiny_family.transformer)
    seen: list[torch.Tensor] = []

    def keep(_module, args, kwargs) -> None:
        seen.append(expected.target(kwargs[argument] if argument in kwargs else args[0], tiny_family.tokens))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        for chosen in (False, True):
            mask[:, token] = chosen
            with torch.no_grad():
                times = TokenTimes.mixed(batch.first, batch.second, mask, "first")
                family.predict(tiny_family.transformer, batch.latents, times, batch.conditions)
    finally:
        handle.remove()
    changed = (seen[0] != seen[-1]).any(-1)
    assert changed.shape == (2, tiny_family.aligned)
    assert changed.nonzero()[:, 1].unique().tolist() == [token]
    assert changed[:, token].all()


def test_spread_moves_exactly_its_tokens_patch(tiny_family: Tiny) -> None:
    """A token's value covers the latent cells that reach that token alone through the patch embedding."""
    family, shape = tiny_family.family, tiny_family.latent_shape
    batch = tiny_family.batch(size=1)
    block = family.blocks(tiny_family.transformer)[0]
    seen: list[torch.Tensor] = []

    def keep(_module, args, kwargs) -> None:
        entering = tiny_family.expected.first_input(args, kwargs)
        seen.append(tiny_family.expected.target(entering, tiny_family.tokens).clone())

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
            assert changed.shape == (tiny_family.tokens,)
            assert changed.nonzero().flatten().tolist() == [token]
    finally:
        handle.remove()


def test_gradient_checkpointing_and_deepcopy_change_nothing(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(tiny_family.transformer).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        torch.manual_seed(0)
        family.predict(model, batch.latents, mixed(batch), batch.conditions).square().mean().backward()
        gradients.append([value.grad for value in model.parameters() if value.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bf16_autocast_stays_as_near_as_the_plain_call(tiny_family: Tiny) -> None:
    batch, family = tiny_family.batch(), tiny_family.family
    errors = []
    for sigma in (batch.first, mixed(batch)):
        with torch.no_grad():
            exact = family.predict(tiny_family.transformer, batch.latents, sigma, batch.conditions)
            with torch.autocast("cpu", torch.bfloat16):
                rough = family.predict(tiny_family.transformer, batch.latents, sigma, batch.conditions).float()
        errors.append(float((rough - exact).norm() / exact.norm()))
    assert errors[0] < 0.1
    assert errors[1] < 1.5 * errors[0] + 0.01
