"""Fine-tuning on RAVEn's encoders: from the published weights and from models pre-trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf
from torch import Tensor

import av_ssl
from av_ssl.checkpoints.files import CheckpointError
from av_ssl.methods.encoders import FUSED, family_of
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
def pretrained(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Path]:
    """A checkpoint to fine-tune from, for each stream."""
    files = {modality: tmp_path / f"{modality}.pt" for modality in MODALITIES}
    for modality, path in files.items():
        content = published(modality) if request.param == "published" else of_both_streams(request.param)
        torch.save(content, path)
    return files


def config(structure: Any, path: Path, **overrides: Any) -> Any:
    own = {"w2v_path": str(path), "normalize": True, "feature_grad_mult": 1.0, **overrides}
    return OmegaConf.merge(OmegaConf.structured(structure()), own)


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
def test_all_but_the_final_norm_is_taken(
    pretrained: dict[str, Path], dictionary: Dictionary, modality: str
) -> None:
    cfg = config(CTCConfig, pretrained[modality])
    encoder = build(CTCModel, cfg, dictionary, modality).w2v_encoder.w2v_model
    assert isinstance(encoder, RavenEncoder)
    assert encoder.modality == modality
    expected = published(modality)
    fresh = {"after_norm.weight": torch.ones(16), "after_norm.bias": torch.zeros(16)}
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, fresh.get(name, expected[name])), name


@pytest.mark.parametrize("modality", MODALITIES)
def test_recogniser_learns_on_one_stream(
    pretrained: dict[str, Path], dictionary: Dictionary, modality: str
) -> None:
    cfg = config(CTCConfig, pretrained[modality], dropout=0.1, drop_path=0.1)
    model = build(CTCModel, cfg, dictionary, modality).train()
    encoder = model.w2v_encoder.w2v_model
    assert (encoder.cfg.dropout, encoder.encoders[1].drop_path.rate) == (0.1, 0.1)
    assert encoder.encoders[0].self_attn.dropout.p == 0.0
    model(**batch(modality))["encoder_out"][..., 1].square().mean().backward()
    assert encoder.embed[0].weight.grad.abs().max() > 0
    assert encoder.frontend.trunk.layer1[0].conv1.weight.grad.abs().max() > 0


def test_from_scratch_takes_the_configuration_only(
    pretrained: dict[str, Path], dictionary: Dictionary
) -> None:
    cfg = config(CTCConfig, pretrained["audio"], no_pretrained_weights=True)
    encoder = build(CTCModel, cfg, dictionary, "audio").w2v_encoder.w2v_model
    assert len(encoder.encoders) == 2
    assert not torch.equal(encoder.embed[0].weight, published("audio")["embed.0.weight"])


def test_a_fine_tuned_model_needs_its_file_alone(
    pretrained: dict[str, Path], dictionary: Dictionary, tmp_path: Path
) -> None:
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


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", ["video", "av"])
def test_a_published_encoder_of_another_stream(tmp_path: Path, modalities: str) -> None:
    torch.save(published("audio"), tmp_path / "audio.pt")
    message = rf"task\.modalities={modalities}, but .*audio\.pt holds RAVEn's encoder of one stream \(audio\)"
    with pytest.raises(CheckpointError, match=message):
        read_pretrained(config(CTCConfig, tmp_path / "audio.pt"), "waveform", modalities)


def test_two_streams_at_once(tmp_path: Path) -> None:
    torch.save(of_both_streams("raven"), tmp_path / "raven.pt")
    with pytest.raises(CheckpointError, match=r"task\.modalities=av, .*set task\.modalities=audio or video"):
        read_pretrained(config(CTCConfig, tmp_path / "raven.pt"), "waveform", "av")


def test_filterbanks(tmp_path: Path) -> None:
    torch.save(published("audio"), tmp_path / "audio.pt")
    cfg = OmegaConf.structured(CTCConfig(w2v_path=str(tmp_path / "audio.pt"), normalize=True))
    with pytest.raises(CheckpointError, match=r"set task\.audio_input=waveform"):
        read_pretrained(cfg, "filterbank", "audio")


def test_regularisation_without_a_place(tmp_path: Path, dictionary: Dictionary) -> None:
    torch.save(published("audio"), tmp_path / "audio.pt")
    with pytest.raises(ValueError, match=r"model\.layerdrop=0\.1"):
        build(CTCModel, config(CTCConfig, tmp_path / "audio.pt", layerdrop=0.1), dictionary, "audio")


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


def test_a_checkpoint_that_lacks_tensors(tmp_path: Path, dictionary: Dictionary) -> None:
    content = of_both_streams("raven")
    content["model"] = without(content["model"], "video_student.encoders.1.gamma_ff")
    torch.save(content, tmp_path / "raven.pt")
    build(CTCModel, config(CTCConfig, tmp_path / "raven.pt"), dictionary, "audio")
    message = r"raven\.pt does not hold RAVEn's encoders of .* missing: encoders\.1\.gamma_ff;"
    with pytest.raises(CheckpointError, match=message):
        build(CTCModel, config(CTCConfig, tmp_path / "raven.pt"), dictionary, "video")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoders.1.norm_ff.bias"), r"missing: encoders\.1\.norm_ff\.bias;"),
        (lambda w: w.update({"encoders.1.adapter": torch.ones(3)}), r"left over: encoders\.1\.adapter;"),
    ],
)
def test_published_weights_of_another_layout(
    tmp_path: Path, dictionary: Dictionary, change: Any, message: str
) -> None:
    weights = published("audio")
    change(weights)
    torch.save(weights, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=rf"odd\.pt does not hold RAVEn's encoder of .*{message}"):
        build(CTCModel, config(CTCConfig, tmp_path / "odd.pt"), dictionary, "audio")


@pytest.mark.parametrize("name", ["av_hubert", "av2vec", "some_fused_method", None])
def test_other_methods_are_fused(name: str | None) -> None:
    assert family_of({"_name": name}) is FUSED
    assert FUSED.choose_stream({"_name": name}, "video", "any.pt") is None
