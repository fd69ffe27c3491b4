"""What is particular to HiDream: its experts learn, and train() and eval() mode say the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from selfflow_bench.conditioning import TokenTimes
from tests.conftest import Tiny, token_mask


def test_experts_get_gradients_and_modes_agree(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("hidream")
    model, batch = copy.deepcopy(case.transformer), case.batch()
    times = TokenTimes.mixed(batch.first, batch.second, token_mask(batch.mask_draw))
    made = [case.family.predict(model.train(mode), batch.latents, times, batch.conditions) for mode in (True, False)]
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e-5)
    made[0].square().sum().backward()
    experts = [value for name, value in model.named_parameters() if ".experts." in name]
    learning = [value for value in experts if value.grad is not None and value.grad.abs().max() > 0]
    assert len(learning) > 0.9 * len(experts)
