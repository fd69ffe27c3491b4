"""torch.compile, block by block: whole graphs, none anew for a new mask; with inductor the eager numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from selfflow_bench.conditioning import TokenTimes
from tests.conftest import Tiny, token_mask

ONE_OF_EACH_MODULATION = {
    "sana": "one row for all blocks, beside a table in each",
    "sd3": "a norm in each block for either stream",
    "flux2": "modulations made once and shared by all blocks",
    "chroma": "a network that makes the rows of all blocks",
    "z_image": "gates through tanh",
    "cosmos": "every norm through a low rank",
    "kandinsky5_image": "nine parts, in float32",
    "omnigen": "a token of the sequence",
}


def compiled(blocks: Sequence[nn.Module], backend: str) -> CompileCounterWithBackend:
    """Compiles each block as one graph (or raises when it runs); returns what counts the graphs."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    for block in blocks:
        block.compile(fullgraph=True, backend=counter)
    return counter


def mixed_prediction(case: Tiny, model: nn.Module, seed: int) -> Tensor:
    """On a batch, and so a mask, of its own for every seed."""
    batch = case.batch(seed=seed)
    times = TokenTimes.mixed(batch.first, batch.second, token_mask(batch.mask_draw))
    return case.family.predict(model, batch.latents, times, batch.conditions)


def test_blocks_are_whole_graphs_and_a_new_mask_makes_no_other(family_name: str, tiny: Callable[[str], Tiny]) -> None:
    """In the mode that the family trains in: HiDream's eval mode counts its experts' tokens on the host."""
    case = tiny(family_name)
    model, eager = (copy.deepcopy(case.transformer).train(case.expected.train) for _ in range(2))
    counter = compiled(case.family.blocks(model), "eager")
    graphs = []
    for seed in (0, 1):
        assert torch.equal(mixed_prediction(case, model, seed), mixed_prediction(case, eager, seed))
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[1] > 0


@pytest.mark.once
@pytest.mark.parametrize("name", ONE_OF_EACH_MODULATION)
def test_inductor_gives_the_eager_numbers_and_gradients(name: str, tiny: Callable[[str], Tiny]) -> None:
    """The first block of each class, because every one costs many seconds to compile."""
    case = tiny(name)
    model, eager = (copy.deepcopy(case.transformer) for _ in range(2))
    first_of_class = {type(block): block for block in reversed(case.family.blocks(model))}
    counter = compiled(list(first_of_class.values()), "inductor")
    # Inductor would leave out the rounding to bfloat16 that Kandinsky's rotary embedding does.
    with torch._inductor.config.patch(emulate_precision_casts=True):
        for seed in (0, 1):
            ours, theirs = (mixed_prediction(case, one, seed) for one in (model, eager))
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
            ours.square().mean().backward()
            theirs.square().mean().backward()
    assert counter.frame_count == len(first_of_class)
    expected = dict(eager.named_parameters())
    for inside, value in model.named_parameters():
        torch.testing.assert_close(value.grad, expected[inside].grad, rtol=1e-4, atol=1e-6, msg=inside)
