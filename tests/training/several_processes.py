"""What one of several processes does in the tests: ``python -m tests.training.several_processes OUT CASE...``.

Trains each case in a folder of its own under OUT; the first process writes what came out, whole. A case is a name of
`CASES`; with ``:SAMPLES`` the second process kills itself there.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfflow_bench.evaluation.validation import ValidationTriples, validation_loss
from selfflow_bench.places import default_places
from selfflow_bench.recipe import Lora
from selfflow_bench.training.loop import Training
from selfflow_bench.training.processes import whole
from tests.conftest import Tiny, make_tiny
from tests.training.no_sync import Forbids
from tests.training.test_loop import training

LORA = Lora(rank=2, alpha=4.0, targets=["to_q", "to_out.0"])
CASES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp-lora": {"lora": LORA},
    "fsdp": {"settings": {"parallel": "fsdp"}},
    "fsdp-lora": {"settings": {"parallel": "fsdp"}, "lora": LORA},
    "fsdp-checkpointing": {"settings": {"parallel": "fsdp", "gradient_checkpointing": True}},
}


def trained(case: Tiny, folder: Path, name: str, die_at: int | None = None) -> Training:
    """A training, from its folder's checkpoint if there is one, to its end."""
    made = training(case, folder, **CASES[name])
    made.restore()
    triples = ValidationTriples(made.batches._latents, made.batches.conditions, count=16, batch=6)

    def validate(model: nn.Module) -> dict[str, Any]:
        loss = validation_loss(case.family, model, triples, made.processes)
        return {"loss": loss.whole, "per_timestep": list(loss.per_timestep), "distance": made.ema.distance()}

    def stop() -> bool:
        if made.processes.index == 1 and die_at is not None and made.progress.samples >= die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    made.run(
        stop=stop, on_log=lambda row: None, on_checkpoint=lambda samples: None, validate=validate, validate_every=16
    )
    return made


def outcome(case: Tiny, made: Training) -> dict[str, Any]:
    """What came of it: the average's weights, the curve, the validations, and what the whole model predicts."""
    ema: dict[str, Tensor] = whole(dict(made.ema.values))
    model, batch = made.evaluated(), case.batch()
    with torch.no_grad():
        # As often as the process has a number: forwards of a whole model need no other process.
        for _ in range(1 + made.processes.index):
            predicted = case.family.predict(model, batch.latents, batch.first, batch.conditions)
    return {
        "ema": ema,
        "rows": [{name: value for name, value in row.items() if name != "seconds"} for row in made.progress.rows],
        "validations": made.progress.validations,
        "predicted": predicted,
    }


def main(out: Path, cases: list[str]) -> None:
    """All cases, one after the other."""
    tiny = make_tiny(default_places(), "sana")
    for text in cases:
        name, _, die_at = text.partition(":")
        made = trained(tiny, out / name, name, int(die_at) if die_at else None)
        found = outcome(tiny, made)
        batch = tiny.batch(size=2, needs=made.method.needs)
        if made.processes.shards:  # DDP reads on the host which parameters were used
            with Forbids():
                made.update(batch, 1)
        if made.processes.is_first:
            torch.save(found, out / f"{name}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
