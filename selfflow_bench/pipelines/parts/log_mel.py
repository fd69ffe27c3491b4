"""The logarithm of a mel spectrogram, as sound's autoencoders take it: magnitudes, Slaney's scale and norm."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

_WINDOW = 1024
_LEAST = 1e-5


def log_mel(sound: Tensor, rate: int, hop: int, bands: int) -> Tensor:
    """``[..., samples] -> [..., frames, bands]``: a frame every ``hop`` samples, the first around the first sample."""
    flat = sound.reshape(-1, sound.shape[-1])
    window = torch.hann_window(_WINDOW, device=sound.device)
    spectrum = torch.stft(flat, _WINDOW, hop, window=window, center=True, pad_mode="reflect", return_complex=True).abs()
    found = mel_filter_bank(_WINDOW // 2 + 1, bands, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    filters = torch.from_numpy(found).to(spectrum)
    logarithm = (spectrum.transpose(1, 2) @ filters).clamp_min(_LEAST).log()
    return logarithm.view(*sound.shape[:-1], *logarithm.shape[1:])


def silent(frames: int, like: Tensor) -> Tensor:
    """Frames ``[..., frames, bands]`` of silence, to put behind a spectrogram."""
    return like.new_full((*like.shape[:-2], frames, like.shape[-1]), _LEAST).log()
