"""Encoders inside models, and their layers."""

import pytest
import torch

from av_ssl.checkpoints.stored import stored_streams
from av_ssl.errors import DataError
from av_ssl.inference import EncoderFeatures, find_encoder
from av_ssl.methods.raven.encoder import RavenEncoder, RavenEncoderConfig
from tests.classification.tiny import classifier, student
from tests.methods import raven_layout
from tests.methods.helpers import source, tiny_av2vec

TASK = {"normalize": True, "image_crop_size": 16}


def layers(encoder, streams, clip, wanted):
    return EncoderFeatures(encoder, streams, TASK, wanted).of_source(clip)


def one_clip(frames=7):
    return source([frames], frames, size=16)["source"]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("streams", ["audio", "video", "av"])
def test_layers_of_a_fused_encoder_are_those_of_extract_features(streams, norm_first):
    model = tiny_av2vec(layer_norm_first=norm_first).eval()
    encoder, given = find_encoder(model, streams, "x.pt")
    clip = one_clip()
    for stream in {"audio", "video"} - set(given):
        clip[stream] = None
    found = layers(encoder, given, clip, (0, 3, 1))
    assert found.shape == (7, 3, encoder.output_dim) == (7, 3, 16)
    assert encoder.depth == 3
    with torch.no_grad():
        fused, _ = model.extract_features(clip, ret_conv=True)
        third, _ = model.extract_features(clip, output_layer=3)
        first, _ = model.extract_features(clip, output_layer=1)
    for place, expected in enumerate((fused, third, first)):
        torch.testing.assert_close(found[:, place], expected[0])


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_layers_of_ravens_encoder(modality):
    torch.manual_seed(0)
    model = RavenEncoder(RavenEncoderConfig(**raven_layout.TINY), modality).eval()
    encoder, streams = find_encoder(model, None, "x.pt")
    assert (streams, encoder.depth, encoder.output_dim) == ((modality,), 2, 16)
    clip = {modality: raven_layout.signal(modality, 5, clips=1)}
    found = EncoderFeatures(encoder, streams, TASK | {"audio_input": "waveform"}, (0, 2)).of_source(clip)
    with torch.no_grad():
        projected, _ = model.extract_features(clip, ret_conv=True)
        last, _ = model.extract_features(clip, output_layer=2)
    torch.testing.assert_close(found[:, 0], projected[0])
    torch.testing.assert_close(found[:, 1], last[0])


def test_of_ravens_two_students_one_is_chosen():
    model = raven_layout.pretrained()
    assert find_encoder(model, "audio", "x.pt")[0] is model.audio_student
    assert find_encoder(model, "video", "x.pt")[0] is model.video_student
    model.task_cfg = {"modalities": "av"}
    with pytest.raises(
        DataError, match=r"name --modalities: RavenModel of x\.pt has an encoder of audio and one of"
    ):
        find_encoder(model, None, "x.pt")
    with pytest.raises(DataError, match=r"--modalities av: RavenModel of x\.pt"):
        find_encoder(model, "av", "x.pt")


def test_front_ends_without_transformer_have_their_output_alone():
    model = classifier(streams="av").eval()
    encoder, streams = find_encoder(model, None, "x.pt")
    assert (streams, encoder.depth, encoder.output_dim) == (("audio", "video"), 0, 16)
    clip = one_clip()
    padding = torch.zeros(1, 7, dtype=torch.bool)
    with torch.no_grad():
        expected = model.encoder.backbone.encode(clip, padding)
    torch.testing.assert_close(layers(encoder, streams, clip, (0,))[:, 0], expected[0])


def test_an_audio_student_gets_audio_whatever_its_task_had():
    model = student().eval()
    model.task_cfg = {"modalities": "av"}
    assert find_encoder(model, None, "x.pt")[1] == ("audio",)
    with pytest.raises(DataError, match=r"--modalities video: LupiStudent of x\.pt has an encoder of audio"):
        find_encoder(model, "video", "x.pt")


def test_fused_encoders_get_what_they_were_trained_with():
    model = tiny_av2vec()
    assert find_encoder(model, None, "x.pt")[1] == ("audio", "video")
    model.task_cfg = {"modalities": "video"}
    assert find_encoder(model, None, "x.pt")[1] == ("video",)
    assert find_encoder(model, "av", "x.pt")[1] == ("audio", "video")


def test_models_without_encoder():
    with pytest.raises(DataError, match=r"x\.pt: Linear has no encoder whose layers can be read"):
        find_encoder(torch.nn.Linear(1, 1), None, "x.pt")


@pytest.mark.parametrize(
    ("stored", "streams"),
    [
        ("video", ("video",)),
        (["video", "audio"], ("audio", "video")),
        (["video"], ("video",)),
        (None, None),
        ([], None),
    ],
)
def test_streams_of_a_stored_task(stored, streams):
    assert stored_streams({"modalities": stored}) == streams
