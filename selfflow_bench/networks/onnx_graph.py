"""A torch module run by ONNX Runtime, several times faster than eager torch on a CPU.

Exported once per (weights, module, library versions) into the caller's cache. Knows nothing of media or weights files.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from selfflow_bench.networks.array_cache import cached_array, content_key

_BATCH = 64


class OnnxGraph:
    """A network `[N, ...] -> [N, D]` in float32, run in batches of 64.

    `build` is called only when the cache has no graph for `identity` (weights hash and what was tapped) and the
    installed versions of torch and ONNX Runtime. `example` is `[...]`, one input without the batch axis.
    """

    def __init__(self, cache: Path, identity: str, build: Callable[[], torch.nn.Module], example: torch.Tensor) -> None:
        key = content_key(identity, torch.__version__, onnxruntime.__version__)
        graph = cached_array(cache, key, lambda: np.frombuffer(_export(build(), example), dtype=np.uint8))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Idle threads that spin take the cores from the training loop next to them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(graph.tobytes(), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, inputs: Callable[[int, int], NDArray[np.float32]], count: int) -> NDArray[np.float32]:
        """Features `[count, D]`; `inputs(start, stop)` prepares one batch `[stop - start, ...]`."""
        rows = [
            self._session.run(None, {self._input: inputs(start, min(start + _BATCH, count))})[0]
            for start in range(0, count, _BATCH)
        ]
        return np.concatenate(rows)


def _export(module: torch.nn.Module, example: torch.Tensor) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (example.expand(2, *example.shape),),
            input_names=["inputs"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content
