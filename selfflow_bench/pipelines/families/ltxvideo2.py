"""LTX-2's published pipeline: Gemma 3 through connectors, an autoencoder of clips and one of sound, a vocoder.

Media are structured: ``frames`` and ``audio`` (int16, at the vocoder's rate). Sound becomes latents through a log mel
spectrogram at the autoencoder's own, lower rate: what the vocoder adds above it is not learned from the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from diffusers import LTX2Pipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from scipy.signal import resample_poly
from torch import Tensor
from torch.nn.functional import pad

from selfflow_bench.pipelines.base import Media, PublishedPipeline
from selfflow_bench.pipelines.parts.log_mel import log_mel, silent


class LTXVideo2Published(PublishedPipeline):
    """Clips have one frame more than a multiple of eight, and sound as long as they are.

    Of the pipeline's guidances the classifier-free one, with LTX-2's documented scale; the others need predictions with
    blocks left out and streams kept apart.
    """

    pipeline_class = LTX2Pipeline
    steps = 40
    guidance = 4.0
    longest = 1024
    precise = ("vae", "audio_vae", "vocoder")

    @property
    def sound_rate(self) -> int:
        """The vocoder's."""
        return int(self.pipeline.vocoder.config.output_sampling_rate)

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_audio``, as the connectors make them for each stream, and ``text_mask``.

        Learned registers stand behind a caption, in whole numbers of all of them: captions are cut to such a length.
        """
        registers = self.pipeline.connectors.config.video_connector_num_learnable_registers or 1
        text, mask, _, _ = self.pipeline.encode_prompt(
            captions,
            do_classifier_free_guidance=False,
            max_sequence_length=max(length // registers, 1) * registers,
            device=self.device,
        )
        side = self.pipeline.tokenizer.padding_side
        video, audio, seen = self.pipeline.connectors(text, mask, padding_side=side)
        return {"text": video, "text_audio": audio, "text_mask": seen.bool()}

    def encode_media(self, media: Media) -> Tensor:
        """``[N, C, tokens]``: the clip's cells row by row, then the sound's frames."""
        with torch.inference_mode():
            clip = self._clip_latents(self.values(media["frames"]))
            self.video_grid = (clip.shape[2], clip.shape[3], clip.shape[4])
            return torch.cat([clip.flatten(2), self._sound_latents(media["audio"])], 2).float().cpu().clone()

    def decode(self, latents: Tensor) -> Media:
        """Structured media; the sound is as long as its latents say, its last 30 ms silent."""
        with torch.inference_mode():
            grid = self._grid()
            clip, sound = latents.to(self.device, torch.float32).split_with_sizes(
                [math.prod(grid), latents.shape[2] - math.prod(grid)], 2
            )
            frames = self.media(self.decoded(torch.unflatten(clip, 2, grid)).float().cpu())
            audio = self._sound(sound)
        joint = np.empty(
            len(frames), [("frames", frames.dtype, frames.shape[1:]), ("audio", audio.dtype, audio.shape[1:])]
        )
        joint["frames"], joint["audio"] = frames, audio
        return joint

    def latents(self, values: Tensor) -> Tensor:
        """Of clips alone."""
        return self._clip_latents(values)

    def decoded(self, latents: Tensor) -> Tensor:
        """Of clips alone."""
        mean, std = self._statistics()
        made: Tensor = self.pipeline.vae.decode(latents * std + mean, None, return_dict=False)[0]
        return made

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """Sigmas in equal steps, shifted by the number of the clip's tokens; the sound has the same."""
        config = self.pipeline.scheduler.config
        exponent = calculate_shift(
            math.prod(self._grid()),
            config.get("base_image_seq_len", 1024),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.95),
            config.get("max_shift", 2.05),
        )
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": exponent}

    def _clip_latents(self, values: Tensor) -> Tensor:
        mean, std = self._statistics()
        encoded: Tensor = self.pipeline.vae.encode(values).latent_dist.mode()
        return (encoded - mean) / std

    def _sound_latents(self, sound: Media) -> Tensor:
        """``[N, C, frames]`` of ``[N, samples, channels]``: channels and bands of a frame together."""
        vae, config = self.pipeline.audio_vae, self.pipeline.audio_vae.config
        step = Fraction(config.sample_rate, self.sound_rate)
        values = resample_poly(sound.astype(np.float64) / 2**15, step.numerator, step.denominator, axis=1)
        heard = (
            torch.from_numpy(values).movedim(-1, 1).to(self.device, torch.float32).expand(-1, config.in_channels, -1)
        )
        wanted = round(heard.shape[-1] * self._frames_a_second() / config.sample_rate)
        mel = log_mel(heard, config.sample_rate, config.mel_hop_length, config.mel_bins)
        # Of as many frames as make so many latents: the first of a causal autoencoder is of one.
        factor = self.pipeline.audio_vae_temporal_compression_ratio
        length = wanted * factor - (factor - 1)
        mel = torch.cat([mel[..., :length, :], silent(max(length - mel.shape[-2], 0), mel)], -2)
        found = vae.encode(mel).latent_dist.mode().transpose(1, 2).flatten(2)
        made: Tensor = ((found - vae.latents_mean) / vae.latents_std).transpose(1, 2)
        return made

    def _sound(self, latents: Tensor) -> Media:
        """int16 ``[N, samples, channels]``."""
        vae = self.pipeline.audio_vae
        bands = vae.config.mel_bins // self.pipeline.audio_vae_mel_compression_ratio
        inside = latents.transpose(1, 2) * vae.latents_std + vae.latents_mean
        mel = vae.decode(inside.unflatten(2, (-1, bands)).transpose(1, 2), return_dict=False)[0]
        made = self.pipeline.vocoder(mel.to(self.pipeline.vocoder.dtype)).float().cpu()
        samples = round(latents.shape[2] * self.sound_rate / self._frames_a_second())
        made = pad(made, (0, samples - made.shape[-1]))
        levels = (made * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)
        return np.asarray(levels.movedim(1, -1).contiguous())

    def _frames_a_second(self) -> float:
        """Latents of sound."""
        config = self.pipeline.audio_vae.config
        return float(config.sample_rate / config.mel_hop_length / self.pipeline.audio_vae_temporal_compression_ratio)

    def _grid(self) -> tuple[int, ...]:
        if self.video_grid is None:
            raise ValueError("packed latents do not tell their clips' shape: set video_grid, or encode one of them")
        return self.video_grid

    def _statistics(self) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        mean, std = (found.view(1, -1, 1, 1, 1) for found in (vae.latents_mean, vae.latents_std))
        return mean, std / vae.config.scaling_factor
