"""Fine-tuning on RAVEn's encoders: from the published weights and from models pre-trained here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

import av_ssl
from av_ssl.checkpoints.files import CheckpointError
from av_ssl.methods.pretrained import FUSED, family_of
from av_ssl.methods.raven.encoder import RavenEncoder
from av_ssl.recognition.encoder import read_pretrained
from av_ssl.recognition.heads import CTCConfig, CTCModel, HybridConfig, HybridModel
from tests.methods import helpers
from tests.methods.raven_layout import TINY, published, signal

MODALITIES = ("audio", "video")
PRETRAINING = {"_name": "av_pretraining", "modalities": "av", "audio_input": "waveform", "normalize": True}


def of_both_streams(name: str) -> dict[str, Any]:
    """A checkpoint of a RAVEn pre-training."""
    tensors = {
        **published("audio", "audio_student."),
        **published("video", "video_student."),
        **published("audio", "_ema.audio."),
        "predictors.va.last_linear.bias": torch.ones(16),
    }
    return {"cfg": {"model": {"_name": name, **TINY}, "task": PRETRAINING}, "model": tensors}


@pytest.fixture(params=["published", "raven", "braven"])
def pretrained(request, tmp_path):
    """A checkpoint to fine-tune from, for each stream."""
    files = {modality: tmp_path / f"{modality}.pt" for modality in MODALITIES}
    for modality, path in files.items():
        content = published(modality) if request.param == "published" else of_both_streams(request.param)
        torch.save(content, path)
    return files


def config(structure: Any, path: Path, **overrides: Any) -> Any:
    return helpers.config(structure, path, feature_grad_mult=1.0, **overrides)


def build(model: Any, cfg: Any, dictionary: Dictionary, modality: str) -> Any:
    return helpers.build(
        model, cfg, dictionary, "filterbank" if modality == "video" else "waveform", modality
    )


def batch(modality: str, frames: int = 6) -> dict[str, Any]:
    padding = torch.tensor([[False] * frames, [False] * (frames - 2) + [True] * 2])
    return {
        "source": {"audio": None, "video": None, modality: signal(modality, frames)},
        "padding_mask": padding,
        "frame_index": (~padding).flatten().nonzero().squeeze(1),
    }


@pytest.mark.parametrize("modality", MODALITIES)
def test_all_but_the_final_norm_is_taken(pretrained, dictionary, modality):
    cfg = config(CTCConfig, pretrained[modality])
    encoder = build(CTCModel, cfg, dictionary, modality).w2v_encoder.w2v_model
    assert isinstance(encoder, RavenEncoder)
    assert encoder.modality == modality
    expected = published(modality)
    fresh = {"after_norm.weight": torch.ones(16), "after_norm.bias": torch.zeros(16)}
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, fresh.get(name, expected[name])), name


@pytest.mark.parametrize("modality", MODALITIES)
def test_recogniser_learns_on_one_stream(pretrained, dictionary, modality):
    cfg = config(CTCConfig, pretrained[modality], dropout=0.1, drop_path=0.1)
    model = build(CTCModel, cfg, dictionary, modality).train()
    encoder = model.w2v_encoder.w2v_model
    assert (encoder.cfg.dropout, encoder.encoders[1].drop_path.rate) == (0.1, 0.1)
    assert encoder.encoders[0].self_attn.dropout.p == 0.0
    model(**batch(modality))["encoder_out"][..., 1].square().mean().backward()
    assert encoder.embed[0].weight.grad.abs().max() > 0
    assert encoder.frontend.trunk.layer1[0].conv1.weight.grad.abs().max() > 0


def test_a_fine_tuned_model_needs_its_file_alone(pretrained, dictionary, tmp_path):
    sizes = {"decoder_layers": 1, "decoder_embed_dim": 16, "decoder_ffn_embed_dim": 16}
    cfg = config(HybridConfig, pretrained["video"], **sizes)
    trained = build(HybridModel, cfg, dictionary, "video").eval()
    values = {**OmegaConf.to_container(cfg, enum_to_str=True), "_name": "hybrid_ctc_attention"}
    state = {
        "cfg": {"model": values, "task": {"_name": "av_recognition", "modalities": "video"}},
        "model": trained.state_dict(),
        "task_state": {"symbols": list(dictionary.symbols), "tokenizer": None},
    }
    torch.save(state, tmp_path / "fine_tuned.pt")
    for path in pretrained.values():
        path.unlink()
    loaded = av_ssl.load(tmp_path / "fine_tuned.pt")
    assert loaded.encoder.w2v_model.modality == "video"
    history = torch.tensor([[2, 5], [2, 6]])
    with torch.no_grad():
        expected, _ = trained(**batch("video"), prev_output_tokens=history)
        assert torch.equal(loaded(**batch("video"), prev_output_tokens=history)[0], expected)
    # Another model can start from its encoder.
    again = build(CTCModel, config(CTCConfig, tmp_path / "fine_tuned.pt"), dictionary, "video")
    for name, tensor in again.w2v_encoder.w2v_model.state_dict().items():
        if not name.startswith("after_norm."):
            assert torch.equal(tensor, trained.encoder.w2v_model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("content", "audio_input", "modalities", "message"),
    [
        (published("audio"), "waveform", "video", r"=video, but .*start\.pt holds .* one stream \(audio\)"),
        (published("audio"), "waveform", "av", r"=av, but .*start\.pt holds .* one stream \(audio\)"),
        (of_both_streams("raven"), "waveform", "av", r"=av, .*set task\.modalities=audio or video"),
        (published("audio"), "filterbank", "audio", r"set task\.audio_input=waveform"),
    ],
)
def test_input_that_no_encoder_takes(tmp_path, content, audio_input, modalities, message):
    torch.save(content, tmp_path / "start.pt")
    with pytest.raises(CheckpointError, match=message):
        read_pretrained(config(CTCConfig, tmp_path / "start.pt"), audio_input, modalities)


def test_a_checkpoint_that_lacks_tensors(tmp_path, dictionary):
    content = of_both_streams("raven")
    del content["model"]["video_student.encoders.1.gamma_ff"]
    torch.save(content, tmp_path / "raven.pt")
    build(CTCModel, config(CTCConfig, tmp_path / "raven.pt"), dictionary, "audio")
    message = r"raven\.pt does not hold RAVEn's encoders of .* missing: encoders\.1\.gamma_ff;"
    with pytest.raises(CheckpointError, match=message):
        build(CTCModel, config(CTCConfig, tmp_path / "raven.pt"), dictionary, "video")


@pytest.mark.parametrize("name", ["av_hubert", "av2vec", "some_fused_method", None])
def test_other_methods_are_fused(name):
    assert family_of({"_name": name}) is FUSED
    assert FUSED.choose_stream({"_name": name}, "video", "any.pt") is None


def test_regularisation_without_a_place(tmp_path, dictionary):
    torch.save(published("audio"), tmp_path / "audio.pt")
    with pytest.raises(ValueError, match=r"model\.layerdrop=0\.1"):
        build(CTCModel, config(CTCConfig, tmp_path / "audio.pt", layerdrop=0.1), dictionary, "audio")
