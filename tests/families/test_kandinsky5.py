"""What is particular to Kandinsky 5: captions without padding, several lengths in a batch, checkpointed or not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.families.base import ATTENDED
from tests.conftest import Tiny, token_mask


@pytest.mark.parametrize("name", ["kandinsky5_image", "kandinsky5_video"])
def test_captions_of_any_lengths_are_what_each_is_alone(tiny: Callable[[str], Tiny], name: str) -> None:
    case = tiny(name)
    batch = case.batch(text_tokens=8)
    ends = torch.tensor([3, 8, 5])
    text = batch.conditions["text"]
    pooled = torch.randn(3, int(case.family.config["in_text_dim2"]), generator=torch.manual_seed(0))
    conditions = {"text": text, "pooled": pooled, ATTENDED: torch.arange(8) < ends[:, None]}
    mask, model = token_mask(batch.mask_draw), copy.deepcopy(case.transformer)
    times = TokenTimes.mixed(batch.first, batch.second, mask)
    together = case.family.predict(model, batch.latents, times, conditions)
    for row, end in enumerate(ends.tolist()):
        one = slice(row, row + 1)
        alone = case.family.predict(
            model,
            batch.latents[one],
            TokenTimes.mixed(batch.first[one], batch.second[one], mask[one]),
            {"text": text[one, :end], "pooled": pooled[one]},
        )
        # It rounds to bfloat16 inside.
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-3)
    together = case.family.predict(model.train(), batch.latents, times, conditions)
    together.square().sum().backward()
    grads = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    model.enable_gradient_checkpointing()  # type: ignore[operator]
    case.family.predict(model, batch.latents, times, conditions).square().sum().backward()
    for parameter, value in model.named_parameters():
        if parameter in grads:
            torch.testing.assert_close(value.grad, grads[parameter], rtol=1e-4, atol=1e-5)
