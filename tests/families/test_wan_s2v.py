"""Wan S2V's own module against its published size, and against numbers written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from selfflow_bench.families.architectures.wan_s2v import WanS2VTransformer3DModel, rotary_tables
from selfflow_bench.families.wan_s2v import WanS2V

TINY = {
    "in_dim": 4,
    "out_dim": 4,
    "cond_dim": 3,
    "dim": 48,
    "ffn_dim": 64,
    "freq_dim": 16,
    "text_dim": 16,
    "num_heads": 2,
    "num_layers": 2,
    "audio_dim": 6,
    "audio_layers": 2,
    "num_audio_token": 3,
    "audio_inject_layers": [0],
}
VIDEO, PICTURE = 40, 20
"""Tokens of 2 latent frames of 8 x 10 cells, and of one."""
OLDER = 4 + 4
"""Tokens of the 2 and of the 16 frames before the newest."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def fresh() -> WanS2VTransformer3DModel:
    torch.manual_seed(0)
    return WanS2VTransformer3DModel(**TINY).eval()


@pytest.fixture
def model(fresh: WanS2VTransformer3DModel) -> WanS2VTransformer3DModel:
    """As it might be after some training: nothing is zero."""
    with torch.no_grad():
        for value in fresh.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return fresh


def arguments(batch: int = 2) -> dict[str, Tensor]:
    return {
        "hidden_states": drawn(batch, 4, 2, 8, 10),
        "timestep": torch.tensor([900.0, 30.0])[:batch],
        "encoder_hidden_states": drawn(batch, 7, 16, seed=1),
        "reference": drawn(batch, 4, 1, 8, 10, seed=2),
        "audio": drawn(batch, 2, 8, 6, seed=3),
        "motion": drawn(batch, 4, 19, 8, 10, seed=4),
        "pose": drawn(batch, 3, 2, 8, 10, seed=5),
    }


def made(model: WanS2VTransformer3DModel, **changed) -> Tensor:
    with torch.no_grad():
        return model(**{**arguments(), **changed}, return_dict=False)[0]


def tokens_into(module: torch.nn.Module, model: WanS2VTransformer3DModel, **changed) -> Tensor:
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    made(model, **changed)
    handle.remove()
    return seen[0]


def test_the_published_configuration_has_the_published_size() -> None:
    """The published class counts 16,295,755,609: Wan's 14.288B and what is added for sound."""
    with torch.device("meta"):
        published = WanS2VTransformer3DModel()
    assert sum(value.numel() for value in published.parameters()) == 16_295_755_609


def test_every_input_has_a_say(model: WanS2VTransformer3DModel) -> None:
    base = made(model)
    assert base.shape == (2, 4, 2, 8, 10)
    for name, value in arguments().items():
        assert (made(model, **{name: value.flip(0)}) - base).abs().max() > 1e-3, name
    for name in ("motion", "pose"):
        assert (made(model, **{name: None}) - base).abs().max() > 1e-3, name


def test_it_starts_deaf(fresh: WanS2VTransformer3DModel) -> None:
    """The published initialisation: sound, pose and the kinds of tokens come in through weights that are zero."""
    silent = torch.zeros_like(arguments()["audio"])
    assert torch.equal(made(fresh), made(fresh, audio=silent + 1.0, pose=None))


def test_reference_and_motion_are_at_time_zero(model: WanS2VTransformer3DModel) -> None:
    """The sequence is [video, picture, newest frame before the clip, older ones]; only the video sees the time."""
    first = model.blocks[0].attn1
    base, later = tokens_into(first, model), tokens_into(first, model, timestep=torch.tensor([800.0, 20.0]))
    zero = tokens_into(first, model, timestep=torch.zeros(2))
    assert base.shape == (2, VIDEO + PICTURE + PICTURE + OLDER, 48)
    assert (base[:, :VIDEO] != later[:, :VIDEO]).any(-1).all()
    assert torch.equal(base[:, VIDEO:], later[:, VIDEO:])
    torch.testing.assert_close(base[:, VIDEO:], zero[:, VIDEO:], rtol=0, atol=1e-6)


def test_a_block_is_its_formula(model: WanS2VTransformer3DModel) -> None:
    block = model.blocks[0]
    hidden, text = drawn(2, 9, 48), drawn(2, 5, 48, seed=1)
    time, clean = drawn(2, 6, 48, seed=2), drawn(1, 6, 48, seed=3)
    positions = torch.arange(9)[:, None].expand(-1, 3)

    def normed(tokens: Tensor, norm: torch.nn.RMSNorm) -> Tensor:
        return tokens * (tokens.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight

    def attended(attention, queries: Tensor, source: Tensor, *, rotate: bool) -> Tensor:
        query, key = normed(attention.to_q(queries), attention.norm_q), normed(attention.to_k(source), attention.norm_k)
        value, out = attention.to_v(source), []
        for own in (slice(0, 24), slice(24, 48)):
            pair = [tokens[..., own] for tokens in (query, key)]
            if rotate:
                turn = torch.polar(
                    torch.ones(()), torch.arange(9.0)[:, None] * (10000.0 ** (-torch.arange(4) / 4)).repeat(3)
                )
                pair = [torch.view_as_complex(tokens.unflatten(-1, (-1, 2)).contiguous()) * turn for tokens in pair]
                pair = [torch.view_as_real(tokens).flatten(-2) for tokens in pair]
            out.append((pair[0] @ pair[1].transpose(1, 2) / 24**0.5).softmax(-1) @ value[..., own])
        return attention.to_out[0](torch.cat(out, -1))

    with torch.no_grad():
        ours = block(hidden, 6, text, time, clean, rotary_tables(positions, 24))
        rows = torch.cat([time[:, None].expand(-1, 6, -1, -1), clean[:, None].expand(2, 3, -1, -1)], 1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (rows + block.scale_shift_table[:, None]).unbind(2)
        inner = F.layer_norm(hidden, (48,), eps=1e-6) * (1 + scale_a) + shift_a
        hidden = hidden + gate_a * attended(block.attn1, inner, inner, rotate=True)
        inner = F.layer_norm(hidden, (48,), block.norm2.weight, block.norm2.bias, 1e-6)
        hidden = hidden + attended(block.attn2, inner, text, rotate=False)
        inner = F.layer_norm(hidden, (48,), eps=1e-6) * (1 + scale_f) + shift_f
        hidden = hidden + gate_f * block.ffn.net[2](F.gelu(block.ffn.net[0].proj(inner), approximate="tanh"))
    torch.testing.assert_close(ours, hidden, rtol=0, atol=1e-5)


def test_frames_before_the_clip_are_packed_by_age(model: WanS2VTransformer3DModel) -> None:
    """The newest, then 2 as one time, then 16 as four; their first and last rows and columns are the picture's."""
    tokens, places = model.frame_packer(arguments()["motion"], (2, 4, 5))
    assert tokens.shape == (2, PICTURE + OLDER, 48)
    assert places[:PICTURE].tolist() == [[-1, row, column] for row in range(4) for column in range(5)]
    assert places[PICTURE:].tolist() == [
        *([-3, row, column] for row in (0, 3) for column in (0, 4)),
        *([time, 0, 0] for time in (-19, -14, -9, -4)),
    ]
    motion = arguments()["motion"]
    older = torch.cat([drawn(2, 4, 3, 8, 10, seed=9), motion], 2)
    assert torch.equal(made(model, motion=motion), made(model, motion=older)), "only 19 frames are seen"
    padded = F.pad(motion[:, :, -1:], (0, 0, 0, 0, 18, 0))
    assert torch.equal(made(model, motion=motion[:, :, -1:]), made(model, motion=padded)), "missing frames are empty"


def test_positions_turn_by_distance(model: WanS2VTransformer3DModel) -> None:
    """Times before the clip are negative, so that the score of two tokens depends on their distance there too."""
    places = torch.tensor([[-3, 0, 0], [-1, 0, 0], [0, 0, 0], [2, 0, 0], [28, 1, 1], [30, 1, 1]])
    cosines, sines = (table[0, :, 0] for table in rotary_tables(places, 24))

    def turned(vector: Tensor) -> Tensor:
        pairs = vector.view(-1, 2)
        return vector * cosines + torch.stack([-pairs[:, 1], pairs[:, 0]], -1).flatten() * sines

    scores = turned(drawn(24)) @ turned(drawn(24, seed=1)).T
    for before, after in ((2, 3), (4, 5)):
        torch.testing.assert_close(scores[0, 1], scores[before, after], rtol=0, atol=1e-5)
    assert (scores[0, 1] - scores[1, 0]).abs() > 1e-3


def test_a_latent_frame_hears_its_four_frames_of_sound_and_what_was_before(model: WanS2VTransformer3DModel) -> None:
    audio = drawn(1, 2, 16, 6)
    with torch.no_grad():
        base = torch.cat([part.flatten(2) for part in model.audio_encoder(audio)], -1)
        for frame in range(16):
            changed = audio.clone()
            changed[:, :, frame] += 1.0
            other = torch.cat([part.flatten(2) for part in model.audio_encoder(changed)], -1)
            heard = (other != base).any(-1)[0].tolist()
            assert heard.index(True) == frame // 4, "at once, and never before"


def test_sound_begins_as_after_published_motion_frames(model: WanS2VTransformer3DModel) -> None:
    """Published: 73 copies of the first frame for the frames before the clip, and their 19 latent frames dropped."""
    audio = drawn(1, 2, 16, 6)
    longer = torch.cat([audio[:, :, :1].expand(-1, -1, 72, -1), audio], 2)  # the encoder adds the 73rd
    with torch.no_grad():
        for ours, theirs in zip(model.audio_encoder(audio), model.audio_encoder(longer), strict=True):
            torch.testing.assert_close(ours, theirs[:, 18:], rtol=0, atol=1e-5)


def test_layers_of_sound_features_are_averaged(model: WanS2VTransformer3DModel) -> None:
    audio = drawn(1, 2, 16, 6)
    with torch.no_grad():
        share = F.silu(model.audio_encoder.layer_weights).flatten()
        mixed = (audio * (share / share.sum())[:, None, None]).sum(1, keepdim=True).expand(-1, 2, -1, -1)
        for ours, theirs in zip(model.audio_encoder(audio), model.audio_encoder(mixed), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_an_injector_stays_within_its_frame_of_the_video(model: WanS2VTransformer3DModel) -> None:
    tokens, whole, sound = drawn(2, VIDEO, 48), drawn(2, 2, 48, seed=1), drawn(2, 2, 4, 48, seed=2)
    injector = model.injectors["0"]
    with torch.no_grad():
        base = injector(tokens, whole, sound)
        for change in ((whole + 1.0, sound), (whole, sound + 1.0)):
            mixed = [torch.cat([old[:, :1], new[:, 1:]], 1) for old, new in zip((whole, sound), change, strict=True)]
            moved = (injector(tokens, *mixed) != base).any(-1)
            assert not moved[:, :PICTURE].any()
            assert moved[:, PICTURE:].all()


def test_sound_of_another_length_is_refused(model: WanS2VTransformer3DModel) -> None:
    with pytest.raises(ValueError, match="not 4 to each"):
        made(model, audio=drawn(2, 2, 9, 6))


def test_the_adapter_stretches_sound_to_the_clip() -> None:
    family = WanS2V(TINY)
    assert family.condition_shape("sound", (4, 2, 8, 10)) == (64, 6)
    assert family.condition_shape("reference", (4, 2, 8, 10)) == (4, 1, 8, 10)
    ramp = torch.arange(64.0)[None, :, None].expand(1, -1, 6)
    given = {"text": drawn(1, 7, 16), "reference": drawn(1, 4, 1, 8, 10), "sound": ramp}
    heard = family.arguments(drawn(1, 4, 2, 8, 10), torch.tensor([500.0]), given)["audio"]
    assert heard.shape == (1, 2, 8, 6)
    torch.testing.assert_close(heard[0, :, :, 0], torch.arange(0.0, 64.0, 9.0).expand(2, -1))


def test_it_is_saved_and_loaded_like_any_diffusers_model(model: WanS2VTransformer3DModel, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded = WanS2VTransformer3DModel.from_pretrained(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(made(loaded), made(model), rtol=0, atol=1e-5)
