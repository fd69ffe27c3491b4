"""Parts of a published pipeline that diffusers has no class for, together."""

from __future__ import annotations

from typing import Any

from torch import nn


class Assembled(nn.Module):
    """Parts under the names that they have in diffusers' pipelines: ``vae``, ``text_encoder``, ``scheduler``, ..."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
