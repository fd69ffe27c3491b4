"""ACE-Step 1.5's published pipeline: Qwen 3 embeddings with lyrics and timbre, a stereo autoencoder at 48 kHz."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AceStepPipeline
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from torch import Tensor

from selfflow_bench.flow import shifted
from selfflow_bench.pipelines.base import Guide, Media, PublishedPipeline


class AceStepPublished(PublishedPipeline):
    """Captions without lyrics and without a reference of timbre; sounds of one length, which the prompt states."""

    pipeline_class = AceStepPipeline
    steps = 8
    guidance = 7.0
    longest = 256

    shift = 3.0
    """Of the sigmas, towards noise: an argument of the pipeline's call, at its default."""
    seconds = 60.0

    @property
    def sound_rate(self) -> int:
        """The autoencoder's."""
        return int(self.pipeline.vae.config.sampling_rate)

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``: lyrics, timbre, then the caption, all of one length; no mask. ``silence``: recorded.

        The pipeline pads to the longest prompt of a batch, and its transformer attends to the padding. A prompt longer
        than any in the batch makes that the same for all. The empty caption is the learned one, as in the pipeline.
        """
        prompts = [*captions, " a" * length]
        text, mask, lyrics, lyrics_mask = self.pipeline.encode_prompt(
            prompts, [""] * len(prompts), self.device, audio_duration=self.seconds, max_text_length=length
        )
        encoder = self.pipeline.condition_encoder
        timbre = encoder.silence_latent[:, : round(30 * self.pipeline.latents_per_second)]
        states, _ = encoder(
            text_hidden_states=text,
            text_attention_mask=mask,
            lyric_hidden_states=lyrics,
            lyric_attention_mask=lyrics_mask,
            refer_audio_acoustic_hidden_states_packed=timbre.to(text).expand(len(prompts), -1, -1).contiguous(),
            refer_audio_order_mask=torch.arange(len(prompts), device=self.device),
        )
        empty = torch.tensor([not caption for caption in captions], device=self.device)
        learned = encoder.null_condition_emb.to(states)
        frames = math.ceil(self.seconds * self.pipeline.latents_per_second)
        silence, _ = self.pipeline.prepare_src_latents(self.device, states.dtype, len(captions), latent_length=frames)
        return {
            "text": torch.where(empty[:, None, None], learned, states[:-1]),
            "silence": silence.expand(len(captions), -1, -1).transpose(1, 2),
        }

    def latents(self, values: Tensor) -> Tensor:
        """Not normalised: the autoencoder's latents are what the transformer sees."""
        mean: Tensor = self.pipeline.vae.encode(values).latent_dist.mode()
        return mean

    def decoded(self, latents: Tensor) -> Tensor:
        """Sound ``[N, channels, samples]``, as loud as the autoencoder makes it."""
        made: Tensor = self.pipeline.vae.decode(latents).sample
        return made

    def values(self, media: Media) -> Tensor:
        """Both channels alike where there is one."""
        values = torch.from_numpy(np.ascontiguousarray(media)).movedim(-1, 1).to(self.device, torch.float32) / 2**15
        return values.expand(-1, int(self.pipeline.vae.config.audio_channels), -1)

    def media(self, values: Tensor) -> Media:
        """int16; what is too loud is clipped."""
        levels = (values * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)
        return np.asarray(levels.movedim(1, -1).contiguous())

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """Sigmas, shifted by the pipeline and not by its scheduler."""
        sigmas = shifted(torch.linspace(1.0, 0.0, steps + 1)[:-1], self.shift)
        return {"sigmas": sigmas.tolist()}

    def guide(self, scale: float) -> Guide:
        """Adaptive projected guidance (arXiv 2410.02416) over time, with momentum from step to step."""
        momentum = MomentumBuffer(momentum=-0.75)

        def guided(predicted: Tensor, away: Tensor) -> Tensor:
            made: Tensor = normalized_guidance(
                predicted,
                away,
                scale - 1,
                momentum_buffer=momentum,
                eta=0.0,
                norm_threshold=2.5,
                use_original_formulation=True,
                norm_dim=(2,),
            )
            return made

        return guided
