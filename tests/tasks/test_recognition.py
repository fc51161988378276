"""Fine-tuning and decoding by the stock commands."""

import re
import shutil

import pytest
import torch
from omegaconf import OmegaConf

from av_ssl.cli.main import main
from av_ssl.errors import DataError
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask

from .conftest import assert_decoded, generate, train

DECODER = [
    "+model.decoder_layers=1", "+model.decoder_embed_dim=16", "+model.decoder_ffn_embed_dim=16",
    "+model.decoder_attention_heads=2", "+model.share_decoder_input_output_embed=true",
    "+model.decoder_normalize_before=true",
]  # fmt: skip
SEQ2SEQ = [
    "model._name=av_hubert_seq2seq", *DECODER, "criterion._name=label_smoothed_cross_entropy",
    "+criterion.label_smoothing=0.1", "~criterion.zero_infinity", "~criterion.post_process",
]  # fmt: skip

HYBRID = [
    "model._name=hybrid_ctc_attention", *DECODER, "criterion._name=hybrid_ctc_attention",
    "~criterion.zero_infinity", "~criterion.post_process",
    "+optimizer.layer_decay=0.5", "optimizer.head_lr=0.004", "+optimizer.lr_floor=0.00001",
]  # fmt: skip
EVERY_EPOCH = ["checkpoint.no_epoch_checkpoints=false", "checkpoint.save_interval=1"]


def finetune(data, checkpoint, save, updates, *overrides, modalities="av", expect=0):
    return train(
        "finetune", save, f"task.data={data}", f"model.w2v_path={checkpoint}",
        f"optimization.max_update={updates}", f"task.modalities={modalities}", *overrides, expect=expect,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ctc(data, pretrained, tmp_path_factory):
    save = tmp_path_factory.mktemp("ctc")
    finetune(data, pretrained, save, 2)
    return save / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def seq2seq(data, pretrained, tmp_path_factory):
    save = tmp_path_factory.mktemp("seq2seq")
    output = finetune(
        data, pretrained, save, 4, *SEQ2SEQ, "+model.freeze_finetune_updates=2", modalities="video"
    )
    assert re.search(r"loaded \d+ tensors of .*; \d+ were not used", output)
    return save / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def hybrid(data, pretrained, tmp_path_factory):
    """The folder of a run of two epochs, each of which left a checkpoint, and what training said."""
    save = tmp_path_factory.mktemp("hybrid")
    output = finetune(
        data, pretrained, save, 1000, *HYBRID, "optimization.max_epoch=2", *EVERY_EPOCH,
        "dataset.disable_validation=false",
    )  # fmt: skip
    return save, output


@pytest.mark.slow
@pytest.mark.parametrize("modalities", ["audio", "video", "av"])
def test_ctc_decodes_every_combination(data, ctc, modalities):
    assert_decoded(generate(data, ctc, "--modalities", modalities, "--beam", "4"))


@pytest.mark.slow
def test_seq2seq_decodes_in_noise(data, seq2seq, tmp_path):
    noise = ["--noise-wav", data / "noise", "--noise-prob", "1", "--noise-snr", "-5"]
    search = ["--beam", "3", "--max-len-b", "12", "--results-path", tmp_path]
    generate(data, seq2seq, "--modalities", "av", *search, *noise)
    assert_decoded((tmp_path / "generate-test.txt").read_text())
    options = OmegaConf.load(tmp_path / "options-test.yaml")
    assert (options.task.noise_snr, options.task.modalities) == ("-5", "av")
    assert (options.generation.beam, options.generation.max_len_b) == (3, 12)
    assert options.common_eval.path == str(seq2seq)


@pytest.mark.slow
def test_hybrid_learns_by_layer_and_logs_both_losses(hybrid):
    _, output = hybrid
    assert re.search(r"peak learning rate 0\.004: new parameters", output)
    assert re.search(r"peak learning rate 0\.001: encoder, 1 layers below its output", output)
    for key in ("ctc_loss", "attention_loss", "accuracy", "unaligned", "valid_uer"):
        assert re.search(rf'"(train_)?{key}": "[\d.]+"', output), key


@pytest.mark.slow
def test_mean_of_hybrids_is_decoded(data, hybrid, tmp_path):
    """Here from the mean of two checkpoints, which fairseq-generate reads like any other."""
    save, _ = hybrid
    mean = tmp_path / "mean.pt"
    assert main(["model", "average", str(mean), str(save), "--epochs", "2"]) == 0
    output = generate(data, mean, "--modalities", "av", "--beam", "3", "--max-len-b", "12")
    assert_decoded(output)


@pytest.mark.slow
def test_resumed_hybrid_run_is_bit_identical(data, pretrained, hybrid, tmp_path):
    save, _ = hybrid
    for epochs in (1, 2):
        finetune(data, pretrained, tmp_path, 1000, *HYBRID, f"optimization.max_epoch={epochs}", *EVERY_EPOCH)
    straight, resumed = (
        torch.load(folder / "checkpoint_last.pt", weights_only=False) for folder in (save, tmp_path)
    )
    for name, tensor in straight["model"].items():
        assert torch.equal(tensor, resumed["model"][name]), name
    rates = [
        [group["lr"] for group in run["last_optimizer_state"]["param_groups"]] for run in (straight, resumed)
    ]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 3  # two layers and the heads


@pytest.mark.slow
def test_hybrid_trains_in_bfloat16(data, pretrained, tmp_path):
    output = finetune(data, pretrained, tmp_path, 2, *HYBRID, "common.bf16=true")
    assert "peak learning rate 0.004: new parameters" in output


@pytest.mark.slow
def test_decoding_needs_no_pretrained_checkpoint(data, ctc, tmp_path):
    """The encoder's configuration and the dictionary travel in the fine-tuned file."""
    moved = tmp_path / "moved.pt"
    shutil.copy(ctc, moved)
    bare = tmp_path / "bare"
    shutil.copytree(data, bare, ignore=shutil.ignore_patterns("dict.*", "spm.*"))
    output = generate(bare, moved, "--modalities", "audio", "--beam", "1")
    assert_decoded(output)
    assert "the checkpoint's dictionary is used" in output


@pytest.mark.slow
def test_another_tokenizer_is_refused(data, ctc, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    lines = (other / "dict.wrd.txt").read_text().splitlines()
    (other / "dict.wrd.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    output = generate(other, ctc, expect=1)
    assert "DataError" in output
    assert "dict.wrd.txt" in output


@pytest.mark.slow
def test_frozen_from_scratch_and_missing_checkpoint(data, pretrained, tmp_path):
    output = finetune(data, tmp_path / "none.pt", tmp_path, 1, expect=1)
    assert "there is no such file" in output
    output = finetune(data, pretrained, tmp_path / "scratch", 1, "+model.no_pretrained_weights=true")
    assert "loaded" not in output.replace("Loaded", "")


def test_checkpoint_without_a_dictionary_warns(data, caplog):
    task = RecognitionTask(OmegaConf.structured(RecognitionConfig(data=str(data), seed=1)))
    task.load_state_dict({})
    assert "holds no dictionary" in caplog.text


def test_missing_dictionary_is_named(tmp_path):
    task = RecognitionTask(OmegaConf.structured(RecognitionConfig(data=str(tmp_path), seed=1)))
    with pytest.raises(DataError, match=r"dict\.wrd\.txt: the dictionary cannot be read"):
        task.load_dataset("test")
