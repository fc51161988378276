"""`av-ssl model convert`."""

import json
import sys

import pytest
import torch

from .conftest import call


@pytest.fixture
def checkpoint(tmp_path):
    cfg = {"model": {"_name": "av_hubert", "encoder_layers": 1}, "task": {"_name": "av_hubert_pretraining"}}
    path = tmp_path / "in.pt"
    torch.save({"cfg": cfg, "model": {"layer_norm.weight": torch.arange(3.0)}}, path)
    return path


def test_to_safetensors_and_back(checkpoint, tmp_path, capsys):
    plain, back = tmp_path / "model.safetensors", tmp_path / "back.pt"
    assert call("model", "convert", checkpoint, plain) == 0
    assert "model.json: av_hubert, 1 tensors, 3 values" in capsys.readouterr().out
    assert json.loads((tmp_path / "model.json").read_text())["cfg"]["model"]["encoder_layers"] == 1
    assert call("model", "convert", plain, back) == 0
    torch.testing.assert_close(torch.load(back)["model"]["layer_norm.weight"], torch.arange(3.0))


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("none.pt", "out.pt", "none.pt: there is no such file"),
        ("in.pt", "in.pt", "in.pt: is the file to be converted"),
        ("in.pt", "other.pt", "other.pt: exists; name another file"),
        ("in.pt", "settings.safetensors", "settings.json: exists; name another file"),
        ("in.pt", "whisper", "model.safetensors: exists; name another file or folder"),
        ("in.pt", "out.bin", "out.bin: name a file that ends in .pt"),
    ],
)
def test_mistakes_are_named(checkpoint, tmp_path, refused, source, out, message):
    (tmp_path / "whisper").mkdir()
    for other in ("other.pt", "settings.json", "whisper/model.safetensors"):
        (tmp_path / other).write_bytes(b"a training's")
    assert message in refused(call("model", "convert", tmp_path / source, tmp_path / out))
    for other in ("other.pt", "settings.json", "whisper/model.safetensors"):
        assert (tmp_path / other).read_bytes() == b"a training's"


def test_safetensors_is_optional(checkpoint, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert call("model", "convert", checkpoint, tmp_path / "out.pt") == 0
    assert "pip install 'av_ssl[convert]'" in refused(
        call("model", "convert", checkpoint, tmp_path / "out.safetensors")
    )
