"""What RAVEn's pre-training promises: inputs, gradients, what a checkpoint holds."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from av_ssl.data.masking import UnimodalMasking
from av_ssl.data.spans import SpanMask
from av_ssl.methods.raven.pretraining import (
    BravenConfig,
    BravenCriterion,
    BravenModel,
    RavenConfig,
    RavenCriterion,
    RavenCriterionConfig,
    RavenModel,
    negative_cosine,
)
from av_ssl.optim import group_of
from tests.methods.helpers import source
from tests.methods.raven_layout import PREDICTORS, TINY

LENGTHS = [20, 14]
CALM = {"ema_anneal_end_step": 100, "dropout": 0.0, "attention_dropout": 0.0}


def tiny(model=RavenModel, structure=RavenConfig, **overrides):
    torch.manual_seed(0)
    values = {**TINY, **PREDICTORS, **CALM, **overrides}
    return model(OmegaConf.merge(OmegaConf.structured(structure()), values)).train()


def batch_for(model, lengths=LENGTHS, seed=0):
    """What the data pipeline gives: waveforms, video, a mask for each stream."""
    frames = max(lengths)
    net_input = source(lengths, frames, size=16, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    wave = torch.randint(-9000, 9000, (len(lengths), frames, 640), dtype=torch.int16, generator=generator)
    wave[net_input["padding_mask"]] = 0
    net_input["source"]["audio"] = wave.flatten(1)
    net_input["masks"] = model.masking.draw(lengths, frames, np.random.default_rng(seed))
    return net_input


def loss_of(model, batch, criterion=RavenCriterion, config=RavenCriterionConfig):
    return criterion(config(), task=None)(model, {"net_input": batch, "ntokens": 1, "nsentences": 1})


@pytest.fixture
def model():
    return tiny()


def teacher_output(model, stream, batch):
    return model.teacher_output(stream, batch["source"], batch["padding_mask"], batch["frame_index"])


def test_three_terms_and_a_fourth_on_demand(model):
    _, sample_size, log = loss_of(model, batch_for(model))
    assert sample_size == 1
    assert sorted(key for key in log if key.startswith("loss_")) == ["loss_aa", "loss_av", "loss_va"]
    terms = log["loss_va"] + log["loss_av"] + log["loss_aa"]
    assert torch.allclose(log["loss"], terms)
    symmetric = tiny(within_video=True)
    assert "loss_vv" in loss_of(symmetric, batch_for(symmetric))[2]
    assert "loss_aa" not in loss_of(tiny(within_audio=False), batch_for(model))[2]


def test_braven_weighs_audio_by_audio_twice():
    model = tiny(BravenModel, BravenConfig)
    assert len(model.predictors["va"].encoders) == 1
    assert len(model.predictors["aa"].encoders) == 2
    for criterion in (BravenCriterion, RavenCriterion):  # the model knows its weights
        log = loss_of(model, batch_for(model), criterion)[2]
        assert torch.allclose(log["loss"], log["loss_va"] + log["loss_av"] + 2 * log["loss_aa"])


@pytest.mark.parametrize(("kind", "structure"), [(RavenModel, RavenConfig), (BravenModel, BravenConfig)])
def test_weights_of_the_criterion_come_first(kind, structure):
    model = tiny(kind, structure)
    weights = RavenCriterionConfig(aa_weight=0.5, va_weight=0.0)
    log = loss_of(model, batch_for(model), config=lambda: weights)[2]
    assert torch.allclose(log["loss"], log["loss_av"] + 0.5 * log["loss_aa"])


def test_masks_are_those_of_the_configuration():
    masking = tiny(BravenModel, BravenConfig).masking
    assert masking == UnimodalMasking(
        audio=SpanMask(0.4, 3, min_spans=1, equal_counts=True),
        video=SpanMask(0.2, 3, min_spans=1, equal_counts=True),
    )
    assert tiny(mask_semantics="start_prob").masking.audio == SpanMask(
        0.2, 3, min_spans=1, equal_counts=False, semantics="start_prob"
    )


@pytest.mark.parametrize(("key", "within"), [("mask_prob_audio", "audio"), ("mask_prob_image", "video")])
def test_a_loss_on_masked_frames_needs_masks(key, within):
    with pytest.raises(ValueError, match=rf"model\.{key} is 0\.0.*within_{within}=false"):
        tiny(**{key: 0.0, f"within_{within}": True})
    tiny(**{key: 0.0, f"within_{within}": False})


def test_a_training_of_unknown_length_is_refused(model):
    cfg = OmegaConf.merge(model.cfg, {"ema_anneal_end_step": 0})
    with pytest.raises(ValueError, match=r"model\.ema_anneal_end_step is 0.*optimization\.max_update"):
        RavenModel.build_model(cfg, SimpleNamespace(for_training=True))
    RavenModel.build_model(cfg, SimpleNamespace(for_training=False))  # a checkpoint, to be used


def test_across_streams_all_real_frames_count_within_one_the_masked():
    model = tiny(within_video=True, mask_prob_audio=0.4)
    batch = batch_for(model)
    pairs = model(**batch)["pairs"]
    assert len(pairs["va"].target) == len(pairs["av"].target) == sum(LENGTHS)
    masked = {stream: int(batch["masks"][stream].sum()) for stream in ("video", "audio")}
    assert 0 < masked["video"] < masked["audio"] < sum(LENGTHS)
    assert (len(pairs["aa"].target), len(pairs["vv"].target)) == (masked["audio"], masked["video"])


def test_targets_are_of_the_other_or_the_own_teacher(model):
    batch = batch_for(model)
    pairs = model(**batch)["pairs"]
    index = batch["masks"]["audio_index"]
    frame_of = {int(frame): row for row, frame in enumerate(batch["frame_index"])}
    rows = [frame_of[int(frame)] for frame in index]
    assert torch.equal(pairs["aa"].target, pairs["va"].target[rows])  # both the audio teacher's
    assert not torch.allclose(pairs["aa"].target, pairs["av"].target[rows])


@pytest.mark.parametrize(
    ("where", "changed"), [("masked", {"loss_va", "loss_aa"}), ("unmasked", {"loss_va"}), ("padded", set())]
)
def test_which_losses_a_frame_of_the_audio_teacher_counts_in(model, where, changed):
    batch = batch_for(model)
    mask, padding = batch["masks"]["audio"], batch["padding_mask"]
    frames = {"masked": mask, "unmasked": ~mask & ~padding, "padded": padding}[where]
    outputs = {stream: torch.randn(2, max(LENGTHS), 16) for stream in ("video", "audio")}
    model.teacher_output = lambda stream, *unused: outputs[stream]
    before = loss_of(model, batch)[2]
    outputs["audio"] = outputs["audio"].clone()
    outputs["audio"][tuple(frames.nonzero()[0])] += 1
    after = loss_of(model, batch)[2]
    assert {key for key in ("loss_va", "loss_av", "loss_aa") if before[key] != after[key]} == changed


def test_teachers_get_no_mask(model):
    batch, other = batch_for(model), batch_for(model)
    other["masks"] = model.masking.draw(LENGTHS, max(LENGTHS), np.random.default_rng(7))
    assert not torch.equal(batch["masks"]["video"], other["masks"]["video"])
    first, second = model(**batch)["pairs"], model(**other)["pairs"]
    assert torch.equal(first["va"].target, second["va"].target)
    assert torch.equal(first["av"].target, second["av"].target)
    assert not torch.allclose(first["va"].prediction, second["va"].prediction)


def test_the_audio_teacher_gets_no_noise(model):
    batch = batch_for(model)
    clean = model(**batch)["pairs"]["va"].target
    noisy = copy.deepcopy(batch)
    noisy["source"]["audio_clean"] = noisy["source"]["audio"]
    noisy["source"]["audio"] = noisy["source"]["audio"].flip(1)
    assert torch.equal(model(**noisy)["pairs"]["va"].target, clean)


def test_students_get_nothing_of_masked_frames(model):
    batch = batch_for(model)
    changed = copy.deepcopy(batch)
    masks = batch["masks"]
    changed["source"]["video"][masks["video"][:, None]] = 255
    changed["source"]["audio"].view(2, -1, 640)[masks["audio"]] = 12345
    model.teacher_output = lambda stream, *unused: torch.zeros(2, max(LENGTHS), 16)  # teachers do get them
    for one, other in zip(model(**batch)["pairs"].values(), model(**changed)["pairs"].values(), strict=True):
        assert torch.equal(one.prediction, other.prediction)


@pytest.mark.parametrize(("stream", "changed"), [("video", {"va"}), ("audio", {"av", "aa"})])
@pytest.mark.parametrize("part", ["source", "masks"])
def test_predictions_are_of_the_named_student(model, stream, changed, part):
    """Neither input nor mask of the other stream reaches them."""
    batch, other = batch_for(model), batch_for(model, seed=1)
    before = model(**batch)["pairs"]
    batch[part][stream] = other[part][stream]
    after = model(**batch)["pairs"]
    assert changed == {
        name for name in before if not torch.equal(before[name].prediction, after[name].prediction)
    }


def test_no_gradient_reaches_teachers_and_every_student_weight_has_one(model):
    loss, _, _ = loss_of(model, batch_for(model))
    loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    for teacher in model.teachers.values():
        assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_target_passes_agree_and_depend_on_the_batch():
    model = tiny(dropout=0.5, attention_dropout=0.5, drop_path=0.5)
    batch = batch_for(model)
    first, again = (teacher_output(model, "video", batch) for _ in range(2))
    assert torch.equal(first, again)
    alone = batch_for(model)
    alone["source"]["video"][1] = 0
    other = teacher_output(model, "video", alone)
    assert not torch.allclose(first[0], other[0])  # batch norm


def test_teacher_drop_path_is_an_option():
    model = tiny(drop_path=0.5, teacher_drop_path=True)
    batch = batch_for(model)
    first, again = (teacher_output(model, "audio", batch) for _ in range(2))
    assert not torch.equal(first, again)


def test_teachers_start_as_copies_and_move_once_an_update(model):
    model(**batch_for(model))
    teacher = model.teachers["audio"]
    name = "embed.0.weight"
    student = dict(model.audio_student.named_parameters())[name]
    assert torch.equal(teacher.average[name], student)
    with torch.no_grad():
        student += 1
    for update, moved in ((1, 1e-3), (51, 5e-4)):  # 1 - m(0), 1 - m(50)
        distance = student - teacher.average[name]
        model.set_num_updates(update)
        model.set_num_updates(update)  # of a second micro-batch
        torch.testing.assert_close(student - teacher.average[name], (1 - moved) * distance, rtol=0, atol=2e-6)


def test_mean_of_blocks_is_normalised_over_time():
    model = tiny(BravenModel, BravenConfig)
    batch = batch_for(model)
    target = model.target(teacher_output(model, "audio", batch), batch["padding_mask"])
    for clip, length in zip(target, LENGTHS, strict=True):
        assert clip[:length].mean(0).abs().max() < 1e-4
        assert torch.allclose(clip[:length].std(0, correction=0), torch.ones(16), atol=0.02)


def test_mean_of_blocks_is_taken_before_the_final_norm():
    model = tiny(target="mean_blocks")
    batch = batch_for(model)
    target = teacher_output(model, "audio", batch)
    encoder = model.teachers["audio"].module
    outputs = []
    for block in encoder.encoders:
        block.register_forward_hook(lambda module, args, output: outputs.append(output))
    teacher_output(model, "audio", batch)
    assert torch.allclose(target, torch.stack(outputs).mean(0), atol=1e-6)


def test_gradients_are_clipped_by_student(model):
    groups = {name: group_of(parameter).clip for name, parameter in model.named_parameters()}
    assert groups["video_student.embed.0.weight"] == groups["predictors.va.last_linear.weight"] == "video"
    assert groups["audio_student.embed.0.weight"] == groups["predictors.av.last_linear.weight"] == "audio"
    assert set(groups.values()) == {"audio", "video"}


def test_batch_norms_are_synchronised_where_the_model_is_trained(model, monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    model(**batch_for(model))
    state = model.state_dict()
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in model.modules())  # it is on a CPU
    monkeypatch.setattr("av_ssl.modules.relative_transformer.on_gpu", lambda module: True)
    other = tiny()
    other.load_state_dict(state)
    other.synchronise()
    for net in (other, other.make_teacher("video").module):
        norms = [part for part in net.modules() if isinstance(part, _BatchNorm)]
        assert norms
        assert all(isinstance(part, nn.SyncBatchNorm) for part in norms)
    assert other.state_dict().keys() == state.keys()


def test_checkpoint_restores_students_and_teachers(model):
    model(**batch_for(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    model.set_num_updates(1)
    state = copy.deepcopy(model.state_dict())
    other = tiny()
    other.load_state_dict(state)
    assert other.teachers["video"].updates == 1
    batch = batch_for(model, seed=3)
    for one, two in zip(model(**batch)["pairs"].values(), other(**batch)["pairs"].values(), strict=True):
        assert torch.equal(one.prediction, two.prediction)
        assert torch.equal(one.target, two.target)
    lacking = {key: value for key, value in state.items() if not key.startswith("_ema.")}
    other.load_state_dict(lacking)
    assert other.teachers == {}
    del lacking["predictors.va.last_linear.weight"]
    with pytest.raises(RuntimeError, match=r"predictors\.va"):
        other.load_state_dict(lacking)
    other.load_state_dict(lacking, strict=False)


@pytest.mark.parametrize(("kind", "structure"), [(RavenModel, RavenConfig), (BravenModel, BravenConfig)])
def test_collapse_stops_training(kind, structure):
    """A constant with a little noise looks healthy once it has been normalised over time, as BRAVEn does."""
    model = tiny(kind, structure, collapse_check_start=50)
    generator = torch.Generator().manual_seed(0)

    def collapsed(*unused):
        return torch.ones(2, max(LENGTHS), 16) + 1e-3 * torch.randn(2, max(LENGTHS), 16, generator=generator)

    batch = batch_for(model)
    model.teacher_output = collapsed
    for update in range(50, 500, 50):
        model.set_num_updates(update)
        assert model(**batch)["monitors"]["video"].std < 0.01
    with pytest.raises(
        FloatingPointError, match=r"update 500: video_target_std is 0\.00.*model\.min_target_std"
    ):
        model.set_num_updates(500)


def test_overfits_four_clips():
    torch.manual_seed(0)
    model = tiny(encoder_embed_dim=32, encoder_ffn_embed_dim=64, ema_decay=0.99, ema_anneal_end_step=10**6)
    batch = batch_for(model, [8] * 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for update in range(36):
        model.set_num_updates(update)
        optimizer.zero_grad()
        loss, _, log = loss_of(model, batch)
        loss.backward()
        optimizer.step()
    assert max(log["loss_va"], log["loss_av"], log["loss_aa"]) < -0.6
    assert min(log["audio_target_std"], log["video_target_std"]) > 0.3


def test_bfloat16():
    model = tiny().bfloat16()
    loss, _, log = loss_of(model, batch_for(model))
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(log["loss"])
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
    assert any("trunk.layer4" in name for name in gradients)


def test_batch_norms_stay_in_float32():
    """Those of the ResNets, of the Transformers and of the teachers; nothing else does."""
    model, whole = tiny(), tiny()
    model.bfloat16()
    for net in (model, whole):
        net(**batch_for(net))
    for net in (model, *(teacher.module for teacher in model.teachers.values())):
        norms = {name for name, part in net.named_modules() if isinstance(part, _BatchNorm)}
        assert any(".bn1" in name for name in norms)
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point() and not name.startswith("_ema."):
                kept = name.rpartition(".")[0] in norms
                assert tensor.dtype == (torch.float32 if kept else torch.bfloat16), name
    for stem in ("video_student.frontend.frontend3D.1", "audio_student.frontend.trunk.bn1"):
        variance, expected = (net.get_submodule(stem).running_var for net in (model, whole))
        torch.testing.assert_close(variance, expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("stream", ["audio", "video"])
def test_both_streams_are_needed(model, stream):
    batch = batch_for(model)
    batch["source"][stream] = None
    with pytest.raises(ValueError, match=f"no {stream}"):
        model(**batch)


def test_cosine():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(negative_cosine(x, 3 * x), -torch.ones(5))
    assert torch.allclose(negative_cosine(x, -x), torch.ones(5))
    assert negative_cosine(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0


def test_predictors_have_no_layer_scale(model):
    scaled = {name.split(".")[0] for name, _ in model.named_parameters() if ".gamma_" in name}
    assert scaled == {"video_student", "audio_student"}


def test_one_clip_has_no_other_to_be_compared_with():
    model = tiny(collapse_check_start=0)
    model(**batch_for(model, [12]))
    counts = dict(zip(model.collapse_guard.bounds, model.collapse_guard.totals[:, 1].tolist(), strict=True))
    assert counts["video_target_std"] == 1
    assert counts["video_target_cosine_between_clips"] == 0
