"""Moving averages, their schedules, and averages of layers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from av_ssl.modules.transformer import TransformerConfig, TransformerEncoder
from av_ssl.targets.ema import (
    EMATeacher,
    annealed_decay,
    averaged_targets,
    cosine_decay,
    instance_norm,
    without_teachers,
)

CFG = TransformerConfig(
    encoder_layers=1,
    encoder_embed_dim=16,
    encoder_ffn_embed_dim=16,
    encoder_attention_heads=2,
    layer_norm_first=True,
)


@pytest.fixture
def student():
    torch.manual_seed(0)
    return TransformerEncoder(CFG)


def teacher_of(student, copied=("pos_conv.",)) -> EMATeacher:
    return EMATeacher(student, lambda: TransformerEncoder(CFG), copied)


def shift(module: nn.Module, amount: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += amount


@pytest.mark.parametrize(
    ("update", "decay"), [(0, 0.999), (10_000, 0.9993), (20_000, 0.9996), (30_000, 0.9999), (99_999, 0.9999)]
)
def test_schedule(update, decay):
    assert annealed_decay(update, 0.999, 0.9999, 30_000) == pytest.approx(decay, abs=1e-9)


@pytest.mark.parametrize(
    ("update", "decay"),
    [(-1, 0.999), (0, 0.999), (25, 0.99914645), (50, 0.9995), (75, 0.99985355), (100, 1.0), (150, 1.0)],
)
def test_cosine_schedule(update, decay):
    assert cosine_decay(update, 0.999, 100) == pytest.approx(decay, abs=5e-9)


def test_cosine_of_no_updates_is_refused():
    with pytest.raises(ValueError, match="after 0 updates"):
        cosine_decay(0, 0.999, 0)
    assert cosine_decay(1, 0.999, 1) == 1


def test_fresh_teacher_is_a_copy_and_leaves_the_generator_alone(student):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    teacher = teacher_of(student)
    assert torch.equal(torch.rand(3), expected)
    for name, tensor in teacher.module.state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name]), name
    assert not teacher.module.training
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())


def test_zero_decay_gives_the_student(student):
    teacher = teacher_of(student)
    shift(student, 1.0)
    teacher.step(student, decay=0.0, updates=1)
    for name, tensor in teacher.module.state_dict().items():
        assert torch.allclose(tensor, student.state_dict()[name]), name


def test_average_and_copied_parts_change_once_an_update(student):
    teacher = teacher_of(student)
    before = student.layers[0].fc1.weight.detach().clone()
    shift(student, 1.0)
    for _ in range(4):  # micro-batches of one update
        teacher.step(student, decay=0.9, updates=1)
    assert torch.allclose(teacher.module.layers[0].fc1.weight, before + 0.1)
    assert torch.equal(teacher.module.pos_conv[0].weight_v, student.pos_conv[0].weight_v)


def test_half_precision_student_keeps_float_averages(student):
    student.to(torch.bfloat16)
    teacher = teacher_of(student)
    before = student.layers[0].fc1.weight.detach().float()
    shift(student, 0.5)
    for update in range(1, 11):  # each step is below bfloat16's resolution of numbers near 1
        teacher.step(student, decay=0.9999, updates=update)
    average = teacher.average["layers.0.fc1.weight"]
    assert average.dtype == torch.float32
    moved = (average - before).mean().item()
    assert moved == pytest.approx(0.5 * (1 - 0.9999**10), rel=0.02)
    assert teacher.module.layers[0].fc1.weight.dtype == torch.bfloat16


def test_state_round_trip(student):
    teacher = teacher_of(student)
    shift(student, 1.0)
    teacher.step(student, 0.9, 7)
    state = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    other = teacher_of(student)
    other.load_state_dict(state, student)
    assert other.updates == 7
    assert torch.equal(other.module.layers[0].fc1.weight, teacher.module.layers[0].fc1.weight)


def test_teachers_are_left_out_of_a_state():
    own, teachers = torch.zeros(1), torch.ones(1)
    assert without_teachers({"w": own, "_ema.w": teachers, "a._ema.w": own}) == {"w": own, "a._ema.w": own}


def test_state_of_another_scope_is_refused(student):
    state = teacher_of(student).state_dict()
    with pytest.raises(ValueError, match="ema_scope"):
        teacher_of(student, copied=()).load_state_dict(state, student)


# -- averages of layers --------------------------------------------------------------------------------------


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return [torch.randn(2, 30, 8) * 3 + 1 for _ in range(4)]


def test_equals_instance_norm_without_padding(layers):
    expected = sum(F.instance_norm(layer.transpose(1, 2)).transpose(1, 2) for layer in layers) / 4
    np.testing.assert_allclose(averaged_targets(layers, None), expected, atol=1e-5)


def test_padding_changes_nothing(layers):
    padding = torch.zeros(2, 50, dtype=torch.bool)
    padding[:, 30:] = True
    padded = [F.pad(layer, (0, 0, 0, 20), value=9.0) for layer in layers]
    np.testing.assert_allclose(
        averaged_targets(padded, padding)[:, :30], averaged_targets(layers, None), atol=1e-5
    )


def test_constant_channels_are_zero():
    """Their variance is 0; the small number under the root keeps them finite."""
    for padding in (None, torch.zeros(1, 5, dtype=torch.bool)):
        assert torch.equal(instance_norm(torch.full((1, 5, 2), 3.0), padding), torch.zeros(1, 5, 2))


def test_statistics_are_float32():
    assert instance_norm(torch.randn(1, 5, 2, dtype=torch.bfloat16), None).dtype == torch.float32


def test_layer_norm_of_the_mean(layers):
    y = averaged_targets(layers, None, normalize_sum=True)
    np.testing.assert_allclose(y, F.layer_norm(averaged_targets(layers, None), (8,)), atol=1e-6)


def test_nothing_to_average():
    with pytest.raises(ValueError, match="no layers"):
        averaged_targets([], None)


def test_a_new_training_from_a_checkpoint_moves_the_teacher_from_its_first_update(student):
    """fairseq restores the teacher, which counts its updates, and begins to count at 0 again."""
    teacher = teacher_of(student)
    shift(student, 1.0)
    teacher.step(student, 0.5, 5000)
    again = teacher_of(student)
    again.load_state_dict(teacher.state_dict(), student)
    name = next(iter(again.average))
    before = again.average[name].clone()
    shift(student, 1.0)
    again.step(student, 0.5, 0)
    torch.testing.assert_close(again.average[name], before)
    again.step(student, 0.5, 1)
    again.step(student, 0.5, 1)
    torch.testing.assert_close(again.average[name], (before + dict(student.named_parameters())[name]) / 2)
