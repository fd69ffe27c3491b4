"""One vector per caption, for models that want the pooled state of a text encoder."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def pooled_text(conditions: Mapping[str, Tensor]) -> Tensor:
    """``[B, D]``: the condition ``pooled`` where there is one, else the mean of the caption's token states."""
    if "pooled" in conditions:
        return conditions["pooled"]
    mask = conditions["text_mask"].to(conditions["text"].dtype)[..., None]
    return (conditions["text"] * mask).sum(1) / mask.sum(1).clamp_min(1)
