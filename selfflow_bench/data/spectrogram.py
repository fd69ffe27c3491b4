"""Log-magnitude spectrograms of notes, and sound from them again by the Griffin-Lim algorithm.

The phase is thrown away, because a small model cannot learn it in minutes: with an orthonormal transform that keeps the
signs (an MDCT), KID after 14,400 samples was where it had been before training (2.30 against 2.24). What losing the
phase costs is measured: real notes go through the same codec for the floor of every score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from selfflow_bench.data.codecs import DIVIDE, Codec, Media, Statistics, finite, require
from selfflow_bench.errors import FieldError

_FULL_SCALE = 32768
_QUIET = 1e-3
"""Amplitude below which the logarithm flattens: 60 dB under full scale."""
_ITERATIONS, _MOMENTUM = 32, 0.99
_CHUNK = 128


@dataclass(frozen=True)
class LogSpectrogram(Codec):
    """Notes int16 [N, samples] to latents [N, channels, T] with T = samples / channels.

    A Hann window of 2 x channels samples moves by half its length, so that there are as many numbers as samples.
    Channel k is the band around k times rate / (2 channels); the highest (Nyquist) band is left out. A latent is
    log(amplitude + 0.001), amplitude 1 being a full-scale sine, normalised per band. Back: magnitudes with the phases
    that fast Griffin-Lim finds in 32 rounds (Griffin and Lim 1984; Perraudin, Balazs and Sondergaard 2013), from one
    fixed set of random phases, so that decoding is a function of the latent alone.
    """

    name: ClassVar[str] = "log_spectrogram"
    channels: int = 128

    def fit(self, media: Media) -> Self:  # noqa: D102
        values = torch.cat([self._logarithm(part) for part in _chunks(media)]).double()
        return replace(self, statistics=Statistics.of(values.mean((0, 2)).numpy(), values.std((0, 2)).numpy()))

    def encode(self, media: Media) -> Tensor:  # noqa: D102
        mean, std = self._bands()
        return torch.cat([(self._logarithm(part) - mean) / std for part in _chunks(media)])

    def decode(self, latents: Tensor) -> Media:  # noqa: D102
        mean, std = self._bands()
        values = finite(latents, self.name).detach().cpu().float() * std + mean
        # Clamped a little above full scale, so that a wild latent saturates and does not overflow.
        magnitudes = values.clamp(max=1.0).exp().sub(_QUIET).clamp_min(0)
        waves = torch.cat([self._waves(part) for part in torch.split(magnitudes, _CHUNK)])
        return (waves * _FULL_SCALE).round().clamp(-_FULL_SCALE, _FULL_SCALE - 1).to(torch.int16).numpy()

    def latent_shape(self, media_shape: Sequence[int]) -> tuple[int, ...]:  # noqa: D102
        (samples,) = media_shape
        if self.channels % 2 or samples % self.channels:
            problem = f"must be even and divide notes of {samples} samples"
            raise FieldError("codec", "channels", self.channels, problem, DIVIDE)
        return self.channels, samples // self.channels

    def _bands(self) -> tuple[Tensor, Tensor]:
        statistics = self._fitted()
        mean, std = torch.tensor(statistics.mean)[:, None], torch.tensor(statistics.std)[:, None]
        return mean.float(), std.float()

    def _logarithm(self, media: Media) -> Tensor:
        """float32 [N, channels, T]."""
        require(media, np.int16, self.name)
        self.latent_shape(media.shape[1:])
        spectra = self._transform(torch.from_numpy(media).float() / _FULL_SCALE)
        # The last frame is centred on the note's end and the last band on Nyquist: both hold almost nothing.
        return (spectra.abs()[:, :-1, :-1] + _QUIET).log()

    def _transform(self, waves: Tensor) -> Tensor:
        """Complex [N, channels + 1, T + 1]; a full-scale sine has magnitude 1."""
        window = torch.hann_window(2 * self.channels)
        spectra = torch.stft(
            waves,
            2 * self.channels,
            self.channels,
            window=window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectra * (2 / window.sum())

    def _waves(self, magnitudes: Tensor) -> Tensor:
        """Griffin-Lim: sound whose spectrogram is near ``magnitudes`` [N, channels, T]."""
        samples = magnitudes.shape[-1] * self.channels
        whole = torch.nn.functional.pad(magnitudes, (0, 1, 0, 1))
        whole[..., -1] = whole[..., -2]
        angles = 2 * torch.pi * torch.rand(whole.shape[1:], generator=torch.Generator().manual_seed(0))
        phases = torch.polar(torch.ones_like(whole), angles.expand_as(whole))
        before = torch.zeros_like(phases)
        for _ in range(_ITERATIONS):
            consistent = self._transform(self._inverse(whole * phases, samples))
            phases = consistent - _MOMENTUM / (1 + _MOMENTUM) * before
            phases = phases / phases.abs().clamp_min(1e-12)
            before = consistent
        return self._inverse(whole * phases, samples)

    def _inverse(self, spectra: Tensor, samples: int) -> Tensor:
        window = torch.hann_window(2 * self.channels)
        return torch.istft(
            spectra * (window.sum() / 2), 2 * self.channels, self.channels, window=window, center=True, length=samples
        )


def _chunks(media: Media) -> list[Media]:
    return [media[start : start + _CHUNK] for start in range(0, len(media), _CHUNK)]
