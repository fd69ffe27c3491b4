"""Low-rank adapters (arXiv 2106.09685) on a transformer, by peft: the student's, and the teacher's beside it.

One base, two adapters: a layer adds what its active adapter makes of its input to what the base makes. So the teacher
costs no copy of the base, and seeing it no exchange of weights. Knows nothing of methods, data and the training loop.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from selfflow_bench.errors import FieldError
from selfflow_bench.precision import bfloat16_where, holds_bfloat16
from selfflow_bench.recipe import Lora
from selfflow_bench.training.ema import Ema

STUDENT, TEACHER = "student", "teacher"


def add_adapters(transformer: nn.Module, lora: Lora, where: str) -> None:
    """Freeze the transformer and give its targeted layers a student's and an equal teacher's adapter, in float32.

    A fresh adapter adds nothing, so that the transformer is still the base, bit for bit. Draws the student's first
    matrices from torch's global generator. Raises FieldError, with ``where`` to name, for a target that fits no layer.
    """
    for target in lora.targets:
        if not any(_is_target(name, target) for name, _ in transformer.named_modules()):
            layers = sorted({name.rpartition(".")[2] for name, module in transformer.named_modules() if _fits(module)})
            raise FieldError(
                where,
                "lora.targets",
                target,
                f"no layer of {type(transformer).__name__} is named so",
                f"Its linear layers and convolutions end in: {', '.join(layers)}.",
            )
    config = adapter_config(lora)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # two adapters are what is wanted
        for adapter in (STUDENT, TEACHER):
            try:
                inject_adapter_in_model(config, transformer, adapter)
            except ValueError as error:
                remedy = "Target linear layers and convolutions."
                raise FieldError(where, "lora.targets", lora.targets, str(error).splitlines()[0], remedy) from error
    for layer in _layers(transformer):
        layer.set_adapter(STUDENT)
    student = adapter_parameters(transformer, STUDENT)
    with torch.no_grad():
        for name, teacher in adapter_parameters(transformer, TEACHER).items():
            student[name].data = student[name].data.float()
            teacher.data = student[name].data.clone()


def adapter_config(lora: Lora) -> LoraConfig:
    """peft's configuration of such adapters."""
    alpha: Any = lora.alpha  # declared whole, used as a factor
    return LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=list(lora.targets))


def has_adapters(transformer: nn.Module) -> bool:
    """Whether `add_adapters` was called on the transformer."""
    return hasattr(transformer, "peft_config")


def adapter_parameters(transformer: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """An adapter's parameters; by names that are the same for every adapter."""
    found = {}
    for name, value in transformer.named_parameters():
        parts = name.split(".")
        if adapter in parts and any(part.startswith("lora_") for part in parts):
            found[".".join(part for part in parts if part != adapter)] = value
    return found


class AdapterView(nn.Module):
    """A transformer as one of its adapters makes it: the same modules, with that adapter active while a call lasts.

    However the call ends, the student's adapter is active again after it: what gradient checkpointing runs a second
    time in backward is the student. Whether it computes in training or evaluation mode is the view's own. Nothing
    waits for the device, and no parameter's ``requires_grad`` is touched. Where the base is in bfloat16, a call
    computes under autocast.
    """

    def __init__(self, transformer: nn.Module, adapter: str) -> None:
        super().__init__()
        # The very dictionaries of the transformer: whatever is found, or put, in one of the two is in the other.
        self._modules, self._parameters, self._buffers = (
            transformer._modules,
            transformer._parameters,
            transformer._buffers,
        )
        self.adapter = adapter
        self._viewed = (transformer,)  # in a tuple, because a module may not hold itself
        self._adapted = _layers(transformer)
        self._low_precision = holds_bfloat16(transformer)
        self.eval()

    def __getattr__(self, name: str) -> Any:
        """What else the transformer has, such as its configuration."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_viewed"][0], name)

    def train(self, mode: bool = True) -> AdapterView:
        """Choose the mode of the calls; the transformer's own stays as it is."""
        self.training = mode
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The transformer's forward with this view's adapter."""
        (transformer,) = self._viewed
        device = next(transformer.parameters()).device
        with self._active(transformer), bfloat16_where(self._low_precision, device):
            return transformer(*args, **kwargs)

    @contextmanager
    def _active(self, transformer: nn.Module) -> Iterator[None]:
        others = [module for module in transformer.modules() if module.training != self.training]
        # Not `set_adapter`: that would take the student's `requires_grad` away in the middle of its step.
        for layer in self._adapted:
            layer._active_adapter = [self.adapter]
        for module in others:
            module.training = self.training
        try:
            yield
        finally:
            for layer in self._adapted:
                layer._active_adapter = [STUDENT]
            for module in others:
                module.training = not self.training


def as_evaluated(transformer: nn.Module) -> nn.Module:
    """A starting transformer as its average is evaluated: through the teacher's adapter, if it has one."""
    return AdapterView(transformer, TEACHER) if has_adapters(transformer) else transformer


class AdapterEma(Ema):
    """The average of the student's adapter: the teacher's adapter on the same base."""

    def __init__(self, transformer: nn.Module, decay: float) -> None:
        student, teacher = (adapter_parameters(transformer, adapter) for adapter in (STUDENT, TEACHER))
        self._follow(AdapterView(transformer, TEACHER), teacher, student, decay)


def _layers(transformer: nn.Module) -> list[BaseTunerLayer]:
    return [module for module in transformer.modules() if isinstance(module, BaseTunerLayer)]


def _is_target(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _fits(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
