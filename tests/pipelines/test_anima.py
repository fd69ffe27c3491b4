"""Anima's parts: against what diffusers' own blocks make of the same noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import ClassifierFreeGuidance
from diffusers.modular_pipelines.anima import AnimaAutoBlocks

from tests.pipelines.cases import OTHER, Case
from tests.pipelines.test_sampling import SCALE, STEPS, sampled


@torch.no_grad()
def test_what_is_made_of_a_caption_is_the_blocks_own(cases: Callable[[str], Case]) -> None:
    case = cases("anima")
    expected = own(case, output="latents")
    found = sampled(case, tuple(case.published.encode_media(case.media(1)).shape[1:]))
    torch.testing.assert_close(found, expected[:, :, 0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, own(case, output="latents", prompt=OTHER)[:, :, 0], atol=1e-3)


def own(case: Case, **settings: Any) -> Any:
    """What diffusers' blocks make."""
    blocks, model, parts = AnimaAutoBlocks().init_pipeline(), case.transformer, case.published.pipeline
    blocks.update_components(
        transformer=model.transformer,
        text_conditioner=model.text_conditioner,
        guider=ClassifierFreeGuidance(guidance_scale=SCALE),
        **{name: getattr(parts, name) for name in ("vae", "text_encoder", "tokenizer", "t5_tokenizer", "scheduler")},
    )
    given = {"prompt": case.caption, "max_sequence_length": case.length, "num_inference_steps": STEPS, **case.size}
    return blocks(**{**given, **settings}, generator=torch.manual_seed(0))
