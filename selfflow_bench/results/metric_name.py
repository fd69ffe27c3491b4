"""What a metric's name says: "validation_loss", "kid/<network>", or "kid/<network>/4-step" for few sampler steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricName:
    """A name's parts; ``sampler`` is empty where the protocol's own number of sampler steps was used."""

    kind: str
    network: str = ""
    sampler: str = ""

    @classmethod
    def of(cls, name: str) -> MetricName:
        """From the name as records have it."""
        return cls(*name.split("/", 2))
