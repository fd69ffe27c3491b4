"""What the feature networks of an evaluation see in real media of published sizes, found in preparation.

Latents are all that training keeps of media, and a distance is to be from the media themselves. So the networks look at
the validation split while its media can still be read. Knows nothing of how media are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfflow_bench.data.content_folder import MANIFEST
from selfflow_bench.errors import SuiteError
from selfflow_bench.evaluation.features import hearing, network
from selfflow_bench.evaluation.features.base import FeatureNetwork
from selfflow_bench.evaluation.statistics import Accumulator, written_for
from selfflow_bench.plan import RunSpec
from selfflow_bench.stages.data import validation_statistics

_BATCH = 16


def looking(spec: RunSpec, cache: Path) -> list[FeatureNetwork]:
    """The networks that look at real media: those for which the protocol names no published statistics.

    Raises DamagedFileError where a network's weights are not on this machine.
    """
    settings = spec.conditions.evaluation
    names = [name for name in settings.all_networks if name not in settings.reference_statistics]
    return [network(name, cache, f"protocol {spec.protocol}") for name in names]


def not_looked_at(networks: Sequence[FeatureNetwork], prepared: Path) -> list[FeatureNetwork]:
    """Those networks of which a folder of prepared data has no statistics."""
    return [one for one in networks if not written_for(validation_statistics(prepared, one.name), one.weights_sha256)]


def look_at_validation(
    networks: Sequence[FeatureNetwork],
    prepared: Path,
    media: Callable[[int], Iterator[NDArray[Any]]],
    sound_rate: int | None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Keep the networks' features of all validation media in a folder of prepared data.

    Args:
        networks: see every medium once.
        prepared: a finished folder.
        media: the first so many media that the latents were made of, each ``[...]``.
        sound_rate: of the media's sound (Hz), if they have one.
        progress: is told how many are done, of how many.

    Raises SuiteError where there are fewer media than latents.
    """
    count = int(json.loads((prepared / MANIFEST).read_text(encoding="utf-8"))["items"]["validation"])
    seen = Accumulator([hearing(one, sound_rate) for one in networks], np.arange(count))
    done, given = 0, media(count)
    while batch := list(islice(given, _BATCH)):
        seen.add(np.stack(batch), range(done, done + len(batch)))
        done += len(batch)
        progress(done, count)
    if done != count:
        text = f"{prepared}: holds {count} validation items, and {done} could be read. Delete it, and prepare again."
        raise SuiteError(text)
    for name, found in seen.result(count).items():
        found.save(validation_statistics(prepared, name), {"key": found.weights_sha256})
