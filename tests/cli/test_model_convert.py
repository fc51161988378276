"""`av-ssl model convert`."""

import json
import sys

import pytest
import torch

from av_ssl.cli.main import main


@pytest.fixture
def checkpoint(tmp_path):
    cfg = {"model": {"_name": "av_hubert", "encoder_layers": 1}, "task": {"_name": "av_hubert_pretraining"}}
    path = tmp_path / "in.pt"
    torch.save({"cfg": cfg, "model": {"layer_norm.weight": torch.arange(3.0)}}, path)
    return path


def test_to_safetensors_and_back(checkpoint, tmp_path, capsys):
    plain, back = tmp_path / "model.safetensors", tmp_path / "back.pt"
    assert main(["model", "convert", str(checkpoint), str(plain)]) == 0
    assert "model.json: av_hubert, 1 tensors, 3 values" in capsys.readouterr().out
    assert json.loads((tmp_path / "model.json").read_text())["cfg"]["model"]["encoder_layers"] == 1
    assert main(["model", "convert", str(plain), str(back)]) == 0
    torch.testing.assert_close(torch.load(back)["model"]["layer_norm.weight"], torch.arange(3.0))


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("none.pt", "out.pt", "none.pt: there is no such file"),
        ("in.pt", "in.pt", "in.pt: is the file to be converted"),
        ("in.pt", "out.bin", "out.bin: name a file that ends in .pt"),
    ],
)
def test_mistakes_are_named(checkpoint, tmp_path, capsys, source, out, message):
    assert main(["model", "convert", str(tmp_path / source), str(tmp_path / out)]) == 1
    assert message in capsys.readouterr().err


def test_safetensors_is_optional(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert main(["model", "convert", str(checkpoint), str(tmp_path / "out.pt")]) == 0
    assert main(["model", "convert", str(checkpoint), str(tmp_path / "out.safetensors")]) == 1
    assert "pip install 'av_ssl[convert]'" in capsys.readouterr().err
