"""How a run's seed follows from its recipe: derived, never chosen."""

import hashlib

SEED_DERIVATION = "first 8 bytes, big endian, halved, of sha256('<recipe digest>/<index>')"


def derive_seed(recipe_digest: str, index: int) -> int:
    """The seed of a recipe's run with this index: see `SEED_DERIVATION`. 63 bits."""
    value = hashlib.sha256(f"{recipe_digest}/{index}".encode()).digest()
    return int.from_bytes(value[:8], "big") >> 1
