"""LTX-2 (Lightricks): video and audio made together, two streams that attend to each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTX2VideoTransformer3DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import AUDIO_TEXT, Conditions, Family
from selfflow_bench.families.parts.context_rows import put_out_context_row


class LTXVideo2(Family):
    """Video with audio. Output: noise - data. Time: 1000 sigma.

    Latents are tokens packed along one axis, ``[B, C, N]``: first the video's, row-major over ``video_grid`` of the
    configuration (frames, rows, columns), then the audio's frames. Both take the same two times, each token by its own
    draw; the video's are aligned. Both streams have their places in seconds: ``fps`` of the configuration is the
    clips', 24 unless given.
    """

    modality = "video"
    transformer_class = LTX2VideoTransformer3DModel

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self._grid = tuple(int(size) for size in self.config.pop("video_grid"))
        self._video = math.prod(self._grid)
        self._fps = float(self.config.pop("fps", 24.0))
        self.modulates_context = bool(self.config.get("cross_attn_mod") or self.config.get("audio_cross_attn_mod"))

    def attach(self, transformer: nn.Module) -> None:
        """In checkpoints that modulate the prompt (2.3), it has the mean of the time embedding."""
        if self.modulates_context:
            for name in ("prompt_adaln", "audio_prompt_adaln"):
                put_out_context_row(transformer.get_submodule(f"{name}.emb"))

    def patch(self) -> tuple[int, ...]:
        """The latents are tokens."""
        return (1,)

    def aligned_grid(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """The video's tokens."""
        return self._grid

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Each returns (video, audio)."""
        return list(transformer.get_submodule("transformer_blocks").children())

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions are attended under their mask, the same for both streams."""
        tokens = latents.transpose(1, 2)
        video, audio = tokens[:, : self._video], tokens[:, self._video :]
        video_time, audio_time = time, time
        if isinstance(time, LevelRows):
            video_time, audio_time = time.part(0, self._video), time.part(self._video, tokens.shape[1])
        frames, height, width = self._grid
        return {
            "hidden_states": video,
            "audio_hidden_states": audio,
            "encoder_hidden_states": conditions["text"],
            "audio_encoder_hidden_states": conditions.get(AUDIO_TEXT, conditions["text"]),
            "timestep": video_time,
            "audio_timestep": audio_time,
            "sigma": time,
            "encoder_attention_mask": conditions["text_mask"],
            "audio_encoder_attention_mask": conditions["text_mask"],
            "num_frames": frames,
            "height": height,
            "width": width,
            "audio_num_frames": audio.shape[1],
            "fps": self._fps,
        }

    def output(self, returned: Any) -> Any:
        """Both streams."""
        return torch.cat(list(returned), 1)

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """``[B, N, C] -> [B, C, N]``."""
        return output.transpose(1, 2)

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Of (video, audio) the video."""
        tokens: Tensor = output[0]
        return tokens

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
