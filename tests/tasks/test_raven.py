"""RAVEn by the stock commands: pre-training, resuming, fine-tuning of either student, decoding."""

from pathlib import Path

import pytest

import av_ssl

from .conftest import assert_decoded, assert_equal, generate, train

TINY = [
    "model.encoder_layers=2", "model.encoder_embed_dim=16", "model.encoder_ffn_embed_dim=32",
    "model.encoder_attention_heads=2", "model.resnet_width=4", "model.predictor_embed_dim=16",
    "model.predictor_ffn_embed_dim=32", "model.predictor_attention_heads=2",
    "+model.ema_updates=20",  # the key of version 0.1; a resumed run must not depend on the number of updates
]  # fmt: skip
HYBRID = [
    "model._name=hybrid_ctc_attention", "criterion._name=hybrid_ctc_attention", "~model.final_dropout",
    "~criterion.zero_infinity", "~criterion.post_process", "+model.decoder_layers=1",
    "+model.decoder_embed_dim=16", "+model.decoder_ffn_embed_dim=32", "+model.decoder_attention_heads=2",
    "+task.audio_input=waveform", "optimization.max_update=3",
]  # fmt: skip


def pretrain(data: Path, save: Path, updates: int, *overrides: str, expect: int = 0) -> str:
    return train(
        "pretrain_raven", save, f"task.data={data}", f"optimization.max_update={updates}", *TINY, *overrides,
        schedule=(), expect=expect,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = tmp_path_factory.mktemp("raven")
    output = pretrain(data, save, 2, "model._name=braven", "criterion._name=braven")
    for logged in ("loss_va", "loss_av", "loss_aa", "gnorm_video", "gnorm_audio", "audio_target_std"):
        assert f'"{logged}"' in output
    return save / "checkpoint_last.pt"


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_one(data, tmp_path):
    """Bit for bit, teachers and batch-norm statistics included, with accumulation and dropout."""
    options = ["optimization.update_freq=[2]", "+model.drop_path=0.2"]
    pretrain(data, tmp_path / "whole", 4, *options)
    pretrain(data, tmp_path / "parts", 2, *options)
    assert "Loaded checkpoint" in pretrain(data, tmp_path / "parts", 4, *options)
    assert_equal(tmp_path / "whole/checkpoint_last.pt", tmp_path / "parts/checkpoint_last.pt", "_ema.video.")


@pytest.mark.slow
@pytest.mark.parametrize("modalities", ["video", "audio"])
def test_either_student_is_fine_tuned_and_decoded(data, pretrained, tmp_path, modalities):
    output = train(
        "finetune", tmp_path, f"task.data={data}", f"task.modalities={modalities}",
        f"model.w2v_path={pretrained}", *HYBRID,
    )  # fmt: skip
    assert '"num_updates": "3"' in output
    assert_decoded(generate(data, tmp_path / "checkpoint_last.pt", "--modalities", modalities, "--beam", "2"))
    model = av_ssl.load(tmp_path / "checkpoint_last.pt")
    assert model.encoder.w2v_model.modality == modalities


@pytest.mark.slow
def test_both_streams_at_once_are_refused(data, pretrained, tmp_path):
    output = train(
        "finetune", tmp_path, f"task.data={data}", "task.modalities=av", f"model.w2v_path={pretrained}",
        *HYBRID, expect=1,
    )  # fmt: skip
    assert "set task.modalities=audio or video" in output


def test_filterbanks_are_refused(data, tmp_path):
    output = pretrain(data, tmp_path, 1, "task.audio_input=filterbank", expect=1)
    assert "set task.audio_input=waveform" in output
