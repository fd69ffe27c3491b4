"""Wan 2.2 S2V (arXiv 2508.18621): Wan's blocks over video, reference and motion tokens, with sound let in between."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.architectures.published_weights import with_weights
from selfflow_bench.families.architectures.wan_s2v import AUDIO_FRAMES, WanS2VTransformer3DModel
from selfflow_bench.families.architectures.wan_s2v_weights import renamed
from selfflow_bench.families.base import REFERENCE, Conditions, Family

SOUND = "sound"
SOUND_FRAMES = 64
"""Frames of a note's spectrogram."""


class WanS2V(Family):
    """Video. Output: noise - data. Time: 1000 sigma. The class is this suite's own: diffusers has none.

    It puts reference and motion tokens at time 0 itself, so the timestep meets the video's tokens alone.
    """

    modality = "video"
    transformer_class = WanS2VTransformer3DModel
    needs = (REFERENCE, SOUND)

    def load(self, snapshot: Path, dtype: torch.dtype) -> nn.Module:
        """Under the names of the community's conversion, or as `save` writes it."""
        folder = snapshot / "transformer"
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "dim" in config:
            return super().load(snapshot, dtype)
        after = self._argument("audio_inject_layers")
        return with_weights(self.make, folder, lambda weights: renamed(weights, after), dtype)

    def _argument(self, name: str) -> Any:
        """An argument of the class, as given or by default."""
        return self.config.get(name, inspect.signature(self.transformer_class.__init__).parameters[name].default)

    def patch(self) -> tuple[int, ...]:
        """(time, height, width)."""
        return tuple(int(size) for size in self.config.get("patch_size", (1, 2, 2)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the video's tokens, the reference's, then the motion's."""
        blocks: Sequence[nn.Module] = transformer.blocks  # type: ignore[assignment]
        return blocks

    def condition_shape(self, name: str, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """A sound is a sequence of feature frames ``[A, D]``, or one for each layer of its encoder, ``[L, A, D]``."""
        if name == SOUND:
            return (SOUND_FRAMES, int(self.config["audio_dim"]))
        return super().condition_shape(name, latent_shape)

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Sound is brought to four frames per latent frame, linearly as published.

        The last frame before the clip is the reference picture and older ones are empty, as in the published
        generation with ``init_first_frame``.
        """
        frames, sound = AUDIO_FRAMES * latents.shape[2], conditions[SOUND]
        every = sound if sound.ndim == 4 else sound[:, None]
        signal = every.flatten(0, 1).transpose(1, 2)
        heard = F.interpolate(signal, size=frames, mode="linear", align_corners=True).transpose(1, 2)
        layers = int(self._argument("audio_layers")) if sound.ndim == 3 else sound.shape[1]
        return {
            "hidden_states": latents,
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "reference": conditions[REFERENCE],
            "audio": torch.unflatten(heard, 0, every.shape[:2]).expand(-1, layers, -1, -1),
            "motion": conditions[REFERENCE],
        }

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """The video's tokens, which are the first."""
        tokens: Tensor = output[:, : math.prod(self.token_grid(latents.shape[1:]))]
        return tokens

    def scheduler(self, shift: float) -> UniPCMultistepScheduler:
        """As published: UniPC on flow sigmas."""
        return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
