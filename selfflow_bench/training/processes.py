"""One training in several processes: replicas whose gradients are averaged (DDP), or parameters sharded too (FSDP2).

accelerate knows the processes and the device; sharding is torch's own `fully_shard`, because accelerate's wrapper of it
is for accelerators only and so could not be tested without one. Every process makes its own part of each batch, so
that the draws are those of one process. Every wait has a deadline. Knows nothing of methods, data and the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from selfflow_bench.errors import FieldError
from selfflow_bench.protocol import Parallel, TrainingSettings

WAIT_SECONDS = 600.0
"""How long a process waits for the others in a collective operation before it gives up."""


def check_shared(batch: int, count: int) -> None:
    """Raise FieldError for a batch of which ``count`` processes cannot have equal parts."""
    if batch % count:
        problem = f"cannot be shared equally by {count} processes"
        raise FieldError("protocol", "training.batch", batch, problem, f"Use a number of GPUs that divides {batch}.")


class Processes:
    """The processes of one training, this one among them."""

    def __init__(self, settings: TrainingSettings) -> None:
        """Join the others that the environment names (as torchrun does), or be alone. Raises FieldError."""
        wait = timedelta(seconds=WAIT_SECONDS)
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=wait),
                # No loss reaches the text branch of some models' last block, nor a method's heads while its weight is
                # 0. Finding them is the host's work, but DDP then waits for the device to know them everywhere.
                DistributedDataParallelKwargs(find_unused_parameters=True),
            ],
        )
        self.count: int = self.accelerator.num_processes
        self.index: int = self.accelerator.process_index
        self.device: torch.device = self.accelerator.device
        self._parallel: Parallel = settings.parallel
        check_shared(settings.batch, self.count)
        # Votes go over the host, whatever the gradients go over: so that they do not wait for the device.
        self._host: Any = distributed.new_group(backend="gloo", timeout=wait) if self.count > 1 else None

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes."""
        return self.index == 0

    @property
    def shards(self) -> bool:
        """Whether parameters are sharded."""
        return self.count > 1 and self._parallel == "fsdp"

    def share(self, samples: range) -> range:
        """This process's part of a batch."""
        part = len(samples) // self.count
        first = samples.start + part * self.index
        return range(first, first + part)

    def place(self, models: Iterable[tuple[nn.Module, Sequence[nn.Module]]]) -> None:
        """Put models on the device: whole, or sharded, each of the given blocks and what is left by itself.

        A forward that an exception ends early leaves a sharded model ready for the next.
        """
        if not self.shards:
            for model, _ in models:
                model.to(self.device)
            return
        mesh = init_device_mesh(self.device.type, (self.count,))
        for model, blocks in models:
            for block in blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
            model.register_forward_hook(_reset_if_ended_early, always_call=True)

    def wrap(self, trainee: nn.Module) -> nn.Module:
        """The trainee as it is to be called, so that the backward of its loss averages gradients over processes."""
        if self.shards:
            return trainee
        wrapped: nn.Module = self.accelerator.prepare(trainee)
        return wrapped

    def any(self, flag: bool) -> bool:
        """Whether any process says so. All must ask."""
        if self._host is None:
            return flag
        vote = torch.tensor([int(flag)])
        distributed.all_reduce(vote, distributed.ReduceOp.MAX, group=self._host)
        return bool(vote)

    def gathered(self, values: Tensor) -> Tensor:
        """One row for each process's values ``[n]``, on the host. All must ask; waits for the device."""
        mine = values.detach().cpu()
        if self._host is None:
            return mine[None]
        rows = [torch.empty_like(mine) for _ in range(self.count)]
        distributed.all_gather(rows, mine, group=self._host)
        return torch.stack(rows)

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, where they are. All must ask."""
        if self._host is None:
            return values
        return self.gathered(values).sum(0).to(values.device)


def whole(value: Any, *, keep: bool = True) -> Any:
    """A state, nested dicts and lists, with every sharded tensor whole and on the host. All processes must ask.

    Those that do not ``keep`` it get None for such a tensor, and so need room for one at a time.
    """
    if isinstance(value, Mapping):
        return {name: whole(part, keep=keep) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [whole(part, keep=keep) for part in value]
    if isinstance(value, Tensor):
        found = value.detach()
        if not isinstance(found, DTensor):
            return found
        made = found.full_tensor()
        return made.cpu() if keep else None
    return value


def as_held(saved: Tensor, held: Tensor) -> Tensor:
    """A whole tensor as this process holds another of its shape: sharded in the same way, or as it is."""
    if not isinstance(held, DTensor) or saved.shape != held.shape:
        return saved
    # Every process has the whole; none needs to be sent it.
    return distribute_tensor(saved.to(held.device), held.device_mesh, held.placements, src_data_rank=None)


def optimizer_as_held(saved: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """A whole optimizer state as this process holds it, for `load_state_dict`."""
    state = {
        index: {
            name: as_held(value, parameters[int(index)]) if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }
        for index, entries in saved["state"].items()
    }
    return {**saved, "state": state}


def keep_whole(model: nn.Module) -> None:
    """Gather every parameter of a sharded model and keep it: forwards need no other process then. All must ask."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()


def _reset_if_ended_early(module: nn.Module, _args: Any, output: Any) -> None:
    """A teacher's forward ends behind its block: what it gathered is let go, and the module forgets the call."""
    if output is None and isinstance(module, FSDPModule):
        module.reset_iter_state()
