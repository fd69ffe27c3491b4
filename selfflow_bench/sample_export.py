"""A finished run's samples as the evaluator of the comparisons on ImageNet reads them: one array of pictures in a file.

The evaluator (openai/guided-diffusion, `evaluations/evaluator.py`) reads ``arr_0``, uint8 ``[N, 256, 256, 3]``, and
gives FID, sFID, IS, precision and recall against its reference batch. The samples are those that the run itself was
measured on. Knows nothing of records.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from selfflow_bench.atomic_files import replace_file
from selfflow_bench.errors import FieldError
from selfflow_bench.events import EventLog
from selfflow_bench.plan import RunSpec
from selfflow_bench.stages.evaluation import samples_of
from selfflow_bench.stages.run import set_up
from selfflow_bench.stages.training import train

ARRAY = "arr_0"


def export_samples(spec: RunSpec, folder: Path, cache: Path, path: Path) -> tuple[int, ...]:
    """Sample the averaged weights of the run that has finished in ``folder``, as its evaluation did, into a file.

    Returns the shape of what was written. Raises FieldError where the run makes no pictures.
    """
    torch.use_deterministic_algorithms(mode=True)
    with tempfile.TemporaryDirectory() as logs:
        run = set_up(spec, folder, cache, EventLog(Path(logs) / "events.jsonl"), lambda: False)
        training = train(run)  # all of it is in the checkpoint
        count, media = samples_of(run, training.evaluated())
        return write_samples(path, media, count)


def write_samples(path: Path, batches: Iterable[NDArray[Any]], count: int) -> tuple[int, ...]:
    """Write batches of pictures, ``count`` in all, as one array; the file appears whole or not at all.

    No more than a batch is held in memory. Returns the array's shape. Raises FieldError for media that are no pictures,
    ValueError where there are more or fewer than ``count``.
    """
    shape: tuple[int, ...] = ()

    def write(file: IO[bytes]) -> None:
        nonlocal shape
        written = 0
        # As numpy's own savez: an uncompressed archive of one .npy file, which may be larger than 4 GB.
        with ZipFile(file, "w", ZIP_STORED) as archive, archive.open(f"{ARRAY}.npy", "w", force_zip64=True) as entry:
            for batch in batches:
                if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
                    found = f"{batch.dtype} {list(batch.shape)}"
                    raise FieldError("export-samples", "media", found, "no pictures", "Export a run of pictures.")
                if not written:
                    shape = (count, *batch.shape[1:])
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(cast(Any, entry), header)
                entry.write(np.ascontiguousarray(batch).tobytes())
                written += len(batch)
        if written != count:
            raise ValueError(f"{written} pictures instead of {count}")

    replace_file(path, write)
    return shape
