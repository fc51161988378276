"""Encoder, aggregator, head: shapes, padding, segments."""

import pytest
import torch

from av_ssl.classification.layers import POOLINGS
from av_ssl.errors import DataError
from tests.classification.tiny import batch, classifier
from tests.methods.helpers import TINY


@pytest.mark.parametrize("streams", ["audio", "video", "av"])
def test_front_ends_are_those_of_the_streams(streams):
    model = classifier(streams=streams).eval()
    names = {name.split(".")[2] for name in model.state_dict() if name.startswith("encoder.backbone.")}
    assert names == {"audio": {"audio"}, "video": {"video"}, "av": {"audio", "video", "fusion"}}[streams]
    net_input = batch([6, 4])
    output = model(**net_input, target=torch.tensor([0, 2]))
    assert output["enc"].shape == (2, 1, 8)
    assert output["logits"].shape == (2, 3)
    assert "agg" not in output
    for stream in {"audio", "video"} - set(model.encoder.streams):
        net_input["source"][stream] = None
    torch.testing.assert_close(model(**net_input)["logits"], output["logits"])


def test_a_missing_stream_is_named():
    net_input = batch([6, 4])
    net_input["source"]["video"] = None
    with pytest.raises(DataError, match=r"batch has no video: set task\.modalities"):
        classifier()(**net_input)
    with pytest.raises(DataError, match=r"model\.streams=text"):
        classifier(streams="text")


@pytest.mark.parametrize("segment", [0, 4])
@pytest.mark.parametrize("pooling", ["mean", "asp"])
def test_padding_changes_nothing(segment, pooling):
    model = classifier(segment_frames=segment, frame_pooling=pooling).eval()
    short, long = batch([9, 5], segment=segment), batch([9, 5], 13, segment=segment)
    for stream in ("audio", "video"):
        long["source"][stream].narrow(2, 0, 9).copy_(short["source"][stream])
    found, expected = model(**long), model(**short)
    for key in ("enc", "logits"):
        torch.testing.assert_close(found[key], expected[key], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("aggregator", POOLINGS)
def test_segments_are_encoded_one_by_one(aggregator):
    model = classifier(segment_frames=4, aggregator=aggregator).eval()
    net_input = batch([9, 4, 3], segment=4)
    output = model(**net_input)
    assert output["enc"].shape == (3, 3, 8)
    assert output["agg"].shape == (3, 6)
    assert output["empty"].tolist() == [[False] * 3, [False, True, True], [False, True, True]]
    assert (output["enc"][output["empty"]] == 0).all()
    # The last segment of the first clip is its frames 5 to 8.
    cut = {
        "source": {
            "audio": net_input["source"]["audio"][:1, :, 5:9],
            "video": net_input["source"]["video"][:1, :, 5:9],
        },
        "padding_mask": torch.zeros(1, 4, dtype=torch.bool),
    }
    alone = model.encoder(**cut)
    torch.testing.assert_close(output["enc"][0, 2], alone[0], atol=2e-5, rtol=1e-4)


def test_one_segment_and_no_aggregator_give_the_same_embedding():
    """The non-sequential setting is the sequential one with a single segment."""
    sequential, plain = classifier(segment_frames=9).eval(), classifier().eval()
    plain.encoder.load_state_dict(sequential.encoder.state_dict())
    found = sequential(**batch([9, 9], segment=9))["enc"]
    torch.testing.assert_close(found, plain(**batch([9, 9]))["enc"], atol=2e-5, rtol=1e-4)


def test_model_and_data_must_agree_on_segments():
    with pytest.raises(DataError, match=r"segments of 0 frames .* task\.segment_frames"):
        classifier()(**batch([6], segment=3))
    with pytest.raises(DataError, match=r"segments of 3 frames .* task\.segment_frames"):
        classifier(segment_frames=3)(**batch([6]))


@pytest.mark.parametrize(
    ("option", "supported"),
    [
        ({"frame_pooling": "sap"}, "mean or asp"),
        ({"aggregator": "self_attention"}, "asp or mean"),
        ({"header": "am"}, "softmax or aam"),
    ],
)
def test_removed_values_are_refused(option, supported):
    [(key, value)] = option.items()
    with pytest.raises(DataError, match=rf"model\.{key}={value} .* {supported}$"):
        classifier(**option)


def test_embedding_layers():
    net_input = batch([9, 4], segment=4)
    model = classifier(segment_frames=4, header_hidden=5).eval()
    output = model(**net_input)
    torch.testing.assert_close(model.embed(**net_input), output["agg"])
    torch.testing.assert_close(model.embed(layer="header", **net_input), output["hidden"])
    mean = model.embed(layer="encoder", **net_input)
    torch.testing.assert_close(mean[0], output["enc"][0].mean(0))
    torch.testing.assert_close(mean[1], output["enc"][1, 0])
    plain = classifier().eval()
    torch.testing.assert_close(plain.embed(**batch([9])), plain(**batch([9]))["enc"][:, 0])
    for layer in ("aggregator", "header", "last"):
        with pytest.raises(DataError, match=f"layer '{layer}'"):
            plain.embed(layer=layer, **batch([9]))


@pytest.mark.parametrize("segment", [0, 4])
def test_every_parameter_gets_a_gradient(segment):
    model = classifier(segment_frames=segment, header="aam", header_hidden=4)
    target = torch.tensor([0, 2])
    output = model(**batch([9, 5], segment=segment), target=target)
    torch.nn.functional.cross_entropy(output["margin_logits"], target).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_waveforms():
    model = classifier(streams="audio", audio_input="waveform", mel_bands=20).eval()
    net_input = batch([6, 4])
    net_input["source"]["audio"] = torch.randint(-3000, 3000, (2, 6 * 640), dtype=torch.int16)
    assert model(**net_input)["logits"].shape == (2, 3)


@pytest.mark.parametrize("seed", range(10))
def test_bfloat16(seed):
    model = classifier(seed, segment_frames=4, header="aam").bfloat16()
    net_input = batch([9, 5], segment=4)
    net_input["source"]["audio"] = net_input["source"]["audio"].bfloat16()
    target = torch.tensor([0, 2])
    output = model(**net_input, target=target)
    assert output["logits"].dtype == torch.float32
    rubbish = [torch.full((size,), torch.nan) for size in (500, 2000, 9000, 40000)]
    del rubbish  # memory that the backward pass may be given: nothing may stay as it was
    torch.nn.functional.cross_entropy(output["margin_logits"], target).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert model.eval()(**net_input)["logits"].isfinite().all()


FUSED = {key: TINY[key] for key in TINY if key not in ("average_top_k_layers", "ema_anneal_end_step")}
RAVEN = {
    "_name": "raven_encoder", "modality": "audio", "encoder_layers": 1, "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2, "resnet_width": 2,
}  # fmt: skip


def pretrained(model: dict, **options):
    """A classifier on an encoder of a pre-trained model's configuration."""
    return classifier(w2v_args={"model": model, "task": {}}, no_pretrained_weights=True, **options).eval()


@pytest.mark.parametrize("streams", ["audio", "video", "av"])
def test_a_fused_encoder_loses_the_front_ends_that_it_does_not_need(streams):
    model = pretrained({"_name": "av2vec", **FUSED}, streams=streams)
    names = "\n".join(model.state_dict())
    for stream in ("audio", "video"):
        assert (f"feature_extractor_{stream}." in names) == (stream in model.encoder.streams)
    net_input = batch([9, 5])
    output = model(**net_input)["enc"]
    longer = batch([9, 5], 12)
    for stream in ("audio", "video"):
        longer["source"][stream].narrow(2, 0, 9).copy_(net_input["source"][stream])
    torch.testing.assert_close(model(**longer)["enc"], output, atol=1e-4, rtol=1e-3)


def test_ravens_encoder_of_waveforms():
    model = pretrained(RAVEN, streams="audio", audio_input="waveform", segment_frames=3)
    net_input = batch([6, 4], segment=3)
    net_input["source"]["audio"] = torch.randint(-3000, 3000, (2, 6 * 640), dtype=torch.int16)
    output = model(**net_input)
    assert output["enc"].shape == (2, 2, 8)
    whole = torch.zeros(1, 3, dtype=torch.bool)
    cut = {"audio": net_input["source"]["audio"][:1, 3 * 640 :], "video": None}
    torch.testing.assert_close(model.encoder(cut, whole)[0], output["enc"][0, 1], atol=1e-4, rtol=1e-3)
