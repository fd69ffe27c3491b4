"""LongCat-Video's own module against its published size, and against numbers written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from selfflow_bench.families.architectures.longcat_video import LongCatVideoBlock, LongCatVideoTransformer3DModel

TINY = {
    "in_channels": 4,
    "out_channels": 4,
    "hidden_size": 48,
    "depth": 2,
    "num_heads": 2,
    "caption_channels": 16,
    "adaln_tembed_dim": 8,
    "frequency_embedding_size": 16,
}
GRID = (3, 4, 5)


@pytest.fixture
def model() -> LongCatVideoTransformer3DModel:
    torch.manual_seed(0)
    return LongCatVideoTransformer3DModel(**TINY, text_tokens_zero_pad=True).eval()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_published_configuration_has_the_published_size() -> None:
    """13.6B in its README; the published class counts 13,581,071,424."""
    with torch.device("meta"):
        published = LongCatVideoTransformer3DModel(text_tokens_zero_pad=True)
    assert sum(value.numel() for value in published.parameters()) == 13_581_071_424
    assert published.blocks[0].ffn.net[2].in_features == 11_008


def test_output_is_as_large_as_the_latents(model: LongCatVideoTransformer3DModel) -> None:
    latents, text = drawn(2, 4, *(cells * size for cells, size in zip(GRID, (1, 2, 2), strict=True))), drawn(2, 7, 16)
    with torch.no_grad():
        made = model(latents, torch.tensor([1000.0, 10.0]), text)
    assert made.sample.shape == latents.shape


def normed(tokens: Tensor, norm: torch.nn.RMSNorm) -> Tensor:
    return tokens * (tokens.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight


def attended(attention, queries: Tensor, source: Tensor, rotate=lambda tokens: tokens) -> Tensor:
    """Softmax attention head by head, from the weights."""
    made = []
    for head in range(2):
        own = slice(24 * head, 24 * head + 24)
        query = rotate(normed(attention.to_q(queries)[..., own], attention.norm_q))
        key = rotate(normed(attention.to_k(source)[..., own], attention.norm_k))
        weights = (query @ key.transpose(1, 2) / 24**0.5).softmax(-1)
        made.append(weights @ attention.to_v(source)[..., own])
    return attention.to_out(torch.cat(made, -1))


def rotated(tokens: Tensor) -> Tensor:
    """Pairs of channels turned by position x 10000^(-2i/d); 24 channels are 8 for time, 8 for height, 8 for width."""
    positions = torch.cartesian_prod(*(torch.arange(float(size)) for size in GRID))
    angles = torch.cat([positions[:, axis, None] * 10000.0 ** (-torch.arange(4) / 4) for axis in range(3)], -1)
    turned = torch.view_as_complex(tokens.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones(()), angles)
    return torch.view_as_real(turned).flatten(-2)


def test_a_block_is_its_formula(model: LongCatVideoTransformer3DModel) -> None:
    block: LongCatVideoBlock = model.blocks[0]
    with torch.no_grad():
        for norm in (block.attn1.norm_q, block.attn1.norm_k, block.attn2.norm_q, block.attn2.norm_k):
            norm.weight.copy_(1 + 0.3 * drawn(24))
        hidden, text, time = drawn(2, 60, 48), drawn(2, 7, 48, seed=1), drawn(2, 8, seed=2)
        rotary = model.rope(torch.zeros(1, 4, 3, 8, 10))
        ours = block(hidden, text, None, time, rotary)

        row = F.linear(time * time.sigmoid(), block.modulation.weight, block.modulation.bias)[:, None]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (row[..., 48 * k : 48 * k + 48] for k in range(6))

        def centred(tokens: Tensor) -> Tensor:
            return (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()

        inner = centred(hidden) * (1 + scale_a) + shift_a
        hidden = hidden + gate_a * attended(block.attn1, inner, inner, rotated)
        hidden = hidden + attended(block.attn2, centred(hidden) * block.norm2.weight + block.norm2.bias, text)
        inner = centred(hidden) * (1 + scale_f) + shift_f
        value, gate = block.ffn.net[0].proj(inner).chunk(2, -1)
        hidden = hidden + gate_f * block.ffn.net[2](value * gate * gate.sigmoid())
    torch.testing.assert_close(ours, hidden, rtol=0, atol=2e-6)


def test_scores_depend_on_distances_only(model: LongCatVideoTransformer3DModel) -> None:
    """With the same query and key everywhere, a clip's tokens see each other alike wherever the pair stands."""
    cosines, sines = (table[0, :, 0] for table in model.rope(torch.zeros(1, 4, 3, 8, 10)))

    def turned(vector: Tensor) -> Tensor:
        pairs = vector.view(-1, 2)
        return vector * cosines + torch.stack([-pairs[:, 1], pairs[:, 0]], -1).flatten() * sines

    scores = (turned(drawn(24)) @ turned(drawn(24, seed=1)).T).view(*GRID, *GRID)
    assert scores.std() > 0.1
    torch.testing.assert_close(scores[1:, :, :, 1:], scores[:-1, :, :, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(scores[:, 1:, :, :, 1:], scores[:, :-1, :, :, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(scores[:, :, 1:, :, :, 1:], scores[:, :, :-1, :, :, :-1], rtol=0, atol=1e-5)
    assert (scores[0, 0, 0, 0, 0, 1] - scores[0, 0, 0, 0, 1, 0]).abs() > 1e-3, "axes differ"


@pytest.mark.parametrize("zeroed", [True, False])
def test_text_behind_the_caption_is_zeroed_or_masked(zeroed: bool) -> None:
    """Either way what stands there has no say; zeroed, its place still takes a share of the attention."""
    torch.manual_seed(0)
    model = LongCatVideoTransformer3DModel(**TINY, text_tokens_zero_pad=zeroed).eval()
    latents, text, time = drawn(2, 4, 2, 4, 4), drawn(2, 7, 16), torch.tensor([500.0, 10.0])
    keep = torch.arange(7) < torch.tensor([[4], [7]])
    other = torch.where(keep[..., None], text, drawn(2, 7, 16, seed=1))
    with torch.no_grad():
        made, changed = (model(latents, time, given, keep, return_dict=False)[0] for given in (text, other))
        short = model(latents[:1], time[:1], text[:1, :4], keep[:1, :4], return_dict=False)[0]
    assert torch.equal(made, changed)
    assert torch.allclose(made[:1], short, atol=1e-6) is not zeroed


def test_it_is_saved_and_loaded_like_any_diffusers_model(model: LongCatVideoTransformer3DModel, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded = LongCatVideoTransformer3DModel.from_pretrained(tmp_path)
    assert loaded.config.text_tokens_zero_pad
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    arguments = drawn(1, 4, 2, 4, 4), torch.tensor([500.0]), drawn(1, 7, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded(*arguments).sample, model(*arguments).sample, rtol=0, atol=1e-5)
