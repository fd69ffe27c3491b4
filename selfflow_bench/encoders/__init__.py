"""External encoders that some methods align to: a module each, found by the name it gives itself.

Their features of the clean media are made once, in preparation (`selfflow_bench.data.encoded`, `published_features`),
never in a step.
"""

from __future__ import annotations

from selfflow_bench.encoders import dinov2, efficientnet_lite0
from selfflow_bench.encoders.base import Encoder

_KINDS: tuple[type[Encoder], ...] = (efficientnet_lite0.EfficientNetLite0Maps, dinov2.DinoV2)
_ENCODERS = {kind.name: kind for kind in _KINDS}


def names() -> tuple[str, ...]:
    """The names a recipe may ask for, in alphabetical order."""
    return tuple(sorted(_ENCODERS))


def encoder_class(name: str) -> type[Encoder]:
    """The class of a name that `names` has; made with a cache for converted networks (may raise DamagedFileError)."""
    return _ENCODERS[name]
