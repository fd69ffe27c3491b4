"""LongCat-Video's parts, and upstream's names of its transformer's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from selfflow_bench.errors import DamagedFileError
from selfflow_bench.families.architectures.longcat_video_weights import published_model, renamed
from tests.pipelines.cases import Case
from tests.pipelines.test_sampling import sampled
from tests.pipelines.tiny.longcat_video import Upstream


@torch.no_grad()
def test_layers_under_upstreams_names_do_what_they_do_there(tmp_path: Path) -> None:
    Upstream().save_pretrained(tmp_path / "dit")
    weights = {
        name: value for path in (tmp_path / "dit").glob("*.safetensors") for name, value in load_file(path).items()
    }
    block = published_model(tmp_path / "dit", torch.float32).blocks[1]
    tokens = torch.randn(2, 5, 24)

    def linear(layer: str) -> torch.Tensor:
        name = f"blocks.1.{layer}"
        return F.linear(tokens, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    query, key, value = linear("attn.qkv").unflatten(-1, (3, 2, 12)).unbind(2)
    for ours, theirs in ((block.attn1.to_q, query), (block.attn1.to_k, key), (block.attn1.to_v, value)):
        torch.testing.assert_close(ours(tokens), theirs.flatten(-2))
    key, value = linear("cross_attn.kv_linear").unflatten(-1, (2, 2, 12)).unbind(2)
    torch.testing.assert_close(block.attn2.to_k(tokens), key.flatten(-2))
    torch.testing.assert_close(block.attn2.to_v(tokens), value.flatten(-2))
    fed = F.linear(F.silu(linear("ffn.w1")) * linear("ffn.w3"), weights["blocks.1.ffn.w2.weight"])
    torch.testing.assert_close(block.ffn(tokens), fed)
    assert torch.equal(block.norm2.bias, weights["blocks.1.pre_crs_attn_norm.bias"])
    assert torch.equal(block.attn2.norm_k.weight, weights["blocks.1.cross_attn.k_norm.weight"])


def test_weights_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    Upstream().save_pretrained(tmp_path / "dit")
    path = next((tmp_path / "dit").glob("*-0.safetensors"))
    weights = load_file(path)
    save_file({name: value for name, value in weights.items() if not name.startswith("blocks.0.attn.proj")}, path)
    with pytest.raises(DamagedFileError, match=r"blocks\.0\.attn1\.to_out"):
        published_model(tmp_path / "dit", torch.float32)
    with pytest.raises(DamagedFileError, match=r"blocks\.0\.rope: no layer"):
        renamed({"blocks.0.rope.table": torch.ones(1)})


@torch.no_grad()
def test_a_clip_is_made_of_a_caption(cases: Callable[[str], Case]) -> None:
    case = cases("longcat_video")
    shape = tuple(case.published.encode_media(case.media(1)).shape[1:])
    made = sampled(case, shape)
    assert made.isfinite().all()
    scheduler = case.published.schedule(shape, 3)
    # 1, 0.5005 and 0.001 under the scheduler's own shift of 12.
    expected = torch.tensor([1.0, 12 * 0.5005 / (1 + 11 * 0.5005), 12 * 0.001 / (1 + 11 * 0.001), 0.0])
    torch.testing.assert_close(scheduler.sigmas, expected)


def test_guidance_leads_away_from_what_of_the_unwanted_is_in_the_wanted(cases: Callable[[str], Case]) -> None:
    away = torch.randn(2, 3, 2, 2, 2, generator=torch.manual_seed(0))
    factors = torch.tensor([2.0, -0.5]).view(2, 1, 1, 1, 1)
    guided = cases("longcat_video").published.guide(4.0)(factors * away, away)
    torch.testing.assert_close(guided, factors * away)
    # What is at right angles to the unwanted is made as much larger as the scale says.
    apart = torch.zeros(2, 3, 2, 2, 2)
    apart[:, 0], away[:, 0] = 1.0, 0.0
    torch.testing.assert_close(cases("longcat_video").published.guide(4.0)(apart, away), 4 * apart)
