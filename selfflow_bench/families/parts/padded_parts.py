"""Z-Image pads each part of its sequence to a multiple of 32 with learned tokens that take part in attention."""

from __future__ import annotations

MULTIPLE = 32


def padded(tokens: int) -> int:
    """The length of a part of so many tokens."""
    return -(-tokens // MULTIPLE) * MULTIPLE
