"""The fused encoder against the numbers that AV-HuBERT's own code gives for a small checkpoint."""

import numpy as np
import pytest
import torch
from torch import nn

import av_ssl
from av_ssl.methods.fused_encoder import AudioVisualEncoder
from tests.methods.helpers import source, tiny_av2vec


class Once(nn.Module):
    """A module in eval mode that is not run again for the same tensors."""

    def __init__(self, module):
        super().__init__()
        self.module, self.known = module, []

    def forward(self, *tensors):
        for known, output in self.known:
            if all(same(x, y) for x, y in zip(known, tensors, strict=True)):
                return output
        self.known.append((tensors, self.module(*tensors)))
        return self.known[-1][1]


def same(x, y):
    return x is y if x is None or y is None else x.shape == y.shape and torch.equal(x, y)


@pytest.fixture(scope="module")
def reference(shared_data):
    """The reference checkpoint as it is loaded, and the reference's inputs and outputs."""
    encoder = av_ssl.load(shared_data / "avhubert/tiny_pretrain.pt").module
    encoder.feature_extractor_video = Once(encoder.feature_extractor_video)
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


@pytest.mark.parametrize("layer", [0, 3])
def test_layer_out_of_range(reference, layer):
    encoder, arrays = reference
    with pytest.raises(ValueError, match="layers 1 to 2"):
        encoder.extract_features({"audio": arrays["audio"], "video": None}, output_layer=layer)


def test_nothing_to_encode(reference):
    with pytest.raises(ValueError, match="source"):
        reference[0].extract_features({"audio": None, "video": None})


@pytest.mark.parametrize("streams", ["av", "a"])
def test_masks_where_they_are_asked_for(reference, streams):
    encoder, arrays = reference
    source = {key: arrays[key] if key[0] in streams else None for key in ("audio", "video")}
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            outputs.append(encoder.extract_finetune(source, arrays["padding_mask"], mask=True)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-2)


def test_padding_is_not_masked():
    batch = source([30, 12], 30)
    plain, padding = batch["source"], batch["padding_mask"]
    masked = tiny_av2vec(masking_type="input", mask_prob_audio=1.0).masked_source(plain, padding)
    changed = (masked["audio"] != plain["audio"]).any(1)
    assert changed.any(1).all()
    assert not changed[padding].any()


def test_the_frames_of_the_loss_are_those_of_the_configuration():
    masking = tiny_av2vec(loss_on="all", mask_margin=2).masking
    assert (masking.loss_on, masking.video_margin) == ("all", 2)


def test_masks_that_cannot_be_had(reference):
    _, arrays = reference
    model = tiny_av2vec(masking_type="stream_feature")
    with pytest.raises(ValueError, match="masking_type is stream_feature"):
        model.extract_features({"audio": arrays["audio"], "video": None}, None, True)
    with pytest.raises(ValueError, match="load the pre-trained checkpoint"):
        AudioVisualEncoder(model.cfg).extract_features({"audio": arrays["audio"], "video": None}, None, True)


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
