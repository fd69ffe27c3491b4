"""SiT (arXiv 2401.08740): class-conditional, of square latents; what the published comparisons on ImageNet train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.architectures.sit import SiTTransformer2DModel
from selfflow_bench.families.base import LABEL, Conditions, Family


class SiT(Family):
    """Images of a class. Time: 1 - sigma, output: data - noise; or as REPA's code has it, both the other way round.

    The class is this suite's own: diffusers has none.
    """

    modality = "image"
    needs = (LABEL,)
    transformer_class = SiTTransformer2DModel

    @property
    def classes(self) -> int:
        """As many as the configuration says."""
        return int(self.config.get("num_classes", 1000))

    def time_embedder(self, transformer: nn.Module) -> nn.Module:
        """Makes the embedding of time alone, to which the label's is added."""
        return transformer.get_submodule("t_embedder")

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide in the models with "/2" in their name."""
        size = int(self.config.get("patch_size", 2))
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the image tokens."""
        return list(transformer.get_submodule("blocks").children())

    def model_time(self, sigma: Tensor) -> Tensor:
        """Not scaled."""
        return 1 - sigma if self._time_of_data else sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """The class behind the last is none."""
        return {"hidden_states": latents, "timestep": time, "class_labels": conditions[LABEL]}

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """Time that runs towards the data makes a velocity of the opposite sign."""
        return -output if self._time_of_data else output

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """Euler steps on flow sigmas; the published comparisons name a sampler of their own in the protocol."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)

    @property
    def _time_of_data(self) -> int:
        return int(self.config.get("time_of_data", 1))
