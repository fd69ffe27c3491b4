"""What a training step costs in FLOPs, counted on the meta device: no memory, no time, no weights.

`torch.utils.flop_counter.FlopCounterMode` counts a multiply-add as 2. Counted per step of a batch, forward and
backward of the student and the teacher's partial forward; the optimizer is not counted (it does not depend on the
batch).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from selfflow_bench.encoders import encoder_class
from selfflow_bench.families.base import Family
from selfflow_bench.hidden_states import output_of_block
from selfflow_bench.meta_values import MetaValues
from selfflow_bench.methods.base import NOTHING_MORE, Batch, Method, Needs, Sizes

Shape = Sequence[int]


@dataclass(frozen=True)
class StepCost:
    """FLOPs of one training step, per sample of its batch."""

    flops_per_sample: float
    forward_flops_per_sample: float
    """One plain forward F."""
    parameters: int


def meta_batch(
    latent_shape: Sequence[int],
    tokens: int,
    conditions: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    batch: int,
    needs: Needs = NOTHING_MORE,
    features: Sequence[int] = (),
) -> Batch:
    """A batch without data.

    ``conditions`` gives each one's shape behind the batch and type, ``features`` the shape of an encoder's.
    """
    meta = torch.device("meta")

    def conditioned() -> dict[str, Tensor]:
        return {
            name: torch.empty(batch, *shape, dtype=dtype, device=meta) for name, (shape, dtype) in conditions.items()
        }

    latents = torch.empty(batch, *latent_shape, device=meta)
    sigma = torch.empty(batch, device=meta)
    return Batch(
        latents=latents,
        noise=torch.empty_like(latents),
        first=sigma,
        second=torch.empty_like(sigma),
        mask_draw=torch.empty(batch, tokens, device=meta),
        conditions=conditioned(),
        unconditional=conditioned() if needs.unconditional else {},
        features=torch.empty(batch, *features, device=meta) if features else None,
        uniforms=torch.empty(batch, needs.uniforms, device=meta) if needs.uniforms else None,
        noises=torch.empty(batch, needs.noises, *latent_shape, device=meta) if needs.noises else None,
    )


def step_cost(
    family: Family,
    method: Method,
    batch: Batch,
    *,
    step: int,
    models: Callable[[], tuple[nn.Module, nn.Module]] | None = None,
) -> StepCost:
    """Count one training step of a method on a meta batch, at an optimizer step where its weight is in force.

    ``models`` makes the student and its teacher; by default two whole transformers. A frozen base has no gradients of
    its own, which makes a backward cheaper.
    """
    size = batch.latents.shape[0]
    with MetaValues() as values:
        batch = _with_known_masks(batch, values)
        with torch.device("meta"):
            student, average = (family.build(), family.build().requires_grad_(False)) if models is None else models()
            transformer, teacher = family.countable(student.train()), family.countable(average.eval())
            heads = method.heads(head_sizes(family, transformer, method, batch))
        forward = counted(lambda: _forward(family, teacher, batch))

        def forward_and_backward() -> None:
            method.step(transformer, heads, teacher, batch, step).loss.backward()  # type: ignore[no-untyped-call]

        whole = counted(forward_and_backward)
    parameters = sum(value.numel() for value in transformer.parameters())
    return StepCost(whole / size, forward / size, parameters)


def head_sizes(family: Family, transformer: nn.Module, method: Method, batch: Batch) -> Sizes:
    """What a method's heads are built to, read off a batch and, where it needs the hidden size, a forward."""
    needs = method.needs
    embedding = family.time_embedder(transformer) if needs.time_embedding else None
    return Sizes(
        hidden=family.hidden_size(transformer, batch.latents.shape[1:], batch.conditions) if needs.hidden_size else 0,
        features=() if batch.features is None else tuple(batch.features.shape[1:]),
        time_embedding=0 if embedding is None else _channels_made(embedding),
    )


def _channels_made(module: nn.Module) -> int:
    """Output channels of a module that ends in a linear layer."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1].out_features


def forward_flops(family: Family, batch: Batch, block: int) -> float:
    """FLOPs per sample of a plain forward that ends behind ``block`` (from 1): the least that a teacher costs."""
    with MetaValues() as values:
        batch = _with_known_masks(batch, values)
        with torch.device("meta"):
            transformer = family.countable(family.build().eval())
        last = family.blocks(transformer)[block - 1]
        flops = counted(lambda: output_of_block(last, lambda: _forward(family, transformer, batch)))
    return flops / batch.latents.shape[0]


def _forward(family: Family, model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return family.predict(model, batch.latents, batch.first, batch.conditions)


def _with_known_masks(batch: Batch, values: MetaValues) -> Batch:
    """Masks that hide nothing, their values known, because some models read them on the host."""

    def known(conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: values.give(torch.ones(value.shape, dtype=torch.bool)) if value.dtype == torch.bool else value
            for name, value in conditions.items()
        }

    return replace(batch, conditions=known(batch.conditions), unconditional=known(batch.unconditional))


def encoder_flops(name: str) -> float:
    """FLOPs of an external encoder's forward on one picture."""
    with torch.device("meta"):
        network, picture = encoder_class(name).countable()
    with torch.no_grad():
        return counted(lambda: network(picture))


def counted(work: Callable[[], object]) -> float:
    """FLOPs of some work."""
    with _counter() as counter:
        work()
    return float(counter.get_total_flops())


def matrix_products(work: Callable[[], object]) -> float:
    """FLOPs of the linear layers alone: products of two matrices, not of batches of them."""
    with _counter() as counter:
        work()
    found = counter.get_flop_counts()["Global"]
    return float(sum(flops for operation, flops in found.items() if str(operation) in ("aten.mm", "aten.addmm")))


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward})


def _convolution_backward(gradient: Shape, inputs: Shape, weight: Shape, *args: Any, **_: Any) -> int:
    """Each gradient of a convolution costs what its forward does.

    torch's own formula forgets the groups in the weight's gradient, which makes a depthwise convolution look as dear as
    a dense one (seen with torch 2.14: 16 forwards for a step of sana instead of 3).
    """
    transposed, mask = args[4], args[7]
    positions = inputs[2:] if transposed else gradient[2:]
    forward = 2 * int(gradient[0]) * math.prod(positions) * math.prod(weight)
    return forward * (int(mask[0]) + int(mask[1]))
