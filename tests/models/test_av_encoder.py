"""The fused encoder against the numbers that AV-HuBERT's own code gives for a small checkpoint."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from av_ssl.models.av_encoder import AudioVisualEncoder, AudioVisualEncoderConfig
from av_ssl.models.pretrained import load_pretrained, read_checkpoint


@pytest.fixture(scope="module")
def reference(shared_data):
    """Encoder with the reference checkpoint's weights, and the reference's inputs and outputs."""
    checkpoint = read_checkpoint(shared_data / "avhubert/tiny_pretrain.pt")
    cfg = AudioVisualEncoderConfig(image_mean=0.421, image_std=0.165)
    for field in dataclasses.fields(cfg):
        stored = checkpoint.model_cfg.get(field.name)
        if stored is not None:
            setattr(cfg, field.name, stored)
    encoder = AudioVisualEncoder(cfg).eval()
    load_pretrained(encoder, "tiny_pretrain.pt", checkpoint.tensors)
    with np.load(shared_data / "avhubert/tiny_pretrain.npz") as arrays:
        return encoder, {
            key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind in "fbi"
        }


@pytest.mark.parametrize(
    ("name", "streams", "options"),
    [
        ("features_conv", "av", {"ret_conv": True}),
        ("features_layer1", "av", {"output_layer": 1}),
        ("features_layer2", "av", {"output_layer": 2}),
        ("features", "av", {}),
        ("finetune_both", "av", {}),
        ("finetune_audio_only", "a", {}),
        ("finetune_video_only", "v", {}),
    ],
)
def test_equals_the_original(reference, name, streams, options):
    encoder, arrays = reference
    source = {
        "audio": arrays["audio"] if "a" in streams else None,
        "video": arrays["video"] if "v" in streams else None,
    }
    with torch.no_grad():
        features, _ = encoder.extract_features(source, arrays["padding_mask"], **options)
    real = ~arrays["padding_mask"]
    np.testing.assert_allclose(features[real], arrays[name][real], atol=1e-5)


def test_all_layers_at_once_equal_the_original(reference):
    encoder, arrays = reference
    source = {"audio": arrays["audio"], "video": arrays["video"]}
    with torch.no_grad():
        found = encoder.hidden_states(source, arrays["padding_mask"])
    real = ~arrays["padding_mask"]
    for features, name in zip(found, ("features_conv", "features_layer1", "features_layer2"), strict=True):
        np.testing.assert_allclose(features[real], arrays[name][real], atol=1e-5)
    with torch.no_grad():
        assert len(encoder.hidden_states(source, arrays["padding_mask"], last=1)) == 2


def test_last_layer_is_without_the_final_norm(reference):
    encoder, arrays = reference
    assert not torch.allclose(arrays["features_layer2"], arrays["features"], atol=1e-2)
    np.testing.assert_allclose(
        nn.functional.layer_norm(
            arrays["features_layer2"],
            (64,),
            encoder.encoder.layer_norm.weight,
            encoder.encoder.layer_norm.bias,
        ).detach(),
        arrays["features"],
        atol=1e-5,
    )


@pytest.mark.parametrize("layer", [0, 3])
def test_layer_out_of_range(reference, layer):
    encoder, arrays = reference
    with pytest.raises(ValueError, match="layers 1 to 2"):
        encoder.extract_features({"audio": arrays["audio"], "video": None}, output_layer=layer)


def test_nothing_to_encode(reference):
    with pytest.raises(ValueError, match="neither audio nor video"):
        reference[0].extract_features({"audio": None, "video": None})


def test_masks_are_refused(reference):
    encoder, arrays = reference
    with pytest.raises(ValueError, match="drawn by the data pipeline"):
        encoder.extract_features({"audio": arrays["audio"], "video": None}, None, True)
