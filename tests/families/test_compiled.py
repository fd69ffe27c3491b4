"""torch.compile, block by block with inductor, is the eager model, and a new mask compiles nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from selfflow_bench.conditioning import TokenTimes
from selfflow_bench.registry import names
from tests.conftest import Tiny, token_mask

ONE_OF_EACH_MODULATION = ("sana", "wan")


@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH_MODULATION if name in names("families")])
def test_compiled_blocks_match_without_breaks_or_recompiles(name: str, tiny: Callable[[str], Tiny]) -> None:
    case = tiny(name)
    family, model = case.family, copy.deepcopy(case.transformer)
    torch._dynamo.reset()
    for block in family.blocks(model):
        block.compile(fullgraph=True)
    first, second = case.batch(), case.batch(seed=1)
    for batch in (first, second):
        times = TokenTimes.mixed(batch.first, batch.second, token_mask(batch.mask_draw))
        if batch is second:
            torch._dynamo.config.error_on_recompile = True
        try:
            compiled = family.predict(model, batch.latents, times, batch.conditions)
        finally:
            torch._dynamo.config.error_on_recompile = False
        eager = family.predict(case.transformer, batch.latents, times, batch.conditions)
        torch.testing.assert_close(compiled, eager, rtol=0, atol=1e-5)
    compiled.square().mean().backward()
    eager.square().mean().backward()
    expected = {name: value.grad for name, value in case.transformer.named_parameters()}
    for inside, value in model.named_parameters():
        torch.testing.assert_close(value.grad, expected[inside.replace("_orig_mod.", "")], rtol=1e-4, atol=1e-6)
    case.transformer.zero_grad()
