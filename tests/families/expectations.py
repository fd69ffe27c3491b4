"""What the tests know of a family apart from its adapter: an independent forward, its clock, its raw output.

One module a family in `tests/families/oracles`, each with an `EXPECTED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn


def attention_input(model: nn.Module) -> tuple[nn.Module, str]:
    """The module whose input has just been modulated for the first time, and that input's name."""
    return next(module for module in model.modules() if hasattr(module, "to_q")), "hidden_states"


@dataclass(frozen=True)
class Expectations:
    """Args:
    forward: ``(model, latents, time, conditions)`` with ``time`` ``[B, N]`` in the model's clock -> the prediction of
        the suite's target ``[B, C, *cells]``. One conditioning row for every target token, written out from the
        model's parts; context rows as their mean over the target tokens (`conditioning.ContextTime`).
    clock: sigma to the time that the class itself is called with.
    raw: ``(x0, noise)`` to what the class is trained to put out, in its own sign and layout, as ``[0]`` of its return.
    tolerance: float32, absolute, of the mixed forward and (relative to the largest) its gradients.
    float64_tolerance: the same in float64; larger only where the class computes in float32 whatever its weights,
        None where it cannot run in float64 at all.
    equal_tolerance: of equal levels against the plain call.
    time_dtype: type of the times in the float64 test: float32 unless the class takes its embedding's type from them.
    first_input: from the first block's ``(args, kwargs)``, the tokens ``[B, S, D]`` that enter it.
    modulated: the module whose input shows a target token's own modulation first, and the argument's name.
    target: of both inputs, the target tokens ``[B, N, D]`` among reference and text tokens.
    train: whether the tests of gradients need train() mode.
    waits: whether the class itself waits for the device in its forward.
    cells: latent cells of the tests, where the modality's own do not do.
    refuses_equal_lengths: whether text as long as the target is refused, with a clear error.
    time_argument: the keyword under which the class takes its time.
    """

    forward: Callable[[Any, Tensor, Tensor, Mapping[str, Tensor]], Tensor]
    clock: Callable[[Tensor], Tensor] = lambda sigma: 1000 * sigma
    raw: Callable[[Tensor, Tensor], Any] = lambda x0, noise: noise - x0
    tolerance: float = 1e-5
    float64_tolerance: float | None = 1e-10
    equal_tolerance: float = 1e-5
    time_dtype: torch.dtype = torch.float32
    first_input: Callable[[tuple[Any, ...], dict[str, Any]], Tensor] = lambda args, kwargs: (
        args[0] if args else kwargs["hidden_states"]
    )
    modulated: Callable[[nn.Module], tuple[nn.Module, str]] = attention_input
    target: Callable[[Tensor, int], Tensor] = lambda tokens, count: tokens[:, :count]
    train: bool = False
    waits: bool = False
    cells: tuple[int, ...] | None = None
    time_argument: str = "timestep"
    refuses_equal_lengths: bool = False


def expected(family: str) -> Expectations:
    """A family's expectations."""
    made: Expectations = import_module(f"tests.families.oracles.{family}").EXPECTED
    return made
