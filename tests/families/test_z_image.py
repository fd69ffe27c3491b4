"""What is particular to Z-Image: captions cut at their ends, as the published pipeline hands them over."""

from __future__ import annotations

from collections.abc import Callable

import torch

from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.families.base import ATTENDED
from tests.conftest import Tiny, token_mask


@torch.no_grad()
def test_captions_of_any_lengths_are_what_each_is_alone(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("z_image")
    batch = case.batch(text_tokens=40)
    ends = torch.tensor([3, 40, 33])
    conditions = {**batch.conditions, ATTENDED: torch.arange(40) < ends[:, None]}
    mask = token_mask(batch.mask_draw)
    together = case.family.predict(
        case.transformer, batch.latents, TokenTimes.mixed(batch.first, batch.second, mask), conditions
    )
    for row, end in enumerate(ends.tolist()):
        one = slice(row, row + 1)
        alone = case.family.predict(
            case.transformer,
            batch.latents[one],
            TokenTimes.mixed(batch.first[one], batch.second[one], mask[one]),
            {"text": conditions["text"][one, :end]},
        )
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-5)
