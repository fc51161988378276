"""Files that are refused, run nothing, and are named."""

import argparse
import contextlib
import logging
from pathlib import Path

import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from omegaconf import OmegaConf

import av_ssl
import av_ssl.tasks
from av_ssl.checkpoints.files import read_stored
from av_ssl.errors import DataError
from tests.checkpoints.published_layout import (
    finetuned_state,
    pretrained_model,
    pretrained_state,
    save,
)


def web_page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html>\n<html><body>Please log in</body></html>\n")


def cut(path: Path, zipped: bool = True) -> None:
    torch.save(pretrained_state(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-2000])


def no_utf8(path: Path) -> None:
    torch.save(pretrained_state(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"label_embs", b"label\xff\xfeembs"[:10]))


def other_method(path: Path) -> None:
    cfg = {"model": {"_name": "wav2vec2"}, "task": {"_name": "audio_pretraining"}}
    torch.save({"cfg": cfg, "model": {"mask_emb": torch.zeros(3)}}, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is no checkpoint"),
        (lambda path: path.touch(), "is cut off"),
        (lambda path: path.write_bytes(b"hello world"), "is no checkpoint"),
        (web_page, "is a web page, not a checkpoint"),
        (cut, "is cut off or damaged"),
        (lambda path: cut(path, zipped=False), "is no checkpoint, or is cut off"),
        (no_utf8, "is no checkpoint, or is cut off"),
        (
            lambda path: torch.save({"weight": torch.zeros(1)}, path),
            r"no fairseq checkpoint .*\(it holds weight\)",
        ),
        (lambda path: torch.save(torch.zeros(1), path), r"no fairseq checkpoint .*\(it holds Tensor\)"),
        (lambda path: torch.save({"cfg": {"task": {}}, "model": {}}, path), "no section 'model'"),
        (other_method, "holds a model 'wav2vec2'; those that can be loaded are .*av_hubert"),
    ],
)
def test_other_files_are_named(tmp_path, make, message):
    path = tmp_path / "file.pt"
    make(path)
    with pytest.raises(DataError, match=rf"file\.pt.*{message}"):
        av_ssl.load(path)


def test_damaged_settings_do_not_hang(tmp_path):
    """Methods of omegaconf's that lack an attribute call each other without end."""
    content = pretrained_state()
    content["cfg"]["model"] = OmegaConf.create({"encoder_layers": 2})
    torch.save(content, tmp_path / "odd.pt", _use_new_zipfile_serialization=False)
    sound = (tmp_path / "odd.pt").read_bytes()
    (tmp_path / "odd.pt").write_bytes(sound.replace(b"_metadata", b"Dmetadata"))
    with pytest.raises(DataError, match=r"odd\.pt holds a model None"):
        av_ssl.load(tmp_path / "odd.pt")


def test_whatever_torch_raises_is_a_data_error(tmp_path):
    """One byte of a file is changed at a time, all over it."""
    path, state = tmp_path / "odd.pt", {"cfg": {"model": {}, "task": {}}, "model": {"a": torch.zeros(2)}}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    sound = path.read_bytes()
    for place in range(0, len(sound), 3):
        path.write_bytes(sound[:place] + (b"\0", b"\xff")[place % 2] + sound[place + 1 :])
        with contextlib.suppress(DataError):
            read_stored(path)


def test_a_missing_tensor_of_the_encoder_is_an_error(tmp_path):
    content = pretrained_state()
    del content["model"]["encoder.layers.1.fc1.weight"]
    content["model"]["encoder.layers.2.fc1.weight"] = torch.zeros(32, 16)
    content["model"]["layer_norm.weight"] = torch.zeros(7)
    path = save(content, tmp_path / "short.pt")
    message = (
        r"short\.pt does not hold .*missing: encoder\.layers\.1\.fc1\.weight; "
        r"left over: encoder\.layers\.2\.fc1\.weight; of another shape: layer_norm\.weight"
    )
    with pytest.raises(DataError, match=message):
        av_ssl.load(path)


def test_heads_of_pretraining_may_be_missing(tmp_path, caplog):
    content = pretrained_state()
    for name in ("final_proj.weight", "final_proj.bias", "mask_emb"):
        del content["model"][name]
    model = av_ssl.load(save(content, tmp_path / "headless.pt"))
    assert "missing: final_proj.bias, final_proj.weight, mask_emb;" in caplog.text
    assert [record.levelno for record in caplog.records if "missing" in record.getMessage()] == [
        logging.WARNING
    ]
    torch.testing.assert_close(model.layer_norm.weight, pretrained_model().layer_norm.weight)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder_attention_heads", 5),
        ("sub_encoder_layers", None),
        ("masking_type", "foo"),
        ("encoder_layers", "many"),
        ("conv_pos_groups", 0),
        ("encoder_embed_dim", -16),
    ],
)
def test_settings_that_cannot_be_built_are_named(tmp_path, key, value):
    content = pretrained_state()
    content["cfg"]["model"][key] = value
    with pytest.raises(DataError, match=r"odd\.pt: its model cannot be built \(.+\)"):
        av_ssl.load(save(content, tmp_path / "odd.pt"))


UNSUPPORTED = [{"resnet_weights": "/lrw.pth"}, {"mask_channel_prob": 0.1, "masking_type": "feature"}]


@pytest.mark.parametrize("settings", UNSUPPORTED, ids=["resnet_weights", "mask_channel_prob"])
def test_settings_of_training_do_not_keep_a_model_from_being_read(tmp_path, caplog, settings):
    content = pretrained_state()
    content["cfg"]["model"].update(settings)
    content["model"] = dict(pretrained_model(**settings).state_dict())
    path = save(content, tmp_path / "trained.pt")
    assert av_ssl.load(path).state_dict().keys() == content["model"].keys()
    assert load_model_ensemble_and_task([str(path)])[0]
    assert [
        record.levelno for record in caplog.records if f"model.{next(iter(settings))}" in record.message
    ] == [logging.WARNING] * 2


@pytest.mark.parametrize(
    ("state", "message"),
    [(5, "entries"), ({"target_dictionary": argparse.Namespace(symbols="abc")}, "Namespace")],
)
def test_damaged_entries_are_named(tmp_path, state, message):
    content = {**finetuned_state(tmp_path), "task_state": state}
    with pytest.raises(DataError, match=rf"odd\.pt: .*{message}"):
        av_ssl.load(save(content, tmp_path / "odd.pt"))
