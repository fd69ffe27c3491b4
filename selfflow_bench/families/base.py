"""What the trainer needs to know about a model family, and nothing else.

The suite's convention (see `selfflow_bench.flow`): sigma in [0, 1], 0 = data, 1 = noise. A family converts at its
border: its clock, the sign and the parametrisation of its output. It knows nothing of methods, data sets or the
training loop.

Shapes: latents are channels-first ``[B, C, *cells]``; target tokens are in the order the transformer sees them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows, TokenSequences, TokenTimes
from selfflow_bench.flow import Noising, RectifiedFlow
from selfflow_bench.hidden_states import output_of_block
from selfflow_bench.precision import bfloat16_where, holds_bfloat16

Modality = Literal["image", "video", "audio"]
Conditions = Mapping[str, Tensor]
"""What a sample is conditioned on, batch first.

``text``: float ``[B, T, D]``, zero behind a caption's end; ``text_mask``: bool ``[B, T]``; ``text_ids``: int64
``[B, T]``, the tokenizer's. ``text_attended``: bool ``[B, T]``, the text tokens that take part at all, in families that
otherwise have all of them take part. ``text_layers``: float ``[B, L, T, D]``, the states of a text encoder's layers.
``text_audio``: the caption as a stream of sound sees it, ``text`` where it is absent. ``silence``: latents of no sound.
``text_ids_mask``: bool, of ``text_ids``, where ``text_mask`` is not theirs.
``reference``, where a family takes one: clean latents ``[B, C, *cells]``.
``label``: int64 ``[B]``, a class, in families that know classes and no text. ``guidance``: float ``[B]``, the scale
that models distilled for guidance embed; 1, which is none, where it is absent.
"""
REFERENCE = "reference"
LABEL = "label"
GUIDANCE = "guidance"
ATTENDED = "text_attended"
LAYERS = "text_layers"
AUDIO_TEXT = "text_audio"
SILENCE = "silence"
IDS_MASK = "text_ids_mask"


class Family(ABC):
    """A model family on its own, unmodified transformer class."""

    modality: ClassVar[Modality]
    transformer_class: ClassVar[type[nn.Module]]
    noising: ClassVar[Noising] = RectifiedFlow()
    modulates_context: bool = False
    """Whether context tokens (text) are modulated by the timestep too, and so need a time of their own."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Conditions that the family cannot do without, beside text."""
    accepts: ClassVar[tuple[str, ...]] = ()
    """Conditions that the family can have, or not."""

    adapter_prefix: ClassVar[str] = "transformer."
    """What the published pipeline puts before the names of the transformer's layers in a file of adapters."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    @property
    def classes(self) -> int | None:
        """How many classes a label can be; the one behind the last is none. None in families of text."""
        return None

    def build(self) -> nn.Module:
        """The transformer with fresh weights. Raises TypeError where the class does not know an argument."""
        transformer = self.make()
        self.attach(transformer)
        return transformer

    def make(self) -> nn.Module:
        """The bare transformer, without hooks."""
        return self.transformer_class(**self.config)

    def load(self, snapshot: Path, dtype: torch.dtype) -> nn.Module:
        """The bare transformer with published weights, from a folder in diffusers' format. Reads local files only."""
        made: nn.Module = self.transformer_class.from_pretrained(  # type: ignore[attr-defined]
            snapshot / "transformer", torch_dtype=dtype, local_files_only=True
        )
        return made

    def save(self, transformer: nn.Module, folder: Path) -> None:
        """Write a transformer so that the published pipeline can be given it: what `load` reads."""
        transformer.save_pretrained(folder / "transformer")  # type: ignore[operator]

    def attach(self, transformer: nn.Module) -> None:
        """Install, once and for good, what conditioning by levels needs of a made transformer: hooks only.

        Hooks leave the ordinary call, with a plain timestep, as it is. They stay because gradient checkpointing runs
        blocks again in backward.
        """

    def time_embedder(self, transformer: nn.Module) -> nn.Module | None:
        """The module that makes the time embedding ``[B, D]``: diffusers' own where there is just one, else None.

        Models distilled for guidance embed its scale by a module of the same class.
        """
        found = [
            module
            for name, module in transformer.named_modules()
            if isinstance(module, TimestepEmbedding) and not name.endswith("guidance_embedder")
        ]
        return found[0] if len(found) == 1 else None

    def countable(self, transformer: nn.Module) -> nn.Module:
        """The transformer for counting FLOPs on the meta device, with stand-ins for what cannot run there."""
        return transformer

    @abstractmethod
    def patch(self) -> tuple[int, ...]:
        """Latent cells per token along each axis of the latent grid."""

    @abstractmethod
    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """The blocks in the order they run. Block indices count from 1: "after block l"."""

    @abstractmethod
    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """The forward's keyword arguments. ``time`` is in the family's own clock, ``[B]`` or standing in for it."""

    @abstractmethod
    def scheduler(self, shift: float) -> Any:
        """The family's ordinary diffusers scheduler, for predictions as `predict` gives them, with this shift."""

    def model_time(self, sigma: Tensor) -> Tensor:
        """The family's clock at ``sigma`` (float32, any shape)."""
        return sigma * 1000.0

    def sampler_sigma(self, scheduler: Any, timestep: Tensor) -> Tensor:
        """The sigma that one of the scheduler's timesteps stands for."""
        return timestep.float() / float(scheduler.config.num_train_timesteps)

    def output(self, returned: Any) -> Any:
        """What `prediction` reads of what the transformer returned: the first of several."""
        return returned[0] if isinstance(returned, tuple) else returned

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        """What the transformer returned, as a prediction of the noising's target, ``[B, C, *cells]``."""
        made: Tensor = output
        return made

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """The target tokens ``[B, N, D]`` in what a block returned, for a forward on these latents and conditions."""
        tokens: Tensor = output
        return tokens

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The levels of all sequences in which the transformer meets its timestep.

        Args:
            target: int64 ``[B, N]``, the levels of the target tokens.
            context: the level of context tokens, in families that modulate them.
            clean: the level of sigma 0, where there is a reference.
            latents: the noisy latents.
            conditions: what the forward is conditioned on.

        Returns:
            int64 ``[B, S]`` for each sequence; by default the target tokens alone.
        """
        return [target]

    def condition_shape(self, name: str, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape ``[...]`` of one sample's condition for latents ``[C, *cells]``: a reference is one such picture."""
        if name == REFERENCE:
            return tuple(latent_shape) if self.modality == "image" else (latent_shape[0], 1, *latent_shape[2:])
        raise KeyError(f"{type(self).__name__} takes no condition {name!r}")

    def drawn_condition(
        self, name: str, count: int, latent_shape: Sequence[int], source: torch.Generator | None = None
    ) -> Tensor:
        """A random condition ``[count, ...]`` of the right shape and type, for measuring what values do not change."""
        if name == LABEL and self.classes is not None:
            return torch.randint(self.classes, (count,), generator=source)
        return torch.randn(count, *self.condition_shape(name, latent_shape), generator=source)

    def token_grid(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Tokens along each axis for latents ``[C, *cells]``. Raises ValueError where a patch does not fit."""
        cells, patch = tuple(latent_shape[1:]), self.patch()
        if len(cells) != len(patch) or any(cell % size for cell, size in zip(cells, patch, strict=True)):
            raise ValueError(f"latent cells {cells} are not a whole number of patches {patch}")
        return tuple(cell // size for cell, size in zip(cells, patch, strict=True))

    def aligned_grid(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """The tokens that `hidden_tokens` returns, along each axis: all target tokens, in most families."""
        return self.token_grid(latent_shape)

    def spread(self, tokens: Tensor, latent_shape: Sequence[int]) -> Tensor:
        """One value per token ``[B, N]`` -> one value per latent cell ``[B, 1, *cells]``."""
        cells = tokens.view(tokens.shape[0], 1, *self.token_grid(latent_shape))
        for axis, size in enumerate(self.patch(), start=2):
            if size > 1:
                cells = cells.repeat_interleave(size, dim=axis)
        return cells

    def predict(
        self, transformer: nn.Module, latents: Tensor, sigma: Tensor | TokenTimes, conditions: Conditions
    ) -> Tensor:
        """The noising's target predicted for noisy latents.

        Args:
            transformer: a model of this family (or a wrapper of it with the same forward).
            latents: ``[B, C, *cells]``, each cell at its own sigma.
            sigma: ``[B]`` where all tokens of a sample share it (the ordinary call), or one per token.
            conditions: what `arguments` needs, batch first.

        Returns:
            ``[B, C, *cells]``.
        """
        if isinstance(sigma, TokenTimes):
            time: Tensor | LevelRows = self._level_rows(sigma, latents, conditions)
        else:
            time = self.model_time(sigma)
        output = transformer(**self.arguments(latents, time, conditions), return_dict=False)
        predicted = self.prediction(self.output(output), latents)
        if not isinstance(predicted, Tensor):
            raise TypeError(f"{type(transformer).__name__} returned a {type(predicted).__name__}, not a tensor")
        return predicted

    def hidden_size(self, transformer: nn.Module, latent_shape: Sequence[int], conditions: Conditions) -> int:
        """Channels D of the hidden states, read off a forward on one sample of zeros."""
        first = self.blocks(transformer)[0]
        reference = next(transformer.parameters())
        latents = torch.zeros(1, *latent_shape, device=reference.device)
        one = {name: value[:1] for name, value in conditions.items()}
        sigma = torch.zeros(1, device=reference.device)
        with torch.no_grad(), bfloat16_where(holds_bfloat16(transformer), reference.device):
            output = output_of_block(first, lambda: self.predict(transformer, latents, sigma, one))
        return int(self.hidden_tokens(output, latents, one).shape[-1])

    def _level_rows(self, sigma: TokenTimes, latents: Tensor, conditions: Conditions) -> LevelRows:
        """The times, then the context's, then sigma 0: as many as the family and its conditions need."""
        times, shares = [sigma.times], [sigma.shares()]
        has_reference = REFERENCE in conditions
        context, clean = len(sigma.times), len(sigma.times) + 1
        if self.modulates_context or has_reference:
            times.append(sigma.context_time()[None])
        if has_reference:
            times.append(torch.zeros_like(times[-1]))
        shares.extend(torch.zeros_like(shares[0][:1]) for _ in times[1:])
        sequences = TokenSequences.of(
            self.sequences(sigma.level, context, clean, latents, conditions),
            torch.cat(shares),
            context=context if self.modulates_context else None,
            mean=sigma.context == "embedding_mean",
        )
        return LevelRows(self.model_time(torch.cat(times)).flatten(), sequences)
