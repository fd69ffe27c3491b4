"""SiT's own module against its published sizes, and the published files' layouts against a forward written out here."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.data import sources
from selfflow_bench.data.labels import labels
from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.families.architectures.sit import SiTTransformer2DModel
from selfflow_bench.families.architectures.sit_weights import published_model
from selfflow_bench.families.sit import SiT

WIDTH, DEPTH, HEADS, SIDE, CLASSES = 48, 2, 2, 8, 5


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({}, 675_129_632),
        ({"hidden_size": 1024, "depth": 24}, 458_102_816),
        ({"hidden_size": 768, "depth": 12, "num_heads": 12}, 130_512_416),
    ],
)
def test_the_published_configurations_have_the_published_sizes(config: dict[str, Any], parameters: int) -> None:
    """XL/2, L/2 and B/2; the positions, which nothing trains, among them."""
    with torch.device("meta"):
        model = SiTTransformer2DModel(**config)
    assert sum(value.numel() for value in model.parameters()) == parameters
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["pos_embed"]


def test_it_starts_as_published() -> None:
    """Positions by hand; blocks that change nothing; an output of zero."""
    torch.manual_seed(0)
    model = SiTTransformer2DModel(input_size=8, hidden_size=16, depth=2, num_heads=2, num_classes=3)
    row, column, quarter = 1, 3, torch.arange(4) / 4
    angles = [column / 10000**quarter, row / 10000**quarter]
    by_hand = torch.cat([torch.cat([angle.sin(), angle.cos()]) for angle in angles])
    torch.testing.assert_close(model.pos_embed[0, 4 * row + column], by_hand)
    latents = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        tokens = model.x_embedder(latents)
        assert torch.equal(model.blocks[1](tokens, torch.randn(2, 16)), tokens)
        assert not model(latents, torch.tensor([0.1, 0.9]), torch.tensor([0, 3])).sample.any()


def test_a_dropped_label_is_no_class() -> None:
    label = torch.tensor([0, 4, 2])
    table = ConditionTable.of_classes(label, 5, {})
    assert table.of(torch.tensor([1, 2, 1]))["label"].tolist() == [4, 2, 4]
    assert table.of(torch.tensor([1, 2, 1]), torch.tensor([True, False, False]))["label"].tolist() == [5, 2, 4]
    assert table.shapes() == {"label": ((), torch.int64)}


def test_labels_are_the_categories_of_the_data() -> None:
    data = sources.load("pictures", "validation")
    names = sorted(set(data["category"]))
    assert [names[label] for label in labels("pictures", "validation").tolist()] == list(data["category"])
    assert len(set(labels("pictures", "train").tolist())) == 9
    with pytest.raises(FieldError, match="no category among them"):
        labels("clips", "train")


# The published files.


def drawn(*shape: int, seed: int) -> Tensor:
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(*, out_channels: int = 8, patches_in_a_row: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the published names."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, (SIDE // 2) ** 2, WIDTH),
        "x_embedder.proj.weight": (WIDTH, 16) if patches_in_a_row else (WIDTH, 4, 2, 2),
        "x_embedder.proj.bias": (WIDTH,),
        "y_embedder.embedding_table.weight": (CLASSES + 1, WIDTH),
    }
    layers = {"t_embedder.mlp.0": (WIDTH, 256), "t_embedder.mlp.2": (WIDTH, WIDTH)}
    for index in range(DEPTH):
        block = f"blocks.{index}"
        layers |= {f"{block}.attn.qkv": (3 * WIDTH, WIDTH), f"{block}.attn.proj": (WIDTH, WIDTH)}
        layers |= {f"{block}.mlp.fc1": (4 * WIDTH, WIDTH), f"{block}.mlp.fc2": (WIDTH, 4 * WIDTH)}
        layers[f"{block}.adaLN_modulation.1"] = (6 * WIDTH, WIDTH)
    layers |= {
        "final_layer.linear": (4 * out_channels, WIDTH),
        "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    }
    for name, (rows, columns) in layers.items():
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    return {name: drawn(*shape, seed=seed + place) for place, (name, shape) in enumerate(shapes.items())}


def core(w: dict[str, Tensor], latents: Tensor, time: float, label: int) -> Tensor:
    """The published transformer on one sample ``[4, 8, 8]``, from the weights: all that it gives, ``[C, 8, 8]``."""

    def layer(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def normed(x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()

    patches = torch.stack(
        [latents[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].flatten() for r in range(SIDE // 2) for c in range(SIDE // 2)]
    )
    x = F.linear(patches, w["x_embedder.proj.weight"].reshape(WIDTH, -1), w["x_embedder.proj.bias"]) + w["pos_embed"][0]
    angles = torch.tensor([time / 10000 ** (k / 128) for k in range(128)])
    embedded = layer("t_embedder.mlp.2", F.silu(layer("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()]))))
    rows = F.silu(embedded + w["y_embedder.embedding_table.weight"][label])
    for index in range(DEPTH):
        block = f"blocks.{index}"
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = layer(f"{block}.adaLN_modulation.1", rows).chunk(6)
        qkv = layer(f"{block}.attn.qkv", normed(x) * (1 + scale_a) + shift_a)
        size = WIDTH // HEADS
        heads = []
        for head in range(HEADS):
            query, key, value = (qkv[:, part * WIDTH + head * size :][:, :size] for part in range(3))
            heads.append((query @ key.T / math.sqrt(size)).softmax(-1) @ value)
        x = x + gate_a * layer(f"{block}.attn.proj", torch.cat(heads, -1))
        inner = F.gelu(layer(f"{block}.mlp.fc1", normed(x) * (1 + scale_f) + shift_f), approximate="tanh")
        x = x + gate_f * layer(f"{block}.mlp.fc2", inner)
    shift, scale = layer("final_layer.adaLN_modulation.1", rows).chunk(2)
    numbers = layer("final_layer.linear", normed(x) * (1 + scale) + shift)
    made = torch.empty(numbers.shape[1] // 4, SIDE, SIDE)
    for token, patch in enumerate(numbers):
        r, c = divmod(token, SIDE // 2)
        made[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2] = patch.view(2, 2, -1).permute(2, 0, 1)
    return made


def assert_predicts(path: Path, w: dict[str, Tensor], *, towards_data: bool) -> None:
    """The loaded model's velocity, noise - data at sigma, is the published one's in its own time and sign."""
    model = published_model(path, heads=HEADS)
    latents, sigma, label = 5 * drawn(3, 4, SIDE, SIDE, seed=99), [0.1, 0.55, 0.9], [0, CLASSES, 3]
    family = SiT(dict(model.config))
    with torch.no_grad():
        ours = family.predict(model, latents, torch.tensor(sigma), {"label": torch.tensor(label)})
    for made, x, s, of in zip(ours, latents, sigma, label, strict=True):
        theirs = -core(w, x, 1 - s, of)[:4] if towards_data else core(w, x, s, of)
        torch.testing.assert_close(made, theirs, rtol=1e-4, atol=1e-4)
    assert ours.abs().max() > 0.1


def test_self_flows_released_layout(tmp_path: Path) -> None:
    """Bare or under "model", with a projector; patches in a row; 1001 classes; time 1 - t and the output negated."""
    w = weights(patches_in_a_row=True)
    projector = {f"projector.linear{n}.{part}": drawn(4, seed=n) for n in (1, 2) for part in ("weight", "bias")}
    torch.save(w | projector, tmp_path / "bare.pt")
    torch.save({"model": {f"module.{name}": v for name, v in (w | projector).items()}}, tmp_path / "wrapped.pt")
    for name in ("bare.pt", "wrapped.pt"):
        assert_predicts(tmp_path / name, w, towards_data=True)


def test_sits_layout_and_its_averaged_weights(tmp_path: Path) -> None:
    w, other = weights(), weights(seed=1000)
    compiled = {name.replace("blocks.0.", "blocks.0._orig_mod."): value for name, value in w.items()}
    state = {"model": other, "ema": compiled, "opt": {"state": {}, "param_groups": []}, "args": argparse.Namespace(a=1)}
    torch.save(state, tmp_path / "0400000.pt")
    torch.save(w, tmp_path / "SiT.pt")
    for name in ("0400000.pt", "SiT.pt"):
        assert_predicts(tmp_path / name, w, towards_data=True)


def test_repas_layout_whose_time_runs_the_other_way(tmp_path: Path) -> None:
    w = weights(out_channels=4)
    projectors = {f"projectors.0.{n}.{part}": drawn(4, seed=n) for n in (0, 2, 4) for part in ("weight", "bias")}
    state = {"model": weights(out_channels=4, seed=1000), "ema": w | projectors, "opt": {}, "steps": 7}
    torch.save({**state, "args": argparse.Namespace(model="SiT-XL/2")}, tmp_path / "last.pt")
    assert_predicts(tmp_path / "last.pt", w, towards_data=False)


class Unsafe:
    """An object that must not be made by reading a file."""


def without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights().items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("blocks.1.attn.qkv.bias"), r"lacks blocks\.1\.attn\.qkv\.bias"),
        (without("pos_embed"), "lacks pos_embed, so it holds no SiT"),
        (weights() | {"blocks.0.attn.q_norm.weight": torch.ones(1)}, r"holds unknown blocks\.0\.attn\.q_norm\.weight"),
        (weights() | {"module.pos_embed": torch.ones(1)}, "holds pos_embed twice"),
        (weights() | {"blocks.1.mlp.fc1.weight": torch.ones(9, WIDTH)}, r"blocks\.1\.mlp\.fc1\.weight is \[9, 48\]"),
        (weights(out_channels=4), "which way its time runs"),
        ({"ema": weights(), "vae": 1}, "holds vae beside ema"),
        ({"ema": weights(), "args": Unsafe()}, "cannot be read as weights"),
        ([1, 2], "holds no weights by name"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(DamagedFileError, match=message):
        published_model(tmp_path / "model.pt", heads=HEADS)


def test_heads_that_no_publication_says_must_be_given(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "model.pt")
    with pytest.raises(DamagedFileError, match="48 wide"):
        published_model(tmp_path / "model.pt")
    with pytest.raises(DamagedFileError, match="cannot be read"):
        published_model(tmp_path / "missing.pt")
