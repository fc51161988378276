"""Checkpoints of other programs and other uses of ours: what loads, and what is refused with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task

import av_ssl
import av_ssl.tasks
from av_ssl.checkpoints.files import CheckpointError, read_checkpoint
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.errors import DataError
from av_ssl.recognition.encoder import encoder_part
from av_ssl.recognition.heads import CTCConfig, CTCModel
from av_ssl.tasks.pretraining import PretrainingConfig, PretrainingTask
from tests.checkpoints.published_layout import clusters, pretrained_model, pretrained_state, save
from tests.methods.helpers import build, config, tiny_av2vec
from tests.methods.raven_layout import published

ENCODER_NAMES = ("encoder.", "feature_extractor", "layer_norm", "post_extract_proj")


def with_other_heads() -> dict:
    """Several heads with names and sizes of their own, as in the checkpoints of DistillAV's authors."""
    state = pretrained_state()
    sizes = {
        "regression_proj_wavlm.weight": (64, 16), "regression_proj_wavlm.bias": (64,),
        "final_proj.weight": (16, 16), "final_proj.bias": (16,), "final_proj_2.weight": (8, 16),
        "final_proj_2.bias": (8,), "label_embs_concat": (20, 8), "label_embs_concat_2": (20, 8),
    }  # fmt: skip
    state["model"] |= {name: torch.zeros(size) for name, size in sizes.items()}
    return state


def in_a_wrapper() -> dict:
    state = pretrained_state()
    return {**state, "model": {f"module.{name}": x for name, x in state["model"].items()}}


@pytest.mark.parametrize("state", [with_other_heads, in_a_wrapper])
def test_the_encoder_is_the_stored_one(tmp_path, state):
    path = save(state(), tmp_path / "other.pt")
    finetuned = build(CTCModel, config(CTCConfig, path), clusters()).w2v_encoder.w2v_model
    expected = pretrained_model().state_dict()
    for model in (av_ssl.load(path), finetuned):
        own = model.state_dict()
        names = [name for name in own if name.startswith(ENCODER_NAMES)]
        assert len(names) > 100
        assert all(torch.equal(own[name], expected[name]) for name in names)


def test_fairseq_reads_a_wrapped_model(tmp_path):
    (model,), _, _ = load_model_ensemble_and_task([str(save(in_a_wrapper(), tmp_path / "wrapped.pt"))])
    assert torch.equal(model.layer_norm.weight, pretrained_model().layer_norm.weight)


@pytest.mark.parametrize("name", ["encoder.layers.9.fc1.weight", "feature_extractor_audio.other.weight"])
def test_tensors_of_another_encoder_are_no_heads(tmp_path, name):
    state = pretrained_state()
    state["model"][name] = torch.zeros(2)
    with pytest.raises(DataError, match=rf"other\.pt.*left over: {name}"):
        av_ssl.load(save(state, tmp_path / "other.pt"))


@pytest.mark.parametrize("prefix", ["encoder.w2v_model.", "encoder.backbone.w2v_model."])
def test_a_fine_tuned_model_gives_its_encoder(prefix):
    cfg = {"model": {"_name": "x", "w2v_args": {"model": {"_name": "av_hubert"}}}, "task": {}}
    tensors = {f"{prefix}layer_norm.weight": torch.ones(2), "header.weight": torch.ones(3)}
    part = encoder_part(StoredModel(Path("x.pt"), cfg, tensors, None, []))
    assert part.tensors.keys() == {"layer_norm.weight"}
    assert part.model_cfg == {"_name": "av_hubert"}


def whisper_folder(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    return folder


def whisper_safetensors(folder: Path) -> Path:
    (folder / "model.safetensors").write_bytes(bytes(9))
    return folder / "model.safetensors"


def whisper_pt(folder: Path) -> Path:
    return save({"dims": {"n_mels": 80}, "model_state_dict": {"x": torch.zeros(2)}}, folder / "tiny.pt")


@pytest.mark.parametrize("make", [whisper_folder, whisper_safetensors, whisper_pt])
def test_a_speech_model_as_w2v_path(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(CheckpointError, match=rf"^model\.w2v_path: {path}: .*model\.teachers") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_pre_trained_model_cannot_be_decoded():
    task = PretrainingTask(PretrainingConfig(data="/nowhere"))
    with pytest.raises(DataError, match=r"pre-trained only \(AV2vecModel.*model\.w2v_path"):
        task.build_generator([tiny_av2vec()], None)


@pytest.mark.parametrize("modality", ["audio", "video"])
@pytest.mark.parametrize("name", ["after_norm.weight", "embed.0.weight"])
def test_features_of_published_weights_depend_on_the_input(tmp_path, modality, name):
    weights = published(modality)
    weights[name].zero_()
    with pytest.raises(DataError, match=r"dead\.pt: .*input"):
        av_ssl.load(save(weights, tmp_path / "dead.pt"))
