"""Start-up check of an external encoder's name."""

from __future__ import annotations

from selfflow_bench import encoders
from selfflow_bench.errors import FieldError
from selfflow_bench.methods.base import Situation


def check_encoder(situation: Situation, name: str) -> None:
    """Refuse an encoder that is not registered."""
    if name not in encoders.names():
        raise FieldError(
            situation.where,
            f"methods.{situation.method}.encoder",
            name,
            "there is no such encoder",
            f"Use one of: {', '.join(encoders.names())}.",
        )
