"""Records as a run makes them, with every field filled; what a test is about is passed by name."""

import hashlib
from typing import Any

from selfflow_bench.results.record import Record

KID, FRECHET = "kid/efficientnet-lite0-block10-112", "frechet/efficientnet-lite0-block10-112"
SAMPLES = 12_800
MARGINS = {"image-micro@1": {"since": "2026-01-01", "validation_loss": 0.01, "kid": 0.05, "frechet": 0.05}}


def seed_of(recipe_digest: str, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{recipe_digest}/{index}".encode()).digest()[:8], "big") >> 1


def record_content(
    label: str = "vanilla",
    seed: int = 0,
    *,
    loss: float = 0.55,
    kid: float | None = 0.31,
    recipe: str = "sana",
    version: int = 1,
    tier: str = "micro",
    status: str = "success",
    overrides: dict[str, Any] | None = None,
    run_id: str | None = None,
    created: str = "2026-01-02T03:04:05Z",
    **changes: Any,
) -> dict[str, Any]:
    """A record as parsed JSON. Keyword arguments beyond the named ones replace whole fields."""
    digest = hashlib.sha256(f"{recipe} {version} {tier}".encode()).hexdigest()
    aligned = label != "vanilla"
    whole = status == "success"
    facts = {
        "n": 512,
        "network": "efficientnet-lite0-block10-112",
        "weights_sha256": "57" * 32,
        "lower_is_better": True,
    }
    missing = {"value": None, "reason": "sampling failed"}
    shares = [1.6, 1.3, 1.1, 0.95, 0.85, 0.8, 0.75, 0.65]
    content: dict[str, Any] = {
        "schema_version": 1,
        "run_id": run_id or f"{recipe}-{tier}-{label}-s{seed}",
        "created": created,
        "status": status,
        "failure": None if whole else {"class": "out of memory", "message": "could not allocate 3 GB"},
        "recipe": {"name": recipe, "version": version, "digest": digest},
        "protocol": {"name": f"image-{tier}", "version": 1, "digest": "ab" * 32},
        "tier": tier,
        "method": {
            "name": label.partition(".")[0],
            "label": label,
            "settings": {"weight": 0.5, "mask_ratio": 0.25} if aligned else {},
        },
        "overrides": overrides or {},
        "seed": {"index": seed, "value": seed_of(digest, seed), "derivation": "sha256('<recipe digest>/<index>')"},
        "data": {"train": "12" * 32, "validation": "34" * 32},
        "code": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "versions": {"python": "3.11.9", "torch": "2.14.1", "diffusers": "0.42.1"},
        "hardware": {"cpu": "Example CPU @ 2.20GHz", "cores": 2, "threads": 2, "accelerator": None, "memory_gb": 8.0},
        "samples": SAMPLES if whole else 6400,
        "timing": {
            "train_s": (100.0 if aligned else 80.0) if whole else None,
            "wall_s": 130.0,
            "samples_per_s": SAMPLES / (100 if aligned else 80) if whole else None,
        },
        "cost": {"flops_per_sample": 4.88e9 if aligned else 4e9, "parameters": 1_800_000, "peak_memory_mb": 900.0},
        "metrics": {
            KID: ({"value": kid, "reason": None} if kid is not None else missing)
            | {"floor": 0.0011, "spread": 0.02, **facts},
            FRECHET: {"value": 20 * loss, "floor": 1.74, "rank_deficient": False, **facts},
        }
        if whole
        else {},
        "untrained": {KID: {"value": 5.2, "floor": 0.0011, **facts}} if whole else {},
        "validations": [
            {
                "samples": at,
                "loss": scale * loss,
                "per_timestep": [scale * loss * share for share in shares],
                "health": {"block": 4, "standard_deviation": 0.9, "effective_rank": 31.5},
            }
            for at, scale in ((0, 3.0), (6400, 1.4), (12800, 1.0))
            if at <= (SAMPLES if whole else 6400)
        ],
        "curve": [
            {
                "samples": at,
                "loss": loss * (1 + 3200 / at) + (0.4 if aligned else 0.0),
                "loss_generative": loss * (1 + 3200 / at),
                "grad_norm": 0.5,
                "seconds": at / 160,
                **({"loss_alignment": 0.9 - at / 20000, "alignment_score": 0.1 + at / 20000} if aligned else {}),
            }
            for at in range(640, (SAMPLES if whole else 6400) + 1, 640)
        ],
        "container": None,
    }
    for row in content["validations"]:
        row["loss"] = sum(row["per_timestep"]) / 8
    return content | changes


def record(*args: Any, **kwargs: Any) -> Record:
    return Record.model_validate(record_content(*args, **kwargs))
