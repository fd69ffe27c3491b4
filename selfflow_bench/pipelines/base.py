"""The published pipeline around a family's transformer: its text encoders, autoencoder and scheduler.

All of them are diffusers' own, in its own pipeline object, so that what training sees is what the published checkpoint
was made for. Knows nothing of data sets and training; the transformer itself is `Family.load`'s.

What an evaluation samples with, as the pipeline's own call would: `steps` and `guidance` as documented; `schedule`, a
scheduler whose timesteps are set; `noise_scale`, what the first noise is multiplied by; and guidance by `guided_by`.
``classifier_free`` needs a second prediction, for the caption `negative`, and `guide` makes one of the two.
``embedded`` needs one prediction, with the scale as the condition ``guidance``. All of it is for predictions as
`Family.predict` gives them:

    guide, scheduler = published.guide(scale), published.schedule(latent_shape, steps)    # of one batch
    latents = noise * published.noise_scale
    for timestep in scheduler.timesteps:
        sigma = family.sampler_sigma(scheduler, timestep)
        predicted = guide(<predict for captions>, <predict for published.negative>)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from selfflow_bench.errors import DamagedFileError
from selfflow_bench.recipe import Checkpoint

Media = np.ndarray[Any, Any]
"""uint8 pictures ``[N, H, W, 3]`` or clips ``[N, T, H, W, 3]``; int16 sound ``[N, samples, channels]``."""
_OF_TEXT = ("text_encoder", "tokenizer")
"""How the parts that only captions need begin."""
Guide = Callable[[Tensor, Tensor], Tensor]
"""(prediction for captions, prediction for what is guided away from) -> the guided prediction; all alike in shape."""


def classifier_free(scale: float) -> Guide:
    """Plain classifier-free guidance (Ho and Salimans 2022)."""
    return lambda predicted, away: away + scale * (predicted - away)


class PublishedPipeline(ABC):
    """A published pipeline without its transformer.

    Args:
        snapshot: a folder in diffusers' format (see `selfflow_bench.pipelines.snapshot`).
        device: where text encoders and autoencoder run.
        dtype: of the text encoders; the autoencoder is small, and runs in float32.
        encodes_text: whether text encoders, which may be larger than the transformer, are loaded at all.

    Raises DamagedFileError where the folder cannot be loaded.
    """

    pipeline_class: ClassVar[type[Any]]
    steps: ClassVar[int]
    """Sampler steps that the checkpoint's authors document."""
    guidance: ClassVar[float]
    """Scale of guidance that they document; 1 is none."""
    guided_by: ClassVar[Literal["classifier_free", "embedded"]] = "classifier_free"
    """By a second prediction, or by the scale as an input of the transformer (the condition ``guidance``)."""
    negative: ClassVar[str] = ""
    """The caption that the pipeline guides away from unless it is given one."""
    longest: ClassVar[int]
    """Tokens of a caption that the checkpoint's text encoder was used with; longer ones are cut."""
    seconds: float | None = None
    """Length of the sounds, where captions are encoded with it; the pipeline's default unless set."""
    video_grid: tuple[int, ...] | None = None
    """Latent frames, rows and columns of clips whose latents are in one row with their sound's, which do not tell: set
    by who decodes or samples, and by encoding."""
    absent: ClassVar[tuple[str, ...]] = ("transformer",)
    """Parts of the folder that are never loaded."""
    of_text: ClassVar[tuple[str, ...]] = ()
    """Parts that only captions need, where the pipeline's class does not tell."""
    beside: ClassVar[tuple[Checkpoint, ...]] = ()
    """Other repositories that a folder is not complete without."""
    precise: ClassVar[tuple[str, ...]] = ("vae",)
    """Parts of it that run in float32."""

    def __init__(self, snapshot: Path, device: torch.device, dtype: torch.dtype, *, encodes_text: bool = True) -> None:
        parts = self.of_text or inspect.signature(self.pipeline_class.__init__).parameters
        text = (
            () if encodes_text else tuple(name for name in parts if name in self.of_text or name.startswith(_OF_TEXT))
        )
        try:
            self.pipeline = self.load(snapshot, dtype, (*self.absent, *text))
        except (OSError, ValueError, KeyError) as error:
            problem = str(error).splitlines()[0]
            raise DamagedFileError(
                f"{snapshot}: these published weights cannot be loaded: {problem} Delete the folder and fetch it anew "
                "with: hf download"
            ) from error
        self.pipeline.to(device)
        self.device = device

    def load(self, snapshot: Path, dtype: torch.dtype, absent: Sequence[str]) -> Any:
        """diffusers' pipeline without some parts, or an object with its parts under the names that they have there."""
        return self.pipeline_class.from_pretrained(
            snapshot,
            dtype={**dict.fromkeys(self.precise, torch.float32), "default": dtype},
            local_files_only=True,
            **dict.fromkeys(absent),
        )

    def encode_text(self, captions: Sequence[str], length: int) -> dict[str, Tensor]:
        """The family's conditions for captions, on the CPU, batch first, in the text encoders' type.

        Every caption is cut or padded to ``length`` tokens, or to `longest` where that is fewer; a family that has the
        states of several encoders behind each other has more tokens. The empty caption becomes what the published
        pipeline guides away from.
        """
        with torch.inference_mode():
            found = self.text_conditions(list(captions), min(length, self.longest))
        return {name: value.cpu().clone() for name, value in found.items()}

    @abstractmethod
    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """What `encode_text` gives, wherever the encoders run."""

    def encode_media(self, media: Media) -> Tensor:
        """Latents ``[N, C, *cells]`` on the CPU, float32, normalised and laid out as the family's: not packed.

        The mean of the autoencoder's posterior, so that the same media give the same latents.
        """
        with torch.inference_mode():
            return self.latents(self.values(media)).float().cpu().clone()

    @property
    def sound_rate(self) -> int | None:
        """Samples a second of the sound it takes: as the medium, beside frames, or as a condition; None: it takes none.

        Of clips with sound, media are structured: ``frames`` and ``audio``, of shapes as in `Media`.
        """
        return None

    def encode_sound(self, sound: Media) -> Tensor:
        """The condition ``sound`` ``[N, A, D]`` on the CPU, in families that need one, of sound at `sound_rate`."""
        raise NotImplementedError(f"{type(self).__name__} takes no sound as a condition")

    def decode(self, latents: Tensor) -> Media:
        """The inverse of `encode_media`, as far as the autoencoder goes."""
        with torch.inference_mode():
            return self.media(self.decoded(latents.to(self.device, torch.float32)).float().cpu())

    @abstractmethod
    def latents(self, values: Tensor) -> Tensor:
        """Normalised latents of what `values` gives."""

    @abstractmethod
    def decoded(self, latents: Tensor) -> Tensor:
        """The autoencoder's output for normalised latents."""

    def values(self, media: Media) -> Tensor:
        """What the autoencoder takes: channels first, in [-1, 1]."""
        values = torch.from_numpy(np.ascontiguousarray(media)).movedim(-1, 1)
        return values.to(self.device, torch.float32) / 127.5 - 1

    def media(self, values: Tensor) -> Media:
        """The inverse of `values`; what lies outside [-1, 1] is clamped."""
        levels = ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return np.asarray(levels.movedim(1, -1).contiguous())

    def scheduler(self) -> Any:
        """A fresh instance of the folder's own scheduler."""
        return type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)

    def schedule(self, latent_shape: Sequence[int], steps: int) -> Any:
        """A fresh scheduler, its timesteps set as the pipeline's own call sets them for latents ``[C, *cells]``.

        It counts its steps: one for each batch.
        """
        scheduler = self.scheduler()
        scheduler.set_timesteps(**self.timesteps(latent_shape, steps), device=self.device)
        return scheduler

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """What the scheduler's timesteps are set by: their number, unless the pipeline gives more."""
        return {"num_inference_steps": steps}

    @property
    def noise_scale(self) -> float:
        """The standard deviation of the noise that sampling starts from."""
        return float(getattr(self.pipeline.scheduler, "init_noise_sigma", 1.0))

    def guide(self, scale: float) -> Guide:
        """How the pipeline makes one of two predictions at a scale above 1. May count its steps: one for each batch."""
        return classifier_free(scale)
