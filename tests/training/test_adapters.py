"""Low-rank adapters: one base, the student's adapter and the teacher's beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from selfflow_bench.cost import meta_batch, step_cost
from selfflow_bench.errors import FieldError, InterruptedRunError
from selfflow_bench.hidden_states import output_of_block
from selfflow_bench.methods.vanilla import Vanilla, VanillaSettings
from selfflow_bench.recipe import Lora
from selfflow_bench.training.adapters import (
    STUDENT,
    TEACHER,
    AdapterView,
    adapter_parameters,
    add_adapters,
    as_evaluated,
)
from selfflow_bench.training.loop import Training
from selfflow_bench.training.start import starting_transformer
from tests.conftest import Tiny
from tests.training.test_loop import assert_equal_runs, run, run_steps, training


def lora_of(case: Tiny) -> Lora:
    """Adapters for linear layers that the family's first block and its last have in common."""
    blocks = case.family.blocks(case.transformer)
    first, last = (
        {name for name, part in block.named_modules() if _is_linear(part)} for block in (blocks[0], blocks[-1])
    )
    others = [name for name, part in case.transformer.named_modules() if not _is_linear(part)]
    fit = [name for name in first & last or first if not any(f".{other}".endswith(f".{name}") for other in others)]
    return Lora(rank=2, alpha=4.0, targets=sorted(fit)[:3])


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear)


def bare(case: Tiny) -> nn.Module:
    """Frozen: which kernel multiplies two matrices can depend on whether gradients are wanted."""
    model = case.family.make()
    model.load_state_dict(case.transformer.state_dict())
    return model.requires_grad_(False)


def with_adapters(case: Tiny, model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    add_adapters(model, lora_of(case), "recipe tiny")
    case.family.attach(model)
    return model


def predicted(case: Tiny, model: nn.Module) -> Tensor:
    batch = case.batch()
    with torch.no_grad():
        return case.family.predict(model, batch.latents, batch.first, batch.conditions)


def test_student_teacher_and_base_begin_equal_bit_for_bit(family_name: str, tiny: Callable[[str], Tiny]) -> None:
    case = tiny(family_name)
    model = bare(case).eval()
    base = predicted(case, model)
    with_adapters(case, model)
    assert torch.equal(predicted(case, model), base)
    assert torch.equal(predicted(case, AdapterView(model, TEACHER)), base)


def test_only_adapters_are_trained_and_the_teacher_follows(
    family_name: str, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    """Two steps of Self-Flow: the base as it was, the teacher's adapter between its start and the student's."""
    case = tiny(family_name)
    made = training(case, tmp_path, lora=lora_of(case))
    before = {name: value.clone() for name, value in made.trainee.named_parameters()}
    student, teacher = (adapter_parameters(made.trainee.transformer, name) for name in (STUDENT, TEACHER))
    expected = {name: value.clone() for name, value in teacher.items()}
    assert student.keys() == teacher.keys()
    for _ in range(2):
        run_steps(made, 1)
        for name, value in expected.items():
            value.lerp_(student[name].detach(), 0.1)
    assert all(torch.equal(value, expected[name]) for name, value in teacher.items())
    trained = {id(value) for value in (*student.values(), *teacher.values(), *made.trainee.heads.parameters())}
    moved = {id(value) for name, value in made.trainee.named_parameters() if not torch.equal(value, before[name])}
    assert moved <= trained
    # Less what the loss does not reach: the text branch of a last block.
    assert len(moved) > 0.5 * len(trained)
    assert all(value.dtype == torch.float32 for value in trained_values(made))
    assert_student_is_active(made.trainee.transformer)


def trained_values(made: Training) -> list[Tensor]:
    return [value for value in made.trainee.parameters() if value.requires_grad]


def assert_student_is_active(model: nn.Module) -> None:
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    assert layers
    assert all(layer.active_adapters == [STUDENT] for layer in layers)
    for name, value in model.named_parameters():
        assert value.requires_grad == (STUDENT in name.split(".")), name


def test_a_starting_transformer_is_evaluated_as_the_base(tiny: Callable[[str], Tiny]) -> None:
    """In bfloat16 too, on latents in float32."""
    case = tiny("sana")
    start = starting_transformer(case.family, 0, where="recipe tiny", lora=lora_of(case), precision="bf16")
    model = as_evaluated(start).to("cpu").eval()
    assert predicted(case, model).isfinite().all()
    assert next(start.parameters()).dtype == torch.bfloat16
    assert start.training, "the view has a mode of its own"
    assert as_evaluated(case.transformer) is case.transformer


def test_the_teachers_adapter_is_active_in_its_calls_alone(tiny: Callable[[str], Tiny]) -> None:
    """In a whole call, in one that ends behind a block, and in one that fails: in the view's own mode, too."""
    case = tiny("sana")
    model = with_adapters(case, bare(case)).train()
    view = AdapterView(model, TEACHER)
    for value in adapter_parameters(model, TEACHER).values():
        value.data.normal_()
    seen: list[tuple[list[str], bool]] = []
    block = case.family.blocks(view)[1]
    layer = next(module for module in block.modules() if hasattr(module, "lora_A"))
    layer.register_forward_hook(lambda module, _args, _output: seen.append((module.active_adapters, module.training)))
    assert not torch.equal(predicted(case, view), predicted(case, model))
    early = output_of_block(block, lambda: predicted(case, view))
    assert seen == [([TEACHER], False), ([STUDENT], True), ([TEACHER], False)]
    with pytest.raises(TypeError):
        view(nonsense=1)
    assert all(module.training for module in model.modules())
    assert_student_is_active(model)
    # As a whole transformer of the teacher's adapter would have it.
    other = copy.deepcopy(model).eval().requires_grad_(False)
    for name, value in adapter_parameters(other, STUDENT).items():
        value.data = adapter_parameters(model, TEACHER)[name].data
    assert torch.equal(output_of_block(case.family.blocks(other)[1], lambda: predicted(case, other)), early)
    assert torch.equal(predicted(case, other), predicted(case, view))


@pytest.mark.parametrize("name", ["sana", "hidream", "wan", "ace_step"])
def test_an_interrupted_run_of_adapters_resumes_bit_equally(
    name: str, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    case = tiny(name)
    whole = training(case, tmp_path / "whole", lora=lora_of(case))
    run(whole)
    stopped = training(case, tmp_path / "cut", lora=lora_of(case))
    with pytest.raises(InterruptedRunError):
        run(stopped, 20)
    resumed = training(case, tmp_path / "cut", lora=lora_of(case))
    assert resumed.restore()
    run(resumed)
    assert_equal_runs(whole, resumed)


def test_a_checkpoint_holds_adapters_and_no_base(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    case = tiny("sana")
    made = training(case, tmp_path, lora=lora_of(case))
    made.save()
    (path,) = tmp_path.glob("checkpoint-*.pt")
    state = torch.load(path, weights_only=True)
    assert all(".student." in name or name.startswith("heads.") for name in state["trainee"])
    assert state["ema"].keys() == adapter_parameters(made.trainee.transformer, TEACHER).keys()
    assert sum(value.numel() for value in state["trainee"].values()) < sum(
        value.numel() for value in case.transformer.parameters()
    )


def test_a_target_that_fits_no_layer_is_refused_with_what_there_is(tiny: Callable[[str], Tiny]) -> None:
    model = tiny("sana").family.make()
    with pytest.raises(FieldError, match=r"lora.targets = 'to_p': no layer of SanaTransformer2DModel.*to_q"):
        add_adapters(model, Lora(rank=2, alpha=2.0, targets=["to_q", "to_p"]), "recipe sana@1")
    with pytest.raises(FieldError, match=r"lora.targets.*Target linear layers"):
        add_adapters(tiny("sana").family.make(), Lora(rank=2, alpha=2.0, targets=["attn1"]), "recipe sana@1")


@pytest.mark.parametrize("name", ["sana", "flux2", "wan", "ace_step", "hidream"])
def test_a_base_in_bfloat16_keeps_float32_adapters(name: str, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    case = tiny(name)
    made = training(case, tmp_path, lora=lora_of(case), settings={"precision": "bf16"})
    run(made)
    assert all(value.dtype == torch.float32 for value in (*trained_values(made), *made.ema.values.values()))
    frozen = [value for value in made.trainee.parameters() if not value.requires_grad and value.dtype != torch.float32]
    assert frozen
    assert all(value.dtype == torch.bfloat16 for value in frozen)
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in made.progress.rows)
    assert predicted(case, made.ema.model).isfinite().all(), "evaluated outside the trainer, in float32 latents"


def test_a_step_with_a_frozen_base_is_counted_without_its_gradients(tiny: Callable[[str], Tiny]) -> None:
    """Forward and the gradient of the inputs, and little more: about two thirds of a whole step."""
    case = tiny("sana")
    lora = Lora(rank=1, alpha=1.0, targets=["to_q"])
    batch = meta_batch(
        case.latent_shape, case.tokens, {"text": ((7, 384), torch.float32), "text_mask": ((7,), torch.bool)}, 2
    )
    method = Vanilla(VanillaSettings(), case.family, 1)

    def models() -> tuple[nn.Module, nn.Module]:
        transformer = starting_transformer(case.family, 0, where="", lora=lora)
        return transformer, as_evaluated(transformer)

    whole = step_cost(case.family, method, batch, step=0)
    adapters = step_cost(case.family, method, batch, step=0, models=models)
    assert adapters.forward_flops_per_sample == pytest.approx(whole.forward_flops_per_sample, rel=0.02)
    assert 0.55 < adapters.flops_per_sample / whole.flops_per_sample < 0.75
