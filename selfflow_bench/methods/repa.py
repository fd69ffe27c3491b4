"""REPA (arXiv 2410.06940): hidden states aligned to a frozen encoder's features of the clean picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from selfflow_bench.errors import FieldError
from selfflow_bench.families.base import Modality
from selfflow_bench.methods.base import Batch, MethodSettings, Metrics, Needs, Situation, Sizes
from selfflow_bench.methods.parts.alignment import mean_cosine, resized_to_tokens, score, unit
from selfflow_bench.methods.parts.encoders import check_encoder
from selfflow_bench.methods.parts.homogeneous import AlignmentSettings, HomogeneousAlignment
from selfflow_bench.methods.parts.projector import ProjectorKind, projector


class RepaSettings(AlignmentSettings):
    """Documented defaults: weight 0.5, LayerNorm and Linear; the recipe states the block and the encoder."""

    weight: float = 0.5
    encoder: str
    projector: ProjectorKind = "layernorm_linear"


class Repa(HomogeneousAlignment):
    """``weight (1 - cos(projector(h_l), encoder(x0)))``, the mean over all spatial tokens."""

    settings_class: ClassVar[type[MethodSettings]] = RepaSettings
    summary = "hidden states aligned to a frozen encoder's features of the clean picture"
    modalities: ClassVar[tuple[Modality, ...]] = ("image",)

    settings: Any

    @classmethod
    def check(cls, settings: Any, situation: Situation) -> None:
        """Blocks in the model, a known encoder. Raises FieldError."""
        super().check(settings, situation)
        check_encoder(situation, settings.encoder)

    @property
    def needs(self) -> Needs:
        """The encoder's features; the hidden size for the projector."""
        return Needs(hidden_size=True, encoder=self.settings.encoder)

    def heads(self, sizes: Sizes) -> nn.ModuleDict:
        """From the hidden states to the encoder's channels."""
        return nn.ModuleDict({"projector": projector(self.settings.projector, sizes.hidden, sizes.features[-1])})

    def auxiliary_loss(
        self, hidden: Sequence[Tensor], heads: nn.ModuleDict, teacher: nn.Module, batch: Batch
    ) -> tuple[Tensor, Metrics]:
        """One minus the mean cosine over tokens."""
        grid = self.family.aligned_grid(batch.latents.shape[1:])[-2:]
        cosine = mean_cosine(
            unit(self.projected(hidden[0], heads, grid)), unit(resized_to_tokens(self.target(batch), grid))
        )
        return 1 - cosine, {"alignment_score": score(cosine)}

    def projected(self, tokens: Tensor, heads: nn.ModuleDict, grid: Sequence[int]) -> Tensor:
        """The student's tokens in the encoder's space, ``[B, N, C]``."""
        made: Tensor = heads["projector"](tokens)
        return made

    def target(self, batch: Batch) -> Tensor:
        """The encoder's features ``[B, rows, columns, C]``."""
        if batch.features is None:
            raise FieldError("batch", "features", None, "the encoder's features are missing", "Prepare them.")
        return batch.features
