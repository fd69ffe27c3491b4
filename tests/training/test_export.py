"""Averaged weights as files: the ordinary diffusers pipeline loads them, and generates what the averaged model does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, SanaPipeline, SanaTransformer2DModel
from safetensors import safe_open
from torch import Tensor

from selfflow_bench.cli import main
from selfflow_bench.errors import FieldError
from selfflow_bench.execution import write_spec
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.recipe import Lora
from selfflow_bench.training import checkpoint
from selfflow_bench.training.export import PROVENANCE, export_weights
from tests.conftest import Tiny
from tests.training.test_loop import run_steps, training

LORA = Lora(rank=2, alpha=6.0, targets=["to_q", "conv_inverted"])


@pytest.fixture(scope="module")
def published(tiny: Callable[[str], Tiny], tmp_path_factory: Any) -> Path:
    """A small Sana pipeline as diffusers writes it; its text comes encoded."""
    case, folder = tiny("sana"), tmp_path_factory.mktemp("sana")
    autoencoder = AutoencoderDC(
        latent_channels=case.latent_shape[0],
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(4, 8),
        decoder_block_out_channels=(4, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
    )
    pipeline = SanaPipeline(None, None, autoencoder, case.transformer, case.family.scheduler(3.0))
    pipeline.save_pretrained(folder)
    return folder


def opened(folder: Path, **parts: Any) -> SanaPipeline:
    return SanaPipeline.from_pretrained(folder, text_encoder=None, tokenizer=None, **parts)


def generated(pipeline: SanaPipeline) -> Tensor:
    source = torch.Generator().manual_seed(3)
    text, mask = torch.randn(1, 5, 384, generator=source), torch.ones(1, 5, dtype=torch.bool)
    pipeline.set_progress_bar_config(disable=True)
    images: Tensor = pipeline(
        prompt_embeds=text,
        prompt_attention_mask=mask,
        guidance_scale=1.0,
        num_inference_steps=3,
        height=32,
        width=32,
        generator=source,
        output_type="latent",
        use_resolution_binning=False,
    ).images
    return images


def test_a_whole_transformer_replaces_the_published_one(
    published: Path, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    case = tiny("sana")
    made = training(case, tmp_path / "run")
    run_steps(made, 3)
    made.save()
    state = checkpoint.load(tmp_path / "run", "key")
    assert state is not None
    out = export_weights(case.family, state["ema"], None, tmp_path / "weights", {"method": "self_flow"})
    assert json.loads((out / PROVENANCE).read_text()) == {"method": "self_flow"}
    with safe_open(out / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert set(file.keys()) == set(case.transformer.state_dict()), "neither projector nor teacher"
    ours = opened(published, transformer=made.ema.model)
    shutil.copytree(published, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "transformer")
    shutil.copytree(out / "transformer", tmp_path / "copy" / "transformer")
    theirs = opened(tmp_path / "copy")
    assert type(theirs.transformer) is SanaTransformer2DModel
    torch.testing.assert_close(generated(theirs), generated(ours), rtol=0, atol=1e-5)
    assert not torch.allclose(generated(theirs), generated(opened(published)), atol=1e-3)


def test_adapters_load_into_the_published_pipeline(
    published: Path, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    """With their own alpha, which is not the rank."""
    case = tiny("sana")
    made = training(case, tmp_path / "run", lora=LORA, settings={"learning_rate": 0.05})
    made.trainee.transformer.load_state_dict(_as_base(case, made.trainee.transformer), strict=False)
    run_steps(made, 4)
    made.save()
    state = checkpoint.load(tmp_path / "run", "key")
    assert state is not None
    out = export_weights(case.family, state["ema"], LORA, tmp_path / "weights", {})
    plain = generated(opened(published))
    theirs = opened(published)
    theirs.load_lora_weights(out)
    ours = opened(published)
    ours.transformer = made.ema.model
    adapted = generated(theirs)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    torch.testing.assert_close(generated(ours), adapted, rtol=0, atol=1e-5)


def _as_base(case: Tiny, transformer: torch.nn.Module) -> dict[str, Tensor]:
    """The published weights, by the names that they have under adapters."""
    plain = case.transformer.state_dict()
    return {name: plain[name.replace(".base_layer", "")] for name in transformer.state_dict() if "lora_" not in name}


def test_the_command_exports_a_run_of_this_machine(
    project: Places, tiny: Callable[[str], Tiny], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = make_plan(project, "sana", tier="smoke").runs[0]
    folder = tmp_path / "work" / "runs" / spec.folder_name
    folder.mkdir(parents=True)
    write_spec(spec, folder)
    arguments = ["--work", str(tmp_path / "work"), "export-weights", spec.name, str(tmp_path / "weights")]
    assert main(arguments) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err
    average = dict(tiny("sana").transformer.named_parameters())
    checkpoint.save(folder, {"ema": average, "progress": {"samples": 32}}, 32, spec.key)
    assert main(arguments) == 0
    assert "the average after 32 samples, unfinished" in capsys.readouterr().out
    loaded = SanaTransformer2DModel.from_pretrained(tmp_path / "weights" / "transformer")
    assert all(torch.equal(value, average[name]) for name, value in loaded.named_parameters())
    assert json.loads((tmp_path / "weights" / PROVENANCE).read_text())["method"] == "vanilla"
    assert main(arguments) == 2, "never over what is there"
    assert not list(tmp_path.glob(".weights*"))


def test_nothing_is_left_of_an_export_that_fails(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    average = dict(tiny("wan").transformer.named_parameters())
    average[next(iter(average))] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="size mismatch"):
        export_weights(tiny("wan").family, average, None, tmp_path / "weights", {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "weights").mkdir()
    with pytest.raises(FieldError, match="exists already"):
        export_weights(tiny("wan").family, average, None, tmp_path / "weights", {})
