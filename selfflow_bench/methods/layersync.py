"""LayerSync (arXiv 2510.12581): an early block aligned to a deeper one of the same forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from selfflow_bench.methods.base import Batch, Metrics
from selfflow_bench.methods.parts.alignment import mean_cosine, score, unit
from selfflow_bench.methods.parts.homogeneous import DeeperTargetSettings, HomogeneousAlignment


class LayerSyncSettings(DeeperTargetSettings):
    """Documented default: weight 0.2."""

    weight: float = 0.2


class LayerSync(HomogeneousAlignment):
    """``weight (1 - cos(h_l, stopgrad(h_k)))``, without projector, teacher or encoder."""

    settings_class = LayerSyncSettings
    summary = "an early block aligned to a deeper one of the same forward"

    settings: Any

    def blocks_read(self) -> Sequence[int]:
        """The early block and the deeper one."""
        return self.settings.student_block, self.settings.teacher_block

    def auxiliary_loss(
        self, hidden: Sequence[Tensor], heads: nn.ModuleDict, teacher: nn.Module, batch: Batch
    ) -> tuple[Tensor, Metrics]:
        """One minus the mean cosine over tokens."""
        early, deep = hidden
        cosine = mean_cosine(unit(early), unit(deep.detach()))
        return 1 - cosine, {"alignment_score": score(cosine)}
