"""RAVEn by the stock commands: pre-training, resuming, fine-tuning of either student, decoding."""

from pathlib import Path

import pytest

import av_ssl

from .conftest import (
    DECODER,
    NO_CTC,
    RESUMABLE,
    assert_bit_identical,
    assert_decoded,
    finetune,
    generate,
    killed_after,
    tensors,
    train,
)

TINY = [
    "model.encoder_layers=2", "model.encoder_embed_dim=16", "model.encoder_ffn_embed_dim=32",
    "model.encoder_attention_heads=2", "model.resnet_width=4", "model.predictor_embed_dim=16",
    "model.predictor_ffn_embed_dim=32", "model.predictor_attention_heads=2",
    "+model.ema_updates=20",  # the key of version 0.1; a resumed run must not depend on the number of updates
]  # fmt: skip
HYBRID = [
    "model._name=hybrid_ctc_attention", "criterion._name=hybrid_ctc_attention", "~model.final_dropout",
    *NO_CTC, *DECODER, "+task.audio_input=waveform", "common.bf16=true",
]  # fmt: skip


def pretrain(data: Path, save: Path) -> str:
    return train(
        "pretrain_raven", save, f"task.data={data}", "optimization.max_update=3", *TINY, *RESUMABLE,
        "+model.drop_path=0.2", "model._name=braven", "criterion._name=braven", schedule=(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save = tmp_path_factory.mktemp("raven")
    output = pretrain(data, save)
    for logged in ("loss_va", "loss_av", "loss_aa", "gnorm_video", "gnorm_audio", "audio_target_std"):
        assert f'"{logged}"' in output
    return save / "checkpoint_last.pt"


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted_one(data, pretrained, tmp_path):
    """Bit for bit, teachers and batch-norm statistics included, with accumulation and dropout."""
    killed_after(pretrained.parent, "checkpoint_1_1.pt", tmp_path)
    assert "Loaded checkpoint" in pretrain(data, tmp_path)
    assert_bit_identical(pretrained.parent, tmp_path)
    assert any(name.startswith("_ema.video.") for name in tensors(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("modalities", ["video", "audio"])
def test_either_student_is_fine_tuned_and_decoded(data, pretrained, tmp_path, modalities):
    output = finetune(data, pretrained, tmp_path, *HYBRID, modalities=modalities)
    assert '"num_updates": "2"' in output
    checkpoint = tmp_path / "checkpoint_last.pt"
    assert_decoded(generate(data, checkpoint, "--modalities", modalities, "--beam", "2"))
    model = av_ssl.load(checkpoint)
    assert model.encoder.w2v_model.modality == modalities
