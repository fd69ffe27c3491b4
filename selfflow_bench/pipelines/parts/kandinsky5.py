"""What Kandinsky 5's pipelines share: Qwen 2.5-VL behind a template, and CLIP's pooled vector."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class Kandinsky5Published(ScaledAutoencoder):
    """A caption has no padding in the pipeline, and its encoder no mask: captions are encoded one by one."""

    steps = 50
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``, zero behind a caption's end; ``text_attended``, up to there; ``pooled``."""
        texts, pooled = [], []
        for caption in captions:
            states, vector, _ = self.pipeline.encode_prompt([caption], max_sequence_length=length, device=self.device)
            texts.append(states[0])
            pooled.append(vector)
        ends = torch.tensor([len(text) for text in texts], device=self.device)
        return {
            "text": torch.stack([pad(text, (0, 0, 0, length - len(text))) for text in texts]),
            "text_attended": torch.arange(length, device=self.device) < ends[:, None],
            "pooled": torch.cat(pooled),
        }

    @property
    def _shift(self) -> float:
        """The pipelines know none, whatever the autoencoder's configuration says."""
        return 0.0
