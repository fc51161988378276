"""What fine-tuning takes from a pre-trained checkpoint, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf, open_dict

from av_ssl.checkpoints.files import CheckpointError, read_checkpoint
from av_ssl.methods.av2vec import AV2vecConfig, AV2vecModel
from av_ssl.methods.fused_encoder import AudioVisualEncoder
from av_ssl.methods.pretrained import load_pretrained
from av_ssl.optim import group_of
from av_ssl.recognition import encoder
from av_ssl.recognition.encoder import read_pretrained
from av_ssl.recognition.heads import CTCConfig, CTCModel, Seq2SeqConfig, Seq2SeqModel
from tests.methods.helpers import DECODER, TINY, build, config, source, tiny_av2vec


def test_student_weights_are_taken_and_nothing_else(checkpoint, dictionary):
    path, pretrained = checkpoint
    model = build(CTCModel, config(CTCConfig, path), dictionary)
    own = model.w2v_encoder.w2v_model.state_dict()
    for name, tensor in own.items():
        assert torch.equal(tensor, pretrained.state_dict()[name]), name
    assert not [name for name in own if name.startswith(("_ema", "mask_emb", "final_pred_proj"))]


def test_the_pretrained_file_is_read_once(checkpoint, dictionary, monkeypatch):
    read = []
    monkeypatch.setattr(encoder, "read_checkpoint", lambda path: read.append(path) or read_checkpoint(path))
    build(CTCModel, config(CTCConfig, checkpoint[0]), dictionary)
    assert read == [str(checkpoint[0])]


def test_av2vec_starts_from_another_encoder(checkpoint, tmp_path):
    path, pretrained = checkpoint
    cfg = OmegaConf.merge(OmegaConf.structured(AV2vecConfig()), {**TINY, "w2v_path": str(path)})
    torch.manual_seed(1)
    model = AV2vecModel.build_model(cfg, SimpleNamespace(for_training=True))
    own, stored = model.state_dict(), pretrained.state_dict()
    differing = {name for name, tensor in own.items() if not torch.equal(tensor, stored[name])}
    assert differing == {"mask_emb", "mask_emb_video", "final_pred_proj.weight", "final_pred_proj.bias"}
    path.unlink()
    AV2vecModel.build_model(cfg, SimpleNamespace(for_training=False))  # of a checkpoint
    with pytest.raises(CheckpointError, match=r"model\.w2v_path: .*there is no such file"):
        AV2vecModel.build_model(cfg, SimpleNamespace(for_training=True))


def test_from_scratch_takes_the_configuration_only(checkpoint, dictionary):
    path, pretrained = checkpoint
    model = build(CTCModel, config(CTCConfig, path, no_pretrained_weights=True), dictionary)
    own = model.w2v_encoder.w2v_model
    assert own.cfg.encoder_layers == 3
    assert not torch.equal(own.post_extract_proj.weight, pretrained.post_extract_proj.weight)


def test_regularisation_is_that_of_fine_tuning(checkpoint, dictionary):
    path, _ = checkpoint
    cfg = config(CTCConfig, path, dropout=0.3, layerdrop=0.2, feature_grad_mult=0.5)
    encoder = build(CTCModel, cfg, dictionary).w2v_encoder.w2v_model.cfg
    assert (encoder.dropout, encoder.encoder_layerdrop, encoder.feature_grad_mult) == (0.3, 0.2, 0.5)


def test_regularisation_that_the_encoder_lacks_is_refused(checkpoint, dictionary):
    with pytest.raises(ValueError, match=r"model\.drop_path=0\.1: .* has no drop_path"):
        build(CTCModel, config(CTCConfig, checkpoint[0], drop_path=0.1), dictionary)


@pytest.mark.parametrize("norm_first", [False, True])
def test_optimizer_learns_how_deep_a_parameter_lies(checkpoint, dictionary, norm_first):
    cfg = config(CTCConfig, checkpoint[0], no_pretrained_weights=True)
    read_pretrained(cfg)
    with open_dict(cfg):
        cfg.w2v_args.model.layer_norm_first = norm_first
    model = build(CTCModel, cfg, dictionary)
    depth = {name: group_of(parameter).depth for name, parameter in model.named_parameters()}
    encoder = "w2v_encoder.w2v_model."
    assert [depth[f"{encoder}encoder.layers.{layer}.fc1.weight"] for layer in range(3)] == [2, 1, 0]
    bottom = ("feature_extractor_video.proj.weight", "post_extract_proj.bias", "encoder.pos_conv.0.bias")
    assert {depth[encoder + name] for name in bottom} == {2}
    assert depth[encoder + "encoder.layer_norm.weight"] == (0 if norm_first else 2)
    assert depth["w2v_encoder.proj.weight"] is None


@pytest.mark.parametrize("train_mode", [False, True])
def test_frozen_encoder(checkpoint, dictionary, train_mode):
    path, _ = checkpoint
    cfg = config(
        CTCConfig, path, freeze_finetune_updates=2, frozen_train_mode=train_mode, feature_grad_mult=1.0
    )
    model = build(CTCModel, cfg, dictionary).train()
    batch_norm = model.w2v_encoder.w2v_model.feature_extractor_video.resnet.frontend3D[1]
    before = batch_norm.running_mean.clone()
    for update, learns in ((0, False), (1, False), (2, True)):
        model.set_num_updates(update)
        model.zero_grad()
        model(**source([12, 9], 12))["encoder_out"].square().mean().backward()
        weight = model.w2v_encoder.w2v_model.post_extract_proj.weight
        assert (weight.grad is not None) == learns
        assert model.w2v_encoder.proj.weight.grad is not None
        if not learns:
            assert torch.equal(batch_norm.running_mean, before) != train_mode
    assert not torch.equal(batch_norm.running_mean, before)


def test_padded_frames_can_only_be_blank(checkpoint, dictionary):
    path, _ = checkpoint
    model = build(CTCModel, config(CTCConfig, path), dictionary).eval()
    batch = source([12, 9], 12)
    probabilities = model.get_normalized_probs(model(**batch), log_probs=False)  # [T, B, V]
    assert torch.all(probabilities[9:, 1, 0] == 1)
    assert torch.all(probabilities[:9, 1, 0] < 1)


def test_seq2seq_history_decides_and_padding_does_not(checkpoint, dictionary):
    path, _ = checkpoint
    model = build(Seq2SeqModel, config(Seq2SeqConfig, path, **DECODER), dictionary).eval()
    short, long = source([12], 12), source([12], 20)
    history = torch.tensor([[2, 5, 6]])
    with torch.no_grad():
        logits = model(**short, prev_output_tokens=history)[0]
        long["source"]["audio"][..., :12] = short["source"]["audio"]
        long["source"]["video"][:, :, :12] = short["source"]["video"]
        assert torch.allclose(model(**long, prev_output_tokens=history)[0], logits, atol=1e-5)
        other = model(**short, prev_output_tokens=torch.tensor([[2, 5, 7]]))[0]
    assert torch.allclose(other[:, :2], logits[:, :2], atol=1e-6)
    assert not torch.allclose(other[:, 2], logits[:, 2], atol=1e-4)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"audio_encoder.weight": torch.zeros(1)}, r"start\.pt does not hold a fused audio-visual encoder"),
        (tiny_av2vec(encoder_embed_dim=32).state_dict(), "of another shape"),
    ],
)
def test_checkpoints_of_other_methods_and_sizes_are_refused(tensors, message):
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(AudioVisualEncoder(tiny_av2vec().cfg), "start.pt", tensors)


def test_settings_that_do_not_fit_the_checkpoint(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="normalize=False"):
        read_pretrained(config(CTCConfig, checkpoint[0], normalize=False))
    with pytest.raises(CheckpointError, match="w2v_path is not set"):
        read_pretrained(config(CTCConfig, ""))
    torch.save({"cfg": {"model": {"_name": "av_classifier"}, "task": {}}, "model": {}}, tmp_path / "spk.pt")
    with pytest.raises(CheckpointError, match=r"model\.w2v_path: .*spk\.pt holds a model av_classifier"):
        read_pretrained(config(CTCConfig, tmp_path / "spk.pt"))


@pytest.mark.parametrize(("stored", "given"), [({}, "waveform"), ({"audio_input": "waveform"}, "filterbank")])
def test_audio_input_must_be_that_of_pretraining(tmp_path, stored, given):
    path = tmp_path / "pretrained.pt"
    cfg = {"model": {"_name": "av2vec", **TINY}, "task": {"_name": "av_pretraining", **stored}}
    torch.save({"cfg": cfg, "model": {}}, path)
    own = OmegaConf.merge(OmegaConf.structured(CTCConfig()), {"w2v_path": str(path), "normalize": True})
    pretrained = stored.get("audio_input", "filterbank")
    with pytest.raises(CheckpointError, match=f"task.audio_input={given}, .* audio_input={pretrained}"):
        read_pretrained(own, given)
    read_pretrained(own, pretrained)
    assert own.w2v_args.model._name == "av2vec"
