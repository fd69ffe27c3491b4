"""UMT5, wav2vec 2.0, Wan's autoencoder (4 frames, 8 cells to one, 16 channels), UniPC; weights by other names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from diffusers import UniPCMultistepScheduler
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import Folder

TRANSFORMER = {
    "dim": 24,
    "ffn_dim": 32,
    "freq_dim": 16,
    "text_dim": tiny_parts.WIDTH,
    "num_heads": 2,
    "num_layers": 3,
    "audio_dim": 16,
    "audio_layers": 3,
    "num_audio_token": 4,
    "audio_inject_layers": [0, 2],
}
# Every layer of theirs and the one of ours, by hand.
LAYERS = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.pose_embedder": "pose_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedder.linear_1",
    "condition_embedder.time_embedder.linear_2": "time_embedder.linear_2",
    "condition_embedder.time_proj": "time_modulation",
    "condition_embedder.text_embedder.linear_1": "text_embedder.linear_1",
    "condition_embedder.text_embedder.linear_2": "text_embedder.linear_2",
    "condition_embedder.causal_audio_encoder.encoder.conv1_local.conv": "audio_encoder.conv_local",
    "condition_embedder.causal_audio_encoder.encoder.conv1_global.conv": "audio_encoder.conv_global",
    "condition_embedder.causal_audio_encoder.encoder.conv2.conv": "audio_encoder.conv2",
    "condition_embedder.causal_audio_encoder.encoder.conv3.conv": "audio_encoder.conv3",
    "condition_embedder.causal_audio_encoder.encoder.final_linear": "audio_encoder.linear_global",
    "frame_packer.proj": "frame_packer.projections.0",
    "frame_packer.proj_2x": "frame_packer.projections.1",
    "frame_packer.proj_4x": "frame_packer.projections.2",
    "trainable_condition_mask": "kind_embedding",
    "audio_injector.injector.0.to_q": "injectors.0.attn.to_q",
    "audio_injector.injector.1.to_q": "injectors.2.attn.to_q",
    "audio_injector.injector_adain_layers.1.linear": "injectors.2.norm.linear",
    "proj_out": "proj_out",
}
TABLES = {
    "condition_embedder.causal_audio_encoder.weights": "audio_encoder.layer_weights",
    "condition_embedder.causal_audio_encoder.encoder.padding_tokens": "audio_encoder.padding_token",
    "scale_shift_table": "scale_shift_table",
}


def as_published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the community's names."""
    theirs = {ours: name for name, ours in LAYERS.items()}
    tables = {ours: name for name, ours in TABLES.items()}
    found = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        injected = re.fullmatch(r"injectors\.(\d)\.(attn|norm)\.(.+)", layer)
        if injected is not None:
            place = TRANSFORMER["audio_inject_layers"].index(int(injected[1]))
            part = {"attn": "injector", "norm": "injector_adain_layers"}[injected[2]]
            layer = f"audio_injector.{part}.{place}.{injected[3]}"
        else:
            layer = theirs.get(layer, layer)
        found[tables.get(name, f"{layer}.{kind}")] = value.clone()
    return found


class Community:
    """A transformer in a folder, as the community's conversion has it."""

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer

    def save_pretrained(self, folder: Path) -> None:
        """With a configuration of other names."""
        folder.mkdir()
        save_file(as_published(self._transformer.state_dict()), folder / "diffusion_pytorch_model.safetensors")
        config = {"_class_name": "WanS2VTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 12}
        (folder / "config.json").write_text(json.dumps(config))


def pipeline(transformer: Any) -> Folder:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.t5()
    letters = tiny_tokenizers.wav2vec()
    return Folder(
        "model_index.json",
        transformer=Community(transformer),
        text_encoder=tiny_parts.umt5(tokenizer),
        tokenizer=tokenizer,
        audio_encoder=Wav2Vec2ForCTC(
            Wav2Vec2Config(
                vocab_size=len(letters),
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                conv_dim=[8] * 7,
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=2,
            )
        ),
        audio_processor=Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), letters),
        vae=tiny_parts.wan(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )
