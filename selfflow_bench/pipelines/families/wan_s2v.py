"""Wan 2.2 S2V's parts: UMT5, wav2vec 2.0 and Wan's autoencoder, of diffusers' and transformers' own classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import AutoTokenizer, UMT5EncoderModel, Wav2Vec2ForCTC, Wav2Vec2Processor

from selfflow_bench.pipelines.base import Media
from selfflow_bench.pipelines.parts.assembled import Assembled
from selfflow_bench.pipelines.parts.standardized import StandardizedAutoencoder

_RATE, _HEARD, _KEPT = 16000, 50, 30
"""Of wav2vec: samples and frames a second; and the frames a second that upstream brings them to."""


class WanS2VPublished(StandardizedAutoencoder):
    """Clips have one frame more than a multiple of four. A clip's first frame and its sound are conditions."""

    pipeline_class = Assembled
    steps = 40
    guidance = 4.5
    longest = 512
    of_text = ("text_encoder", "tokenizer", "audio_encoder", "audio_processor")

    def load(self, snapshot: Path, dtype: torch.dtype, absent: Sequence[str]) -> Any:
        """The folder's parts."""
        return Assembled.of(
            snapshot,
            absent,
            vae=(AutoencoderKLWan, torch.float32),
            text_encoder=(UMT5EncoderModel, dtype),
            tokenizer=(AutoTokenizer, None),
            audio_encoder=(Wav2Vec2ForCTC, torch.float32),
            audio_processor=(Wav2Vec2Processor, None),
            scheduler=(UniPCMultistepScheduler, None),
        )

    @property
    def sound_rate(self) -> int:
        """wav2vec's."""
        return _RATE

    def encode_sound(self, sound: Media) -> Tensor:
        """``[N, layers, A, D]``: wav2vec's features of every layer, 30 frames a second; of all channels together."""
        values = sound.astype(np.float32).mean(-1) / 2**15
        with torch.inference_mode():
            given = self.pipeline.audio_processor(list(values), sampling_rate=_RATE, return_tensors="pt")
            states = self.pipeline.audio_encoder(given.input_values.to(self.device), output_hidden_states=True)
            layers = torch.stack(states.hidden_states, 1)
            frames = int(layers.shape[2] / _HEARD * _KEPT)
            found = interpolate(layers.flatten(0, 1).transpose(1, 2), frames, mode="linear", align_corners=True)
            return torch.unflatten(found.transpose(1, 2), 0, layers.shape[:2]).cpu().clone()

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """As of Wan: ``text``, zero behind a caption's end and attended without a mask."""
        text: Tensor = WanPipeline._get_t5_prompt_embeds(
            self.pipeline,
            prompt=captions,
            max_sequence_length=length,
            device=self.device,
            dtype=self.pipeline.text_encoder.dtype,
        )
        return {"text": text}
