"""What the trainer needs to know about a model family, and nothing else.

The suite's convention (see `selfflow_bench.flow`): sigma in [0, 1], 0 = data, 1 = noise,
``x_sigma = (1 - sigma) x0 + sigma eps``, velocity ``v = eps - x0``. A family converts at its border: its clock, the
sign and the parametrisation of its output. It knows nothing of methods, data sets or the training loop.

Shapes: latents are channels-first ``[B, C, *cells]``; tokens are in the order the transformer sees them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows, TokenTimes

Modality = Literal["image", "video", "audio"]
Conditions = Mapping[str, Tensor]


class Family(ABC):
    """A model family on its own, unmodified transformer class."""

    modality: ClassVar[Modality]
    transformer_class: ClassVar[type[nn.Module]]

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    def build(self) -> nn.Module:
        """The transformer with fresh weights. Raises TypeError where the class does not know an argument."""
        return self.transformer_class(**self.config)

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
        """The family's ordinary diffusers scheduler, in the suite's flow convention, with this timestep shift."""

    def model_time(self, sigma: Tensor) -> Tensor:
        """The family's clock at ``sigma`` (float32, any shape)."""
        return sigma * 1000.0

    def sampler_sigma(self, scheduler: Any, timestep: Tensor) -> Tensor:
        """The sigma that one of the scheduler's timesteps stands for."""
        return timestep.float() / float(scheduler.config.num_train_timesteps)

    def velocity(self, output: Tensor, latents: Tensor) -> Tensor:
        """The transformer's output, latent-shaped, as a velocity in the suite's convention."""
        return output

    def hidden_tokens(self, output: Any) -> Tensor:
        """The target tokens ``[B, N, D]`` in what a block returned."""
        tokens: Tensor = output
        return tokens

    def token_grid(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        """Tokens along each axis for latents ``[C, *cells]``. Raises ValueError where a patch does not fit."""
        cells, patch = tuple(latent_shape[1:]), self.patch()
        if len(cells) != len(patch) or any(cell % size for cell, size in zip(cells, patch, strict=True)):
            raise ValueError(f"latent cells {cells} are not a whole number of patches {patch}")
        return tuple(cell // size for cell, size in zip(cells, patch, strict=True))

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
        """The velocity predicted for noisy latents.

        Args:
            transformer: a model of this family (or a wrapper of it with the same forward).
            latents: ``[B, C, *cells]``, each cell at its own sigma.
            sigma: ``[B]`` where all tokens of a sample share it (the ordinary call), or one per token.
            conditions: what `arguments` needs, batch first.

        Returns:
            ``[B, C, *cells]``.
        """
        if isinstance(sigma, TokenTimes):
            time: Tensor | LevelRows = sigma.map(self.model_time).rows()
        else:
            time = self.model_time(sigma)
        output = transformer(**self.arguments(latents, time, conditions), return_dict=False)[0]
        if not isinstance(output, Tensor):
            raise TypeError(f"{type(transformer).__name__} returned a {type(output).__name__}, not a tensor")
        return self.velocity(output, latents)

    def hidden_size(self, transformer: nn.Module, latent_shape: Sequence[int], conditions: Conditions) -> int:
        """Channels D of the hidden states, read off a forward on one sample of zeros."""
        from selfflow_bench.hidden_states import output_of_block

        first = self.blocks(transformer)[0]
        reference = next(transformer.parameters())
        latents = torch.zeros(1, *latent_shape, device=reference.device)
        one = {name: value[:1] for name, value in conditions.items()}
        sigma = torch.zeros(1, device=reference.device)
        with torch.no_grad():
            output = output_of_block(first, lambda: self.predict(transformer, latents, sigma, one))
        return int(self.hidden_tokens(output).shape[-1])
