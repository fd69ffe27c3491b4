"""Sound features: LAION's CLAP (arXiv 2211.06687), HTSAT without fusion, its audio embedding of length 1, 512 numbers.

Trained to match sounds with captions. The field's Frechet distances of sound are on several networks, CLAP among them,
and are not comparable across them: this is not FAD, which is on VGGish. Knows nothing of distances.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfflow_bench.evaluation.features.media import sound
from selfflow_bench.networks.hub_model import HubModel
from selfflow_bench.networks.torch_module import TorchModule

NAME = "clap-htsat-unfused-512"
DIMENSION = 512
PUBLISHED = HubModel("laion/clap-htsat-unfused", "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a")
RATE = 48_000
WINDOW = 10 * RATE


class Clap:
    """int16 sounds ``[N, samples]``, or of several channels ``[N, samples, channels]``, to ``[N, 512]``.

    At 48 kHz, or at the rate that `at` was told, from which they are resampled. Of structured media, clips with audio,
    the field ``audio``: the frames are not seen. Channels are averaged. A sound is cut into windows of 10 s, the last
    one repeated to that length (left out if it has less than 1 s and is not the only one), and their embeddings are
    averaged: the published model takes 10 s, and a random part of what is longer.
    """

    name = NAME
    dimension = DIMENSION

    def __init__(self, cache: Path) -> None:
        """Of the hub's cache: ``cache`` is not used. Raises DamagedFileError."""
        from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

        folder = PUBLISHED.folder()
        model = PUBLISHED.load(ClapAudioModelWithProjection, folder)
        self._spectrogram = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        self.weights_sha256 = PUBLISHED.weights_sha256()

        def embedded(batch: Tensor) -> Tensor:
            windows: Tensor = nn.functional.normalize(model(batch.flatten(0, 1)).audio_embeds, dim=-1)
            return windows.reshape(*batch.shape[:2], DIMENSION).mean(1)

        self._network, self._rate = TorchModule(model, embedded, batch=8), RATE

    def at(self, rate: int) -> Clap:
        """The same network for sounds at that rate."""
        made = copy.copy(self)
        made._rate = rate
        return made

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Features ``[N, 512]``. Raises FieldError for other media, and sounds of less than 0.1 s."""
        taken = sound(NAME, media, self._rate)
        return self._network(lambda start, stop: self._input(taken[start:stop]), len(taken))

    def _input(self, media: NDArray[np.int16]) -> Tensor:
        """Log-mel spectrograms ``[N, windows, 1, frames, bands]``."""
        waves = media.astype(np.float32) / 32_768
        mono = waves.mean(-1) if waves.ndim == 3 else waves
        if self._rate != RATE:
            import scipy.signal  # seconds to import, and needed for other rates alone

            common = math.gcd(RATE, self._rate)
            mono = scipy.signal.resample_poly(mono, RATE // common, self._rate // common, axis=1).astype(np.float32)
        windows = [mono[:, start : start + WINDOW] for start in range(0, max(1, mono.shape[1] - RATE), WINDOW)]
        made = [
            torch.stack(
                [
                    torch.from_numpy(
                        self._spectrogram(wave, sampling_rate=RATE, truncation="rand_trunc", padding="repeatpad")[
                            "input_features"
                        ][0]
                    ).float()
                    for wave in window
                ]
            )
            for window in windows
        ]
        return torch.stack(made, dim=1)
