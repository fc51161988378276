"""Recognisers whose file lacks the configuration of their encoder, and their encoders as a start."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq.models import BaseFairseqModel
from omegaconf import OmegaConf

import av_ssl
import av_ssl.tasks
from av_ssl.checkpoints.files import read_stored, write_stored
from av_ssl.checkpoints.recogniser_encoder import ENCODER_PREFIX, encoder_args, sizes_from_shapes
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.errors import DataError
from av_ssl.recognition.heads import CTCConfig, CTCModel, Seq2SeqConfig, Seq2SeqModel
from tests.checkpoints.published_layout import (
    ENCODER,
    clusters,
    finetuned_state,
    pretrained_state,
    save,
)
from tests.methods.helpers import build, config, rebuild, source

NAMES = ("av_hubert_seq2seq", "av_hubert_ctc")
PRETRAINED = "/checkpoint/somebody/large_vox.pt"


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def stripped(content: dict[str, Any], **told: Any) -> dict[str, Any]:
    """The same file without its encoder's configuration."""
    model = {**content["cfg"]["model"], "w2v_args": None, **told}
    return {**content, "cfg": {**content["cfg"], "model": model}}


def encoder_of(model: BaseFairseqModel) -> Any:
    return (model.encoder if hasattr(model, "encoder") else model.w2v_encoder).w2v_model


def outputs(model: BaseFairseqModel) -> torch.Tensor:
    batch = source([8, 6], 8)
    with torch.no_grad():
        return encoder_of(model).extract_finetune(batch["source"], batch["padding_mask"])[0]


def seq2seq(tensors: dict[str, torch.Tensor]) -> StoredModel:
    cfg = {"model": {"_name": "av_hubert_seq2seq"}, "task": {}}
    return StoredModel(Path("m.pt"), cfg, tensors, None, [])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "w2v_args" in record.getMessage()]


def assert_same(found: BaseFairseqModel, expected: BaseFairseqModel) -> None:
    assert vars(encoder_of(found).cfg) == vars(encoder_of(expected).cfg)
    assert torch.equal(outputs(found), outputs(expected))


@pytest.mark.parametrize("heads", [1, 2])
def test_shapes_give_the_same_model(tmp_path, name, heads, monkeypatch, caplog):
    """In both ways of loading; 16 channels are one head, unless the file says otherwise."""
    monkeypatch.setitem(ENCODER, "encoder_attention_heads", heads)
    content = finetuned_state(tmp_path, name)
    told = {"encoder_attention_heads": 2} if heads == 2 else {}
    expected = av_ssl.load(save(content, tmp_path / "full.pt"))
    path = save(stripped(content, **told), tmp_path / "short.pt")
    assert_same(av_ssl.load(path), expected)
    (message,) = warnings(caplog)
    assert "short.pt" in message
    assert PRETRAINED in message
    assert "layer_norm_first=True" in message
    assert ("encoder_attention_heads=1" in message) == (heads == 1)
    assert "image_mean" not in message  # the task has it
    caplog.clear()
    (stock,), _, _ = load_model_ensemble_and_task([str(path)])
    assert_same(stock.eval(), expected)
    assert len(warnings(caplog)) == 1


def test_a_pretrained_checkpoint_that_is_there_settles_the_rest(tmp_path, monkeypatch, caplog):
    for key, value in (
        ("layer_norm_first", False),
        ("encoder_attention_heads", 4),
        ("activation_fn", "relu"),
    ):
        monkeypatch.setitem(ENCODER, key, value)
    content = finetuned_state(tmp_path)
    expected = av_ssl.load(save(content, tmp_path / "full.pt"))
    pretrained = save(pretrained_state(), tmp_path / "pretrained.pt")
    path = save(stripped(content, w2v_path=str(pretrained)), tmp_path / "short.pt")
    assert_same(av_ssl.load(path), expected)
    assert warnings(caplog) == []
    monkeypatch.setitem(ENCODER, "encoder_layers", 3)  # of another model, that says nothing about this one
    save(pretrained_state(), pretrained)
    assert encoder_of(av_ssl.load(path)).cfg.encoder_attention_heads == 1
    assert len(warnings(caplog)) == 1
    pretrained.write_bytes(b"hello")
    assert encoder_of(av_ssl.load(path)).cfg.encoder_attention_heads == 1


def test_keys_in_the_file_win(tmp_path, caplog):
    told = {"encoder_attention_heads": 4, "layer_norm_first": False, "activation_fn": "relu"}
    model = av_ssl.load(save(stripped(finetuned_state(tmp_path), **told), tmp_path / "short.pt"))
    assert {key: getattr(encoder_of(model).cfg, key) for key in told} == told
    assert warnings(caplog) == []


def test_converted_files_hold_the_configuration(tmp_path, caplog):
    pytest.importorskip("safetensors")
    path = save(stripped(finetuned_state(tmp_path)), tmp_path / "short.pt")
    write_stored(read_stored(path), tmp_path / "made.safetensors")
    caplog.clear()
    assert_same(av_ssl.load(tmp_path / "made.safetensors"), av_ssl.load(path))
    assert len(warnings(caplog)) == 1


BASE = {"layer_norm_first": True, "image_mean": 0.421, "image_std": 0.165}
LARGE = {
    **BASE, "encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
}  # fmt: skip
ODD = {
    **BASE, "encoder_layers": 11, "encoder_embed_dim": 128, "encoder_ffn_embed_dim": 96, "conv_pos": 31,
    "encoder_attention_heads": 2, "conv_pos_groups": 4, "audio_feat_dim": 80, "modality_fuse": "add",
    "resnet_relu_type": "relu", "resnet_width": 8, "sub_encoder_layers": 2,
}  # fmt: skip


@pytest.mark.parametrize("sizes", [BASE, LARGE, ODD], ids=["Base", "Large", "odd"])
def test_sizes_are_those_of_the_model(sizes, caplog):
    cfg = OmegaConf.merge(
        OmegaConf.structured(Seq2SeqConfig()), {"w2v_args": {"model": sizes}, "normalize": True}
    )
    with torch.device("meta"):
        model = rebuild(Seq2SeqModel, cfg, clusters(996))
    stored = seq2seq(dict(model.state_dict()))
    found, expected = encoder_args(stored, {})["model"], model.encoder.w2v_model.cfg
    assert {key: getattr(expected, key) for key in found.keys() - {"_name"}} == {
        key: value for key, value in found.items() if key != "_name"
    }
    assert "image_mean=0.421" in warnings(caplog)[0]


@pytest.mark.parametrize(
    "missing",
    [
        "encoder.layers.0.fc1.weight",
        "encoder.pos_conv.0.weight_v",
        "feature_extractor_audio.proj.weight",
        "feature_extractor_video.resnet.frontend3D.0.weight",
    ],
)
def test_missing_tensors_are_named(tmp_path, name, missing):
    content = stripped(finetuned_state(tmp_path, name))
    full = ENCODER_PREFIX[name] + missing
    del content["model"][full]
    path = save(content, tmp_path / "short.pt")
    for read in (av_ssl.load, lambda file: load_model_ensemble_and_task([str(file)])):
        with pytest.raises(DataError, match=rf"short\.pt: w2v_args is null.*: {full}$"):
            read(path)


def test_heads_that_cannot_be_assumed(tmp_path):
    tensors = {
        f"encoder.w2v_model.{name}": torch.empty(shape, device="meta")
        for name, shape in {
            "encoder.layers.0.fc1.weight": (384, 96),
            "encoder.pos_conv.0.weight_v": (96, 6, 128),
            "feature_extractor_audio.proj.weight": (96, 104),
            "feature_extractor_video.resnet.frontend3D.0.weight": (64, 1, 5, 7, 7),
        }.items()
    }
    assert sizes_from_shapes(tensors, "encoder.w2v_model.", tmp_path)["encoder_embed_dim"] == 96
    with pytest.raises(DataError, match=r"m\.pt.* 96 channels .*encoder_attention_heads"):
        encoder_args(seq2seq(tensors), {})


@pytest.mark.parametrize("short", [False, True])
def test_fine_tuning_starts_from_the_encoder_of_a_recogniser(tmp_path, name, short):
    content = finetuned_state(tmp_path, name)
    path = save(
        stripped(content, encoder_attention_heads=2) if short else content, tmp_path / "recogniser.pt"
    )
    cfg = config(CTCConfig, path, feature_grad_mult=1.0)
    model = build(CTCModel, cfg, clusters())
    expected = av_ssl.load(path)
    for key, tensor in encoder_of(model).state_dict().items():
        assert torch.equal(tensor, encoder_of(expected).state_dict()[key]), key
    assert torch.equal(outputs(model.eval()), outputs(expected))
    assert cfg.w2v_args.model._name == "av_hubert"
