"""Wan 2.2 S2V's weights in diffusers' layout as this suite's `WanS2VTransformer3DModel`.

The layout is that of a class which diffusers has not taken in (0.42.1), read off its proposal: the same numbers under
other names, and the attention to sound counted by itself where here it has its block's number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from selfflow_bench.families.architectures.published_weights import name_here

_AUDIO = r"condition_embedder\.causal_audio_encoder"
_SAME = r"patch_embedding|blocks\.\d+\.(?:norm2|attn[12]\..+|ffn\..+)|blocks\.\d+|proj_out|"
"""Layers and tables with the same name in both; tables of the model itself have none."""
_NAMES = (
    (_SAME, r"\g<0>"),
    (r"condition_embedder\.pose_embedder", "pose_embedding"),
    (r"condition_embedder\.(time|text)_embedder\.(linear_[12])", r"\1_embedder.\2"),
    (r"condition_embedder\.time_proj", "time_modulation"),
    (r"trainable_condition_mask", "kind_embedding"),
    (r"frame_packer\.proj", "frame_packer.projections.0"),
    (r"frame_packer\.proj_2x", "frame_packer.projections.1"),
    (r"frame_packer\.proj_4x", "frame_packer.projections.2"),
    (_AUDIO + r"\.encoder\.conv1_(local|global)\.conv", r"audio_encoder.conv_\1"),
    (_AUDIO + r"\.encoder\.(conv[23])\.conv", r"audio_encoder.\1"),
    (_AUDIO + r"\.encoder\.final_linear", "audio_encoder.linear_global"),
)
_TABLES = {
    "condition_embedder.causal_audio_encoder.weights": "audio_encoder.layer_weights",
    "condition_embedder.causal_audio_encoder.encoder.padding_tokens": "audio_encoder.padding_token",
}
_INJECTED = (
    (r"audio_injector\.injector\.(\d+)\.(.+)", "attn."),
    (r"audio_injector\.injector_adain_layers\.(\d+)\.(.+)", "norm."),
)


def renamed(weights: Mapping[str, Tensor], blocks: Sequence[int]) -> dict[str, Tensor]:
    """Under this suite's names; ``blocks`` are those that sound comes in after.

    Raises DamagedFileError for a name that is not known.
    """
    return {_named(name, blocks): value for name, value in weights.items()}


def _named(name: str, blocks: Sequence[int]) -> str:
    if name in _TABLES:
        return _TABLES[name]
    for pattern, part in _INJECTED:
        found = re.fullmatch(pattern, name)
        if found is not None and int(found[1]) < len(blocks):
            return f"injectors.{blocks[int(found[1])]}.{part}{found[2]}"
    layer, _, kind = name.rpartition(".")
    here = name_here(layer, _NAMES)
    return f"{here}.{kind}" if here else kind
