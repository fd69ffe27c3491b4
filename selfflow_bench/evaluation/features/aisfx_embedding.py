"""Note features: the aiSFX embedding of sound (Ma and Lerch, ISMIR 2022, the model X-Sequential-CE).

A convolutional network trained on libraries of sound effects, 512 numbers. It tells instruments apart, though an
untrained network of its shape comes close: differences in its distances are about timbre, not about music. Knows
nothing of distances.
"""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfflow_bench.errors import FieldError
from selfflow_bench.networks.onnx_graph import OnnxGraph
from selfflow_bench.networks.weights import read_weights

NAME = "aisfx-512"
DIMENSION = 512
WEIGHTS_SHA256 = "499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5"
RATE = 8_000
# Root mean square of the raw features over General MIDI notes, rounded; see efficientnet_lite0.SCALE.
SCALE = 1.5
_NETWORK_RATE = 44_100
_WINDOW, _HOP, _MELS, _FRAMES = 2048, 1024, 96, 100
_SPECTROGRAM_MAXIMUM = 9.457798957824707


class AisfxEmbedding:
    """Mono notes, int16 `[N, samples]` at 8 kHz, to features `[N, 512]`.

    The network's own preprocessing (its librosa path): 44.1 kHz, peak 1, power spectrogram of 2048 samples every 1024,
    96 HTK mel bands of unit sum, log10(1e4 x + 1) over the corpus maximum, one block of 100 frames padded with zeros
    (2.3 s; what is longer is cut). Only frequencies below 4 kHz carry anything at 8 kHz.
    """

    name = NAME
    dimension = DIMENSION
    weights_sha256 = WEIGHTS_SHA256

    def __init__(self, cache: Path, weights: Path | None = None) -> None:
        content = checked_weights(weights)
        self._graph = OnnxGraph(
            cache, f"{NAME} {WEIGHTS_SHA256}", lambda: load_embedding(content), torch.zeros(_FRAMES, _MELS)
        )

    def __call__(self, media: NDArray[Any]) -> NDArray[np.float32]:
        """Features `[N, 512]`. Raises FieldError unless `media` is int16 `[N, samples]` of 0.1 s or more."""
        if media.ndim != 2 or media.dtype != np.int16 or not len(media) or media.shape[1] < RATE // 10:
            found = f"{media.dtype} {list(media.shape)}"
            raise FieldError(NAME, "media", found, "not a batch of notes", f"Give int16 [N, samples] at {RATE} Hz.")
        return self._graph(lambda start, stop: network_input(media[start:stop]).numpy(), len(media)) / np.float32(SCALE)


def network_input(notes: NDArray[np.generic]) -> Tensor:
    """int16 `[N, samples]` at 8 kHz to the network's spectrogram, float32 `[N, 100 frames, 96 bands]`."""
    import scipy.signal  # seconds to import, and needed for notes alone

    waves = scipy.signal.resample_poly(notes.astype(np.float64), _NETWORK_RATE // 100, RATE // 100, axis=1)
    peak = np.abs(waves).max(axis=1, keepdims=True)
    waves = waves / np.where(peak == 0, 1, peak)
    spectra = torch.stft(
        torch.from_numpy(waves),
        _WINDOW,
        _HOP,
        window=torch.hann_window(_WINDOW, dtype=torch.float64),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    bands = torch.einsum("nft,fm->ntm", spectra.abs().square(), _mel_filters())
    block = torch.log10(bands * 10_000 + 1)[:, :_FRAMES] / _SPECTROGRAM_MAXIMUM
    return nn.functional.pad(block, (0, 0, 0, _FRAMES - block.shape[1])).float()


def load_embedding(content: bytes) -> nn.Module:
    """The embedding network `[N, 100, 96] -> [N, 512]` from checked bytes.

    The checkpoint is a pickle of weights and of label numbers (NumPy scalars); only those types are let in.
    """
    import _codecs

    from aisfx.models.cnn2d import EmbeddingNet

    scalar: Any = np.int64(0).__reduce__()[0]
    allowed: list[Any] = [(scalar, "numpy.core.multiarray.scalar"), np.dtype, np.dtypes.Int64DType, _codecs.encode]
    with torch.serialization.safe_globals(allowed):
        weights, _ = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    network: nn.Module = EmbeddingNet("max", 3, 1, 64)
    prefix = "embedding_net."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return network.eval()


@lru_cache(maxsize=1)
def _mel_filters() -> Tensor:
    """`[1025 bins, 96 bands]`, each band of unit sum."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(_WINDOW // 2 + 1, _MELS, 0.0, _NETWORK_RATE / 2, _NETWORK_RATE, mel_scale="htk")
    sums = filters.sum(axis=0, keepdims=True)
    return torch.from_numpy(filters / np.where(sums == 0, 1, sums))


def checked_weights(path: Path | None = None) -> bytes:
    """The weights file, the package's if not given. Raises DamagedFileError where it is not the published one."""
    return read_weights(path or packaged_weights(), WEIGHTS_SHA256, "Reinstall aisfx")


def packaged_weights() -> Path:
    """Where the package has its weights."""
    from importlib.util import find_spec

    spec = find_spec("aisfx")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models" / "checkpoint.pth"
