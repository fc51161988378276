"""AV-HuBERT's model and criterion, against the numbers that its own code gives where they are available."""

import logging
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fairseq.logging import metrics
from omegaconf import OmegaConf

from av_ssl.checkpoints.files import read_checkpoint
from av_ssl.errors import DataError
from av_ssl.methods.av2vec import AV2vecCriterion, AV2vecCriterionConfig, AV2vecModel
from av_ssl.methods.av_hubert import AVHubertConfig, AVHubertCriterion, AVHubertCriterionConfig, AVHubertModel
from av_ssl.methods.masked_units import label_classes, masked_unit_losses
from tests.methods.helpers import TINY, source, tiny_av2vec

SMALL = {
    key: value for key, value in TINY.items() if key not in ("average_top_k_layers", "ema_anneal_end_step")
}
RECIPE = {
    "masking_type": "input", "selection_type": "same_seq", "mask_prob_audio": 0.8, "mask_prob_image": 0.3,
    "mask_length_image": 5, "final_dim": 8, "untie_final_proj": True, "layer_norm_first": True,
}  # fmt: skip
EQUAL = {"mask_prob_image": 0.8, "mask_length_image": 10}
"""Masks of video as of audio, for masks of fused features."""


def tiny(classes: list[int] | None = None, **overrides: Any) -> AVHubertModel:
    torch.manual_seed(0)
    cfg = OmegaConf.merge(OmegaConf.structured(AVHubertConfig()), {**SMALL, **RECIPE, **overrides})
    return AVHubertModel(cfg, classes or [24])


def sample(model: Any, lengths: list[int], classes: list[int], seed: int = 0) -> dict[str, Any]:
    """What the data pipeline gives."""
    frames = max(lengths)
    batch = source(lengths, frames, seed=seed)
    batch["masks"] = model.masking.draw(lengths, frames, np.random.default_rng(seed), training=False)
    generator = torch.Generator().manual_seed(seed)
    targets = [torch.randint(4, k, (len(lengths), frames), generator=generator) for k in classes]
    return {
        "net_input": batch,
        "target_list": [target.masked_fill(batch["padding_mask"], 1) for target in targets],
        "ntokens": sum(lengths),
        "nsentences": len(lengths),
    }


def criterion(**settings: Any) -> AVHubertCriterion:
    return AVHubertCriterion(AVHubertCriterionConfig(**{"loss_weights": [10.0], **settings}), task=None)


# -- the original's numbers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(shared_data):
    """The reference checkpoint's model, its batch with the masks that were drawn, and its numbers."""
    checkpoint = read_checkpoint(shared_data / "avhubert/tiny_pretrain.pt")
    known = OmegaConf.structured(AVHubertConfig())
    stored = {key: value for key, value in checkpoint.model_cfg.items() if key in known}
    cfg = OmegaConf.merge(known, stored, {"image_mean": 0.421, "image_std": 0.165})
    model = AVHubertModel(cfg, [len(checkpoint.tensors["label_embs_concat"])])
    model.load_state_dict(checkpoint.tensors, strict=True)
    with np.load(shared_data / "avhubert/tiny_pretrain.npz") as file:
        arrays = {key: file[key] for key in file}
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items() if array.dtype.kind in "fbi"}
    clips, frames = tensors["padding_mask"].shape
    every_frame = torch.arange(clips * frames)
    masked = (tensors["mask_audio"] | tensors["mask_video"]).flatten()
    real = ~tensors["padding_mask"].flatten()
    masks = {
        "audio": tensors["mask_audio"],
        "video": tensors["mask_video"],
        "video_source": every_frame.view(clips, frames),
        "zeroed": False,
        "loss_index": (masked & real).nonzero().squeeze(1),
        "rest_index": (~masked & real).nonzero().squeeze(1),
        "dropped": None,
    }
    batch = {
        "source": {"audio": tensors["audio"], "video": tensors["masked_video"]},
        "padding_mask": tensors["padding_mask"],
        "masks": masks,
        "frame_index": every_frame,  # the original's features of padding count in its penalty
    }
    sample = {"net_input": batch, "target_list": [tensors["target0"].long()], "ntokens": 1, "nsentences": 3}
    return model.eval(), sample, tensors, dict(zip(arrays["grad_names"], arrays["grad_norms"], strict=True))


@pytest.fixture(scope="module")
def step(original):
    """The model's output for that batch, and the loss and its sample size; gradients are in the model."""
    model, sample, *_ = original
    model.zero_grad()
    output = model(target_list=sample["target_list"], **sample["net_input"])
    loss, sample_size, _ = criterion()(lambda **unused: output, sample)
    loss.backward()
    return output, loss, sample_size


def test_masked_audio_equals_the_original(original):
    model, sample, tensors, _ = original
    batch = sample["net_input"]
    masked = model.masked_input(batch["source"], batch["masks"])
    np.testing.assert_allclose(masked["audio"].detach(), tensors["masked_audio"], atol=1e-6)


def test_logits_and_targets_equal_the_original(original, step):
    tensors, output = original[2], step[0]
    for part in "mu":
        assert torch.equal(output[f"target_{part}_list"][0], tensors[f"target_{part}_list0"])
        logits, expected = output[f"logit_{part}_list"][0].detach(), tensors[f"logit_{part}_list0"]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert output["features_pen"].item() == pytest.approx(tensors["features_pen"].item(), rel=1e-5)


def test_padding_in_the_penalty_is_a_setting(original):
    model, sample, tensors, _ = original
    real = {**sample["net_input"], "frame_index": (~tensors["padding_mask"]).flatten().nonzero().squeeze(1)}
    penalties = []
    for counted in (False, True):
        model.cfg.count_padding = counted
        with torch.no_grad():
            penalties.append(model(target_list=sample["target_list"], **real)["features_pen"].item())
    model.cfg.count_padding = False
    assert penalties == pytest.approx([0.27654, tensors["features_pen"].item()], rel=1e-4)


def test_loss_and_gradients_equal_the_original(original, step):
    model, _, tensors, norms = original
    _, loss, sample_size = step
    assert sample_size == tensors["sample_size"].item() == 138
    assert loss.item() == pytest.approx(tensors["loss"].item(), rel=1e-5)
    own = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert own.keys() == norms.keys()
    # The stored norms are float32 sums: they differ from ours in float64 by up to 1.4e-4, too.
    for name, norm in norms.items():
        assert own[name].norm().item() == pytest.approx(norm, rel=3e-4, abs=1e-4), name


# -- behaviour -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masking_type", ["input", "feature", "stream_feature"])
@pytest.mark.parametrize("fuse", ["concat", "add"])
def test_every_mode_trains(masking_type, fuse):
    equal = EQUAL if masking_type == "feature" else {}
    model = tiny([24, 14], masking_type=masking_type, modality_fuse=fuse, **equal)
    loss, size, log = criterion()(model, sample(model, [30, 24], [24, 14]))
    loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    assert size == log["count_m_0"] == log["count_m_1"]
    expected = log["loss_m_0"] + log["loss_m_1"] + log["loss_features_pen"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("masking_type", ["input", "feature"])
def test_bfloat16_step(masking_type):
    equal = EQUAL if masking_type == "feature" else {}
    model = tiny(masking_type=masking_type, **equal).to(torch.bfloat16)
    batch = sample(model, [30, 24], [24])
    batch["net_input"]["masks"]["dropped"] = "video"
    loss, _, log = criterion()(model, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert log["loss_m_0"].dtype == torch.float32


def test_one_projection_for_all_sets():
    model = tiny([24, 14], untie_final_proj=False)
    assert model.final_proj.weight.shape == (8, 16)
    assert [logits.shape for logits in model.cluster_logits(torch.randn(5, 16))] == [(5, 24), (5, 14)]


def test_cosine_is_the_stated_formula():
    """Each label set has its own part of projection and class vectors."""
    model = tiny([24, 14], logit_temp=0.2)
    x = torch.randn(5, 16)
    projected, vectors = model.final_proj(x).split(8, dim=1), model.label_embs_concat.split([24, 14])
    for found, y, v in zip(model.cluster_logits(x), projected, vectors, strict=True):
        expected = F.cosine_similarity(y[:, None], v[None], dim=-1) / 0.2
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    dot = tiny(sim_type="dot")
    expected = dot.final_proj(x) @ dot.label_embs_concat.t() / 0.1
    torch.testing.assert_close(dot.cluster_logits(x)[0], expected)


def test_glu_on_the_class_vectors():
    model = tiny(target_glu=True)
    vectors = F.glu(model.target_glu[0](model.label_embs_concat), dim=-1)
    x = torch.randn(3, 16)
    expected = F.cosine_similarity(model.final_proj(x)[:, None], vectors[None], dim=-1) / 0.1
    torch.testing.assert_close(model.cluster_logits(x)[0], expected, atol=1e-5, rtol=0)


def test_weights_of_masked_and_other_frames():
    model = tiny().eval()
    batch = sample(model, [30, 24], [24])
    losses = {}
    for masked, other in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        loss, size, log = criterion(loss_weights=None, pred_masked_weight=masked, pred_nomask_weight=other)(
            model, batch
        )
        losses[masked, other] = loss.item()
        assert size == log["count_m_0"] * (masked > 0) + log["count_u_0"] * (other > 0)
    assert losses[1.0, 1.0] == pytest.approx(losses[1.0, 0.0] + losses[0.0, 1.0], rel=1e-6)
    assert log["count_m_0"] + log["count_u_0"] == 54


@pytest.mark.parametrize(("dropped", "kept"), [(None, "av"), ("audio", "v"), ("video", "a")])
@pytest.mark.parametrize("padded", [False, True])
def test_the_penalty_is_the_mean_square_of_masked_features(dropped, kept, padded):
    """Over real frames unless padding counts; those of a dropped stream are zeros."""
    model = tiny(masking_type="stream_feature", count_padding=padded).eval()
    batch = sample(model, [30, 24], [24])
    net_input = batch["net_input"]
    net_input["masks"]["dropped"] = dropped
    frames = torch.arange(60) if padded else net_input["frame_index"]
    features, _ = model.student_features(
        net_input["source"], net_input["padding_mask"], net_input["masks"], frames
    )
    given = [x.flatten(0, 1)[frames] for stream, x in features._asdict().items() if stream[0] in kept]
    expected = 3 * sum(x.square().mean() for x in given).item() / 2
    _, size, log = criterion(loss_weights=[3.0])(model, batch)
    assert log["loss_features_pen"].item() / size == pytest.approx(expected, rel=1e-5)


def test_frames_without_weight_cost_no_backward_pass(monkeypatch):
    model = tiny()
    batch = sample(model, [30, 24], [24])
    monkeypatch.setattr(
        "av_ssl.methods.av_hubert.masked_unit_losses",
        lambda output: passed.append(masked_unit_losses(output)) or passed[-1],
    )
    for weight, passes in ((0.0, False), (1.0, True)):
        passed: list[dict[str, torch.Tensor]] = []
        loss, _, log = criterion(pred_nomask_weight=weight)(model, batch)
        seen = []
        passed[0]["u"].register_hook(seen.append)
        loss.backward()
        assert bool(seen) == passes
        assert log["count_u_0"] > 0
        assert log["loss_u_0"] > 0


def test_masks_of_a_single_clip_are_zeros():
    model = tiny().eval()
    batch = sample(model, [30], [24])["net_input"]
    masked = model.masked_input(batch["source"], batch["masks"])
    assert (masked["audio"].transpose(1, 2)[batch["masks"]["audio"]] == 0).all()
    assert (masked["video"][:, 0][batch["masks"]["video"]] == 107).all()


@pytest.mark.parametrize(("dropped", "passes"), [("video", 0), ("audio", 1), (None, 1)])
def test_dropped_video_does_not_reach_the_front_end(monkeypatch, dropped, passes):
    model = tiny()
    batch = sample(model, [30, 24], [24])
    batch["net_input"]["masks"]["dropped"] = dropped
    calls = []
    forward = model.feature_extractor_video.forward
    monkeypatch.setattr(
        model.feature_extractor_video, "forward", lambda *args: calls.append(1) or forward(*args)
    )
    loss, _, _ = criterion()(model, batch)
    loss.backward()
    assert len(calls) == passes
    assert (model.feature_extractor_video.proj.weight.grad is None) == (passes == 0)


def test_sub_encoders_have_their_own_layers():
    model = tiny(sub_encoder_layers=1).eval()
    names = model.state_dict().keys()
    for stream in ("audio", "video"):
        assert f"feature_extractor_{stream}.encoder.layers.0.fc1.weight" in names
        assert f"feature_extractor_{stream}.encoder.layers.1.fc1.weight" not in names
    batch = source([20], 20)
    plain = model.feature_extractor_audio.proj(batch["source"]["audio"].transpose(1, 2))
    expected = model.feature_extractor_audio.encoder(plain)
    features = model.front_ends(batch["source"], batch["padding_mask"])
    torch.testing.assert_close(features.audio, expected)


def test_logs_are_means_over_frames_and_losses_in_bits():
    loss, size, log = criterion(log_keys=["features_pen"])(tiny().eval(), sample(tiny(), [20, 14], [24]))
    with metrics.aggregate(new_root=True) as meters:
        AVHubertCriterion.reduce_metrics([log, log])
    values = meters.get_smoothed_values()
    assert values["loss"] == pytest.approx(loss.item() / size / math.log(2), abs=1e-3)
    assert values["loss_m_0"] == pytest.approx(log["loss_m_0"].item() / size / math.log(2), abs=1e-3)
    assert values["features_pen"] == pytest.approx(log["loss_features_pen"].item() / size / 10, abs=1e-3)


def test_features_as_callers_of_av_hubert_ask_for_them():
    model = tiny().eval()
    batch = source([20, 14], 20)
    given = {key: batch[key] for key in ("source", "padding_mask")}
    found = model(**given, features_only=True, mask=False)
    first = model(**given, features_only=True, mask=False, output_layer=1)
    for x, options in (
        (found["x"], {}), (found["features"], {"ret_conv": True}), (first["x"], {"output_layer": 1}),
    ):  # fmt: skip
        torch.testing.assert_close(x, model.extract_features(**given, **options)[0])
    assert not torch.allclose(model(**given, features_only=True)["x"], found["x"], atol=1e-3)
    with pytest.raises(ValueError, match="extract_finetune"):
        model({**batch["source"], "video": None}, None, features_only=True)
    with pytest.raises(ValueError, match="masks and frame_index"):
        model(**given)


def build(**overrides: Any) -> AVHubertModel:
    """As the task does, for training."""
    cfg = OmegaConf.merge(OmegaConf.structured(AVHubertConfig()), {**SMALL, **RECIPE, **overrides})
    return AVHubertModel.build_model(cfg, SimpleNamespace(dictionaries=[range(24)], for_training=True))


def test_what_is_not_supported_is_refused(caplog):
    with pytest.raises(ValueError, match="mask_channel_prob"):
        build(mask_channel_prob=0.1, masking_type="feature", **EQUAL)
    with caplog.at_level(logging.INFO):
        build(mask_channel_prob=0.1)
    assert "model.mask_channel_prob has no effect with masking_type=input" in caplog.text
    with pytest.raises(ValueError, match="resnet_weights"):
        build(resnet_weights="lrw.pth")
    with pytest.raises(ValueError, match=r"criterion\.loss_weights"):
        criterion(loss_weights=[10.0, 1.0])
    with pytest.raises(ValueError, match="both 0"):
        criterion(pred_masked_weight=0.0)
    with pytest.raises(ValueError, match=r"log_keys names \['accuracy'\]; the model gives"):
        criterion(log_keys=["accuracy"])(tiny(), sample(tiny(), [20, 20], [24]))
    with pytest.raises(ValueError, match=r"model\.sub_encoder_layers is not supported"):
        av2vec(sub_encoder_layers=1)
    with pytest.raises(DataError, match=r"task\.labels"):
        label_classes(None)


def test_learns_a_handful_of_clips():
    model = tiny(mask_prob_audio=0.3, modality_dropout=0.0, dropout=0.0, attention_dropout=0.0)
    batch = sample(model, [30, 30, 30, 30], [24])
    # Clusters that the clean audio gives away.
    batch["target_list"] = [(batch["net_input"]["source"]["audio"][:, 0] > 0).long() + 4]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, size, log = criterion(pred_nomask_weight=1.0)(model, batch)
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()
        losses.append(loss.item() / size)
    assert losses[-1] < 0.5 * losses[0]
    assert log["accuracy_u_0"] / log["count_u_0"] > 0.9


# -- AV2vec-MLM ----------------------------------------------------------------------------------------------


def av2vec(**overrides: Any) -> AV2vecModel:
    return tiny_av2vec([24], final_dim=8, **overrides)


def test_masked_units_alone_are_av_huberts_loss():
    other = av2vec(use_mlm=True, masking_type="input").eval()
    same = {key: other.cfg[key] for key in ("mask_prob_audio", "mask_prob_image", "mask_length_image")}
    model = tiny(**same).eval()
    shared = {key: value for key, value in other.state_dict().items() if key in model.state_dict()}
    model.load_state_dict(shared, strict=True)
    batch = sample(model, [30, 24], [24])
    expected, size, _ = criterion()(model, batch)
    loss, frames, _ = AV2vecCriterion(AV2vecCriterionConfig(regression_weight=0.0), task=None)(other, batch)
    assert frames == size
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_weightless_masked_units_change_no_gradient():
    gradients = []
    for settings, weight in (({"use_mlm": True}, 0.0), ({}, 1.0)):
        model = av2vec(**settings).eval()
        plain = av2vec().state_dict()
        model.load_state_dict({**model.state_dict(), **plain})
        batch = sample(model, [30, 24], [24])
        loss, size, _ = AV2vecCriterion(AV2vecCriterionConfig(pred_masked_weight=weight), task=None)(
            model, batch
        )
        (loss / size).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if name in plain})
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, msg=name)


def test_each_loss_is_a_mean_over_its_own_frames():
    model = av2vec(use_mlm=True).eval()
    batch = sample(model, [30, 24], [24])
    settings = AV2vecCriterionConfig(pred_masked_weight=0.5, pred_nomask_weight=0.25)
    loss, size, log = AV2vecCriterion(settings, task=None)(model, batch)
    means = {part: (log[f"loss_{part}_0"] / log[f"count_{part}_0"]).item() for part in "mu"}
    expected = (
        log["loss_regression"] / size + 0.5 * means["m"] + 0.25 * means["u"] + 10 * log["features_pen"] / size
    )
    assert (loss / size).item() == pytest.approx(expected.item(), rel=1e-5)
    assert log["count_m_0"] == size
    sums = {"m": torch.tensor([6.0, 2.0]), "u": torch.tensor([0.0])}  # two label sets
    parts = AV2vecCriterion(settings, task=None).masked_unit_loss(sums, {"m": 1, "u": 0})
    assert parts.item() == 0.5 * 8


def test_gradients_are_compared_in_the_first_updates():
    model = av2vec(use_mlm=True, dropout=0.0, encoder_layerdrop=0.0).train()
    batch = sample(model, [30, 24], [24])
    compare = AV2vecCriterion(AV2vecCriterionConfig(), task=None)
    _, frames, log = compare(model, batch)
    ratio = log["gradient_ratio"] / frames
    # Of a thousandth of the regression the ratio is a thousand times as large; it does not see the weights.
    settings = AV2vecCriterionConfig(
        loss_scale=0.001 / 16**0.5, regression_weight=9.0, pred_masked_weight=3.0
    )
    loss, _, log = AV2vecCriterion(settings, task=None)(model, batch)
    assert (log["gradient_ratio"] / frames / ratio).item() == pytest.approx(1000, rel=0.5)
    loss.backward()  # the graph is still there
    model.set_num_updates(1000)
    assert "gradient_ratio" not in compare(model, batch)[2]
    model.set_num_updates(0)
    assert "gradient_ratio" not in compare(model.eval(), batch)[2]


def test_without_regression_there_is_no_teacher():
    model = av2vec(use_mlm=True, use_regression=False)
    output = model(
        target_list=sample(model, [20], [24])["target_list"], **sample(model, [20], [24])["net_input"]
    )
    assert model.teacher is None
    assert "prediction" not in output
    with pytest.raises(ValueError, match=r"model\.use_regression and model\.use_mlm"):
        av2vec(use_regression=False)
