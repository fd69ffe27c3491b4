"""Parts of a published pipeline that diffusers has no class for, together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn


class Assembled(nn.Module):
    """Parts under the names that they have in diffusers' pipelines: ``vae``, ``text_encoder``, ``scheduler``, ..."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    @classmethod
    def of(cls, snapshot: Path, absent: Sequence[str], **kinds: tuple[type[Any], torch.dtype | None]) -> Self:
        """Parts from a folder's subfolders of the same names: the class of each, and its type where it has weights."""
        parts = {}
        for name, (kind, dtype) in kinds.items():
            typed = {} if dtype is None else {"torch_dtype": dtype}
            is_there = name not in absent
            parts[name] = kind.from_pretrained(snapshot / name, local_files_only=True, **typed) if is_there else None
        return cls(**parts)
