"""What self-distillation promises: inputs, gradients, what a checkpoint holds."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from av_ssl.methods.av2vec import AV2vecCriterion, AV2vecCriterionConfig
from av_ssl.methods.fused_encoder import AudioVisualEncoder
from tests.methods.helpers import CALM, net_input, tiny_av2vec

LENGTHS = [30, 22]


def loss_of(model, batch):
    criterion = AV2vecCriterion(AV2vecCriterionConfig(), task=None)
    loss, sample_size, _ = criterion(model, {"net_input": batch, "ntokens": 1, "nsentences": 1})
    return loss / sample_size


def keep_both(batch):
    batch["masks"]["dropped"] = None
    return batch


@pytest.fixture
def model():
    return tiny_av2vec(**CALM).train()


def test_shares_tensors_with_the_plain_encoder(model):
    plain = AudioVisualEncoder(model.cfg)
    own = model.state_dict()
    for name, tensor in plain.state_dict().items():
        assert own[name].shape == tensor.shape, name
    extra = sorted(own.keys() - plain.state_dict().keys())
    assert extra == ["final_pred_proj.bias", "final_pred_proj.weight", "mask_emb", "mask_emb_video"]


@pytest.mark.parametrize("masking", ["stream_feature", "input", "feature"])
@pytest.mark.parametrize("scope", ["layers", "transformer", "full"])
def test_every_mode_trains(masking, scope):
    kwargs = {"mask_prob_image": 0.8, "mask_length_image": 10} if masking == "feature" else {}
    model = tiny_av2vec(masking_type=masking, ema_scope=scope, encoder_layerdrop=0.0, **kwargs).train()
    loss = loss_of(model, keep_both(net_input(model, LENGTHS)))
    loss.backward()
    assert torch.isfinite(loss)
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    averaged = {
        "layers": {"layers", "layer_norm"},
        "transformer": {"layers", "layer_norm", "pos_conv"},
        "full": {"feature_extractor_audio", "feature_extractor_video", "layer_norm", "post_extract_proj",
                 "encoder"},
    }  # fmt: skip
    assert {name.split(".")[0] for name in model.teacher.average} == averaged[scope]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"average_top_k_layers": 1, "target_type": "residual", "masking_type": "input"},
        {"instance_norm_target_layer": False, "layer_norm_targets": True, "ema_scope": "full"},
    ],
)
def test_target_is_the_mean_of_the_top_layers_for_the_clean_clip(options):
    """A new teacher is a copy of the student, whose layers are observed here."""
    model = tiny_av2vec(**options).eval()
    batch = keep_both(net_input(model, LENGTHS))
    clean = batch["source"] | {"audio": batch["source"]["audio"].flip(1)}
    batch["source"]["audio_clean"] = clean["audio"]
    found = model(**batch)
    seen = []
    for layer in model.encoder.layers[-model.cfg.average_top_k_layers :]:
        layer.register_forward_hook(lambda *call: seen.append(call[2][model.cfg.target_type == "ffn"]))
    model.extract_features(clean, batch["padding_mask"])
    rows = []
    for clip, frames in enumerate(LENGTHS):
        layers = [x[clip, :frames].T[None] for x in seen]
        normed = map(F.instance_norm, layers) if model.cfg.instance_norm_target_layer else layers
        mean = torch.cat(list(normed)).mean(0).T
        rows.append(F.layer_norm(mean, (16,)) if model.cfg.layer_norm_targets else mean)
    real = batch["frame_index"].tolist()
    target = torch.cat(rows)[[real.index(frame) for frame in batch["masks"]["loss_index"]]]
    torch.testing.assert_close(found["target"], target, rtol=1e-4, atol=1e-4)
    for name, x in (("target_var", target), ("pred_var", found["prediction"])):
        assert found[name].item() == pytest.approx(x.std(0, correction=0).mean().item(), abs=1e-3)


def test_target_does_not_depend_on_the_students_input(model):
    batch = keep_both(net_input(model, LENGTHS))
    other = keep_both(net_input(model, LENGTHS))
    other["masks"] = {**model.masking.draw(LENGTHS, 30, np.random.default_rng(9)), "dropped": "video"}
    index = batch["masks"]["loss_index"]
    other["masks"]["loss_index"] = index
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    torch.manual_seed(1)
    first = model(**batch)["target"]
    torch.manual_seed(2)
    output = model(**other)
    assert torch.equal(output["target"], first)
    torch.manual_seed(3)
    assert not torch.equal(model(**other)["prediction"], output["prediction"])  # dropout does act


def test_no_gradient_reaches_the_teacher(model):
    output = model(**keep_both(net_input(model, LENGTHS)))
    assert not output["target"].requires_grad
    output["prediction"].sum().backward()
    assert all(p.grad is None for p in model.teacher.module.parameters())
    assert model.encoder.layers[0].fc1.weight.grad is not None


def test_front_end_runs_once(model, monkeypatch):
    calls = []
    trunk = model.feature_extractor_video.resnet.trunk
    forward = trunk.forward
    monkeypatch.setattr(trunk, "forward", lambda x: calls.append(len(x)) or forward(x))
    model(**keep_both(net_input(model, LENGTHS)))
    assert calls == [sum(LENGTHS)]


def test_noise_is_for_the_student_only(model):
    batch = keep_both(net_input(model, LENGTHS))
    clean = model(**batch)["target"]
    noisy = copy.deepcopy(batch)
    noisy["source"]["audio_clean"] = batch["source"]["audio"]
    noisy["source"]["audio"] = batch["source"]["audio"] + 3.0
    assert torch.allclose(model(**noisy)["target"], clean, atol=1e-6)
    assert not torch.allclose(model(**noisy)["prediction"], model(**batch)["prediction"], atol=1e-3)


@pytest.mark.parametrize(("seen", "blind"), [("a", "video"), ("v", "audio")])
def test_teacher_modalities(seen, blind):
    model = tiny_av2vec(teacher_modalities=seen).eval()
    batch = keep_both(net_input(model, LENGTHS))
    before = model(**batch)["target"]
    batch["source"][blind] = torch.zeros_like(batch["source"][blind])
    assert torch.allclose(model(**batch)["target"], before, atol=1e-6)


def test_frames_in_the_loss_do_not_depend_on_padding(model):
    short, long = net_input(model, LENGTHS, 30), net_input(model, LENGTHS, 45)
    assert len(short["masks"]["loss_index"]) == len(long["masks"]["loss_index"])
    real = (~long["padding_mask"]).flatten()
    assert real[long["masks"]["loss_index"]].all()


def test_gradient_scale_of_the_front_ends():
    gradients = []
    for scale in (1.0, 0.1):
        model = tiny_av2vec(feature_grad_mult=scale, **CALM).train()
        model(**keep_both(net_input(model, LENGTHS)))["prediction"].square().sum().backward()
        gradients.append(model.feature_extractor_video.proj.weight.grad)
    np.testing.assert_allclose(gradients[1], 0.1 * gradients[0], rtol=1e-3, atol=1e-7)


def test_teacher_moves_once_an_update(model):
    batch = keep_both(net_input(model, LENGTHS))
    model(**batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    before = model.teacher.average["layers.0.fc1.weight"].clone()
    for _ in range(4):
        model.set_num_updates(1)
    moved = model.teacher.average["layers.0.fc1.weight"] - before
    # One step with tau(1) = 0.999 + 0.0009 * 1/10.
    np.testing.assert_allclose(moved, 0.1 * (1 - 0.99909), rtol=1e-2)


def test_checkpoint_restores_the_teacher(model):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for update in range(3):
        model.set_num_updates(update)
        optimizer.zero_grad()
        loss_of(model, keep_both(net_input(model, LENGTHS, seed=update))).backward()
        optimizer.step()
    state = copy.deepcopy(model.state_dict())
    resumed = tiny_av2vec(**CALM).train()
    resumed.set_num_updates(3)
    resumed.load_state_dict(state)
    batch = keep_both(net_input(model, LENGTHS, seed=7))
    losses = []
    for net in (model, resumed):
        net.set_num_updates(3)
        losses.append(loss_of(net, batch).item())
    assert losses[0] == losses[1]


def test_checkpoint_without_teacher_starts_it_afresh(model, caplog):
    plain = AudioVisualEncoder(model.cfg)
    with caplog.at_level("INFO"):
        model.load_state_dict({**model.state_dict(), **plain.state_dict()})
    assert "holds no teacher" in caplog.text
    model(**keep_both(net_input(model, LENGTHS)))
    assert torch.equal(model.teacher.module.layers[0].fc1.weight, plain.encoder.layers[0].fc1.weight)
    with pytest.raises(RuntimeError, match="final_pred_proj"):
        model.load_state_dict(plain.state_dict())
    model.load_state_dict(plain.state_dict(), strict=False)


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("pred_var", {"min_pred_std": 1e9}),
        ("target_std", {"min_target_std": 1e9}),
        ("target_rank", {"min_target_rank": 1e9}),
    ],
)
def test_collapse_stops_training(name, bound):
    bounds = {"min_pred_std": 0.0, "min_target_std": 0.0, "min_target_rank": 0.0, **bound}
    model = tiny_av2vec(**bounds, collapse_check_start=0).train()
    batch = keep_both(net_input(model, LENGTHS))
    model.set_num_updates(99)
    model.eval()
    model(**batch)  # validation does not count
    model.set_num_updates(100)
    model.train()
    model(**batch)
    with pytest.raises(FloatingPointError, match=rf"at update 200: {name} is .*decorrelation_weight"):
        model.set_num_updates(200)


def test_channels_that_all_carry_one_signal_show_in_the_rank_before_the_norm(model):
    """After the instance norm such targets look healthy."""
    batch = keep_both(net_input(model, LENGTHS))
    healthy = model(**batch)
    channels = model.cfg.encoder_embed_dim
    with torch.no_grad():
        for layer in model.teacher.module.layers:
            direction = torch.linspace(-1, 1, channels)[:, None]
            layer.fc2.weight.copy_(direction @ layer.fc2.weight[:1])
            layer.fc2.bias.zero_()
    collapsed = model(**batch)
    assert collapsed["target_rank"] < 1.01 < 2 < healthy["target_rank"]
    assert collapsed["target_var"] > 0.9 * healthy["target_var"]


def test_too_many_target_layers():
    with pytest.raises(ValueError, match="average_top_k_layers is 9"):
        tiny_av2vec(average_top_k_layers=9)


def test_bfloat16_step(model):
    model.to(torch.bfloat16)
    loss = loss_of(model, keep_both(net_input(model, LENGTHS)))
    loss.backward()
    assert torch.isfinite(loss)
    assert model.teacher.average["layers.0.fc1.weight"].dtype == torch.float32


@pytest.mark.slow
def test_learns_a_handful_of_clips():
    schedule = {"ema_decay": 0.99, "ema_end_decay": 0.999, "ema_anneal_end_step": 300}
    model = tiny_av2vec(**schedule, **CALM, feature_grad_mult=1.0, modality_dropout=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses, spreads = [], []
    for update in range(240):
        model.set_num_updates(update)
        output = model(**net_input(model, [12] * 6, seed=update % 4))
        loss = (output["prediction"] - output["target"]).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        spreads.append(output["target_var"].item())
    # Rounding decides the path; one ended at 0.25.
    assert np.mean(losses[-20:]) < 0.5 * losses[0]
    assert min(spreads) > 0.1


def test_dropped_video_costs_no_backward_pass(model):
    batch = net_input(model, LENGTHS)
    batch["masks"]["dropped"] = "video"
    loss_of(model, batch).backward()
    assert model.feature_extractor_video.proj.weight.grad is None
    assert model.feature_extractor_audio.proj.weight.grad.abs().sum() > 0
