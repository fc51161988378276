"""Files laid out as RAVEn's published ones: what they become, and what is refused."""

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import av_ssl
from av_ssl.checkpoints.files import read_stored
from av_ssl.errors import DataError
from tests.checkpoints.published_layout import save
from tests.methods.raven_layout import TINY, published, reference, signal

MODALITIES = ("audio", "video")


def normalised(x: Tensor) -> Tensor:
    return x.double() / 32768 if x.dtype == torch.int16 else (x.double() / 255 - 0.421) / 0.165


# -- what is loaded ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", MODALITIES)
def test_equals_the_published_layout_written_out(tmp_path, modality):
    weights = published(modality)
    model = av_ssl.load(save(weights, tmp_path / "raven.pt"))
    assert not model.training
    x = signal(modality, frames=7)
    with torch.no_grad():
        ours, _ = model.double().extract_features({modality: x})
    np.testing.assert_allclose(ours, reference(weights, normalised(x)), atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_configuration_comes_from_the_shapes(tmp_path, modality):
    model = av_ssl.load(save(published(modality), tmp_path / "raven.pt"))
    cfg = model.cfg
    assert {key: cfg[key] for key in TINY} == TINY
    assert (cfg.modality, cfg.layer_scale, cfg.ffn_norm) == (modality, 0.1, "batch")
    assert model.task_cfg["audio_input"] == "waveform"
    assert model.task_cfg["modalities"] == modality
    assert model.text_encoder is None


def test_layer_norm_and_no_layer_scale(tmp_path):
    weights = published("audio", ffn_norm="layer", layer_scale=0.0)
    model = av_ssl.load(save(weights, tmp_path / "raven.pt"))
    assert (model.cfg.layer_scale, model.cfg.ffn_norm) == (0.0, "layer")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "encoder.", "model.", "student.module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_round_trip(tmp_path, prefix, wrapper):
    first = av_ssl.load(save(published("audio"), tmp_path / "first.pt"))
    exported = {prefix + name: tensor for name, tensor in first.state_dict().items()}
    exported = {"epoch": 3, wrapper: exported} if wrapper else exported
    second = av_ssl.load(save(exported, tmp_path / "second.pt"))
    assert second.state_dict().keys() == first.state_dict().keys()
    assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in second.state_dict().items())
    x = {"audio": signal("audio", 5)}
    with torch.no_grad():
        assert torch.equal(second.extract_features(x)[0], first.extract_features(x)[0])


def test_names_of_older_files(tmp_path):
    weights = published("video")
    older = {
        ("input_layer." + name.removeprefix("embed.")) if name.startswith("embed.")
        else name.removeprefix("after_") if name.startswith("after_norm.")
        else name: tensor
        for name, tensor in weights.items()
    }  # fmt: skip
    without_use = {f"encoders.0.{name}": torch.ones(16) for name in ("gamma_ff_macaron", "gamma_conv")}
    path = save({**older, **without_use, "input_layer.1.pe": torch.ones(1, 9, 16)}, tmp_path / "older.pt")
    stored = read_stored(path)
    assert stored.tensors.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in stored.tensors.items())


def test_a_fine_tuned_file_gives_its_encoder(tmp_path, caplog):
    heads = {
        "ctc.ctc_lo.weight": torch.zeros(1049, 16), "decoder.embed.0.weight": torch.zeros(1049, 8),
        "decoder.proj_decoder.bias": torch.zeros(8),
    }  # fmt: skip
    weights = published("video", "encoder.")
    with caplog.at_level(logging.INFO):
        stored = read_stored(save({**weights, **heads}, tmp_path / "vsr.pt"))
    assert len(stored.tensors) == len(weights)
    assert "not used: ctc.ctc_lo.weight, decoder.embed.0.weight, decoder.proj_decoder.bias" in caplog.text


def test_without_the_final_norm(tmp_path, caplog):
    weights = {name: tensor for name, tensor in published("audio").items() if "after_norm" not in name}
    model = av_ssl.load(save(weights, tmp_path / "raven.pt"))
    assert "has no after_norm" in caplog.text
    with torch.no_grad():
        features, _ = model.extract_features({"audio": signal("audio", 5)})
    np.testing.assert_allclose(features.var(-1, unbiased=False), 1, rtol=1e-3)


# -- what is refused -----------------------------------------------------------------------------------------


def edited(change: Any) -> dict[str, Tensor]:
    weights = published("video")
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoders.1.norm_ff.bias"), r"missing: encoders\.1\.norm_ff\.bias;"),
        (lambda w: w.update({"encoders.1.adapter": torch.ones(3)}), r"left over: encoders\.1\.adapter;"),
        (lambda w: w.update({"after_norm.bias": torch.ones(3)}), r"of another shape: after_norm\.bias"),
        (lambda w: w.pop("encoders.0.self_attn.pos_bias_u"), "lacks 'encoders.0.self_attn.pos_bias_u'"),
        (lambda w: w.update({"frontend.frontend3D.2.weight": torch.ones(4)}), "activations with weights"),
        (lambda w: w.update({"frontend.trunk.layer1.0.relu1.weight": torch.ones(4)}), "such as PReLU"),
        (lambda w: w["encoders.0.norm_ff.running_var"].zero_(), r"not above zero: encoders\.0\.norm_ff"),
        (
            lambda w: [x.fill_(1) for name, x in w.items() if name.endswith("running_var")],
            "was never trained",
        ),
        (lambda w: w["embed.0.weight"].fill_(math.nan), "not finite"),
        (lambda w: w.update(published("audio", "other.")), r"holds 2 encoders, under , other\."),
    ],
)
def test_other_layouts_are_named(tmp_path, change, message):
    path = save(edited(change), tmp_path / "odd.pt")
    with pytest.raises(DataError, match=rf"odd\.pt.*{message}"):
        av_ssl.load(path)


def test_a_language_model_is_no_encoder(tmp_path):
    model = {"embed.weight": torch.zeros(9, 4), "encoder.embed.0.weight": torch.zeros(8, 4)}
    with pytest.raises(DataError, match=r"lm\.pt: is no fairseq checkpoint .* or RAVEn's published files"):
        av_ssl.load(save(model, tmp_path / "lm.pt"))
