"""UMT5, Wan's autoencoder (4 frames, 8 cells to one, 16 channels), Euler steps; the transformer as upstream has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import Folder

TRANSFORMER = {
    "in_channels": 16,
    "out_channels": 16,
    "hidden_size": 24,
    "depth": 2,
    "num_heads": 2,
    "caption_channels": tiny_parts.WIDTH,
    "adaln_tembed_dim": 8,
    "frequency_embedding_size": 16,
    "mlp_ratio": 1,
    "text_tokens_zero_pad": True,
}
FEED_FORWARD = 256


def published() -> dict[str, Tensor]:
    """Weights under upstream's names, in two blocks of width 24."""
    dim, text, time = 24, tiny_parts.WIDTH, 8
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (dim, 16, 1, 2, 2),
        "t_embedder.mlp.0": (time, 16),
        "t_embedder.mlp.2": (time, time),
        "y_embedder.y_proj.0": (dim, text),
        "y_embedder.y_proj.2": (dim, dim),
        "final_layer.adaLN_modulation.1": (2 * dim, time),
        "final_layer.linear": (64, dim),
    }
    found = {}
    for block in ("blocks.0", "blocks.1"):
        shapes |= {
            f"{block}.adaLN_modulation.1": (6 * dim, time),
            f"{block}.attn.qkv": (3 * dim, dim),
            f"{block}.attn.proj": (dim, dim),
            f"{block}.cross_attn.q_linear": (dim, dim),
            f"{block}.cross_attn.kv_linear": (2 * dim, dim),
            f"{block}.cross_attn.proj": (dim, dim),
        }
        found |= {f"{block}.pre_crs_attn_norm.{kind}": torch.randn(dim) for kind in ("weight", "bias")}
        found |= {
            f"{block}.{part}.{norm}.weight": torch.randn(dim // 2)
            for part in ("attn", "cross_attn")
            for norm in ("q_norm", "k_norm")
        }
        found |= {f"{block}.ffn.{name}.weight": 0.1 * torch.randn(FEED_FORWARD, dim) for name in ("w1", "w3")}
        found[f"{block}.ffn.w2.weight"] = 0.1 * torch.randn(dim, FEED_FORWARD)
    for name, shape in shapes.items():
        found[f"{name}.weight"] = 0.1 * torch.randn(shape)
        found[f"{name}.bias"] = 0.1 * torch.randn(shape[0])
    return found


class Upstream:
    """The transformer in a folder, as upstream saves it."""

    def save_pretrained(self, folder: Path) -> None:
        """In two files."""
        folder.mkdir()
        weights = published()
        names = sorted(weights)
        for number, some in enumerate((names[::2], names[1::2])):
            save_file({name: weights[name] for name in some}, folder / f"diffusion_pytorch_model-{number}.safetensors")
        (folder / "config.json").write_text(
            json.dumps({"_class_name": "LongCatVideoTransformer3DModel", "enable_bsa": False, **TRANSFORMER})
        )


def pipeline(_transformer: Any) -> Folder:
    """Without an index."""
    tokenizer = tiny_tokenizers.t5()
    return Folder(
        None,
        dit=Upstream(),
        text_encoder=tiny_parts.umt5(tokenizer),
        tokenizer=tokenizer,
        vae=tiny_parts.wan(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=12.0),
    )
