"""What is particular to Chroma: its mask over captions reaches every block, under gradient checkpointing too."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from selfflow_bench.families.base import ATTENDED
from tests.conftest import Tiny


def test_hidden_text_is_not_read_whether_blocks_are_checkpointed_or_not(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("chroma")
    batch = case.batch()
    text = batch.conditions["text"]
    attended = torch.arange(text.shape[1]) < torch.arange(len(text))[:, None] + 2
    conditions = {**batch.conditions, ATTENDED: attended}
    changed = {**conditions, "text": torch.where(attended[..., None], text, text + 1)}

    def predicted(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
        return case.family.predict(model, batch.latents, batch.first, given)

    model = copy.deepcopy(case.transformer)
    plain = predicted(model, conditions)
    assert torch.equal(plain, predicted(model, changed))
    assert not torch.allclose(plain, predicted(model, dict(batch.conditions)))
    bare = case.family.make()
    bare.load_state_dict(model.state_dict())
    # There what is hidden attends to nothing, and is not read either.
    torch.testing.assert_close(predicted(bare, conditions), plain, rtol=0, atol=1e-5)
    model.enable_gradient_checkpointing()  # type: ignore[operator]
    torch.testing.assert_close(predicted(model.train(), conditions), plain, rtol=0, atol=1e-6)
