"""A results folder with everything a report can hold, made of real records and real media files."""

from pathlib import Path

import numpy as np
from record_factory import record

from selfflow_bench.results.media import FIGURES, write_media
from selfflow_bench.results.record_files import invalidate, write
from selfflow_bench.results.report.files import Recipes
from selfflow_bench.results.report.overview import RecipeFacts

FACTS = (
    RecipeFacts("sana", "sana@1", "image", "Sana, small", "sana/v1.toml", ("micro",)),
    RecipeFacts("wan", "wan@1", "video", "Wan, small", "wan/v1.toml", ("micro",)),
    RecipeFacts("ace_step", "ace_step@1", "audio", "ACE-Step, small", "ace_step/v1.toml", ("micro",)),
    RecipeFacts("flux", "flux@1", "image", "not measured", "flux/v1.toml", ("micro",)),
)
CLAIMS = """
[[tables]]
paper = "A paper"
table = "Table 1"
source = "https://example.org/paper"
confidence = "primary"
dataset = "ImageNet-1k"
resolution = 256
task = "class-to-image"
guidance = "none"

[[tables.claims]]
id = "a-paper-self-flow"
model = "SiT-XL/2"
parameters_m = 675
method = "Self-Flow"
steps_k = 4000
metrics = { FID = 5.7, IS = 151.4 }
here = "self_flow"
run = { recipe = "sit", label = "self_flow.paper" }
status = "not run"
reason = "needs a GPU"
"""
MARGINS = {"image-micro@1": {"validation_loss": 0.01, "kid": 0.05, "frechet": 0.05}}
RNG = np.random.default_rng(0)


def recipes(results: Path) -> Recipes:
    """What the report is told of the recipes beside a results folder."""
    return Recipes(results.parent / "recipes", FACTS, MARGINS)


def make_results(root: Path) -> Path:
    """Three recipes: pictures, clips with sound, notes; failed, open, invalidated and damaged runs."""
    results = root / "results"
    for seed, (one, two) in enumerate(((0.55, 0.53), (0.56, 0.541), (0.545, 0.524))):
        for made in (
            record("vanilla", seed, loss=one, kid=0.30 + 0.01 * seed),
            record("self_flow", seed, loss=two, kid=0.31),
            record("self_flow.paper", seed, loss=one, kid=0.5),
            record("vanilla", seed, loss=one, recipe="ace_step"),
            record("self_flow", seed, loss=two, recipe="ace_step"),
        ):
            write(made, results)
    for made in (
        record("vanilla", 0, recipe="wan"),
        record("self_flow", 0, loss=0.5, recipe="wan", kid=None, alarms=["features collapsed: after 640 samples"]),
        record("self_flow", 3, status="failed", failure={"class": "<b>&hostile</b>", "message": "out of memory"}),
        record("self_flow", 4, overrides={"training.samples": 640}),
        record("self_flow", 5, tier="smoke"),
        record("vanilla", 5, run_id="sana-wrong"),
    ):
        write(made, results)
    invalidate("sana-wrong", "its data was another", "the card of the data", results)
    (results / "records" / "sana" / "micro" / "torn.json").write_text("{", encoding="utf-8")
    captions = [f"caption {index}" for index in range(6)]
    for label in ("vanilla", "self_flow"):
        pictures = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
        write_media(pictures, captions, results / FIGURES / "sana-micro", label, label)
        notes = RNG.integers(-9000, 9000, (6, 8000), dtype=np.int16)
        clips = np.zeros(6, [("video", np.uint8, (4, 16, 16, 3)), ("sound", np.int16, 8000)])
        clips["video"], clips["sound"] = RNG.integers(0, 256, (6, 4, 16, 16, 3)), notes
        write_media(clips, captions, results / FIGURES / "wan-micro", label, label)
        write_media(notes, captions, results / FIGURES / "ace_step-micro", label, label)
    (results / "claims.toml").write_text(CLAIMS, encoding="utf-8")
    (results / "cost.md").write_text("nothing counted\n", encoding="utf-8")
    for facts in FACTS:
        recipe = root / "recipes" / facts.path
        recipe.parent.mkdir(parents=True)
        recipe.write_text("", encoding="utf-8")
    return results
