"""Fine-tuning and decoding by the stock commands."""

import re
import shutil

import pytest
from omegaconf import OmegaConf

from av_ssl.errors import DataError
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask, warn_if_always_frozen

from .conftest import (
    DECODER,
    HYBRID,
    NO_CTC,
    assert_bit_identical,
    assert_decoded,
    finetune,
    generate,
    killed_after,
)


@pytest.fixture(scope="module")
def ctc(data, pretrained, tmp_path_factory):
    save = tmp_path_factory.mktemp("ctc")
    finetune(data, pretrained, save)
    return save / "checkpoint_last.pt"


@pytest.mark.slow
def test_ctc_of_both_streams_decodes_one(data, ctc):
    assert_decoded(generate(data, ctc, "--modalities", "video", "--beam", "4"))


@pytest.mark.slow
def test_seq2seq_decodes_in_noise(data, pretrained, tmp_path):
    seq2seq = [
        "model._name=av_hubert_seq2seq", *DECODER, "criterion._name=label_smoothed_cross_entropy",
        "+criterion.label_smoothing=0.1", *NO_CTC, "+model.freeze_finetune_updates=1",
    ]  # fmt: skip
    finetune(data, pretrained, tmp_path, *seq2seq, modalities="video")
    checkpoint, noise = tmp_path / "checkpoint_last.pt", ["--noise-prob", "1", "--noise-snr", "-5"]
    search = ["--beam", "3", "--max-len-b", "12", "--results-path", tmp_path]
    screen = generate(data, checkpoint, "--modalities", "av", *search, *noise, "--noise-wav", data / "noise")
    written = (tmp_path / "generate-test.txt").read_text()
    assert_decoded(written)
    rate = re.search(r"WER: ([\d.]+)", written)[1]
    assert re.search(rf"test: 4 clips, WER {rate} % \(\d+ substitutions, .* CER [\d.]+ %", screen)
    clips = (tmp_path / "clips-test.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in clips] == ["id", *(f"test_{number}" for number in range(4))]
    options = OmegaConf.load(tmp_path / "options-test.yaml")
    assert (options.task.noise_snr, options.task.modalities) == ("-5", "av")
    assert (options.generation.beam, options.generation.max_len_b) == (3, 12)
    assert options.common_eval.path == str(checkpoint)


@pytest.mark.slow
def test_hybrid_learns_by_layer_and_logs_both_losses(hybrid):
    _, output = hybrid
    assert re.search(r"peak learning rate 0\.004: new parameters", output)
    assert re.search(r"peak learning rate 0\.001: encoder, 1 layers below its output", output)
    for key in ("ctc_loss", "attention_loss", "accuracy", "unaligned", "valid_uer", "valid_wer"):
        assert re.search(rf'"(train_)?{key}": "[\d.]+"', output), key


@pytest.mark.slow
def test_resumed_hybrid_run_is_bit_identical(data, pretrained, hybrid, tmp_path):
    save, _ = hybrid
    killed_after(save, "checkpoint1.pt", tmp_path)
    finetune(data, pretrained, tmp_path, *HYBRID)
    rates = assert_bit_identical(save, tmp_path)
    assert len(set(rates)) == 3  # two layers and the heads


@pytest.mark.slow
def test_decoding_needs_no_pretrained_checkpoint(data, ctc, tmp_path):
    """The encoder's configuration and the dictionary travel in the fine-tuned file."""
    moved = tmp_path / "moved.pt"
    shutil.copy(ctc, moved)
    bare = tmp_path / "bare"
    shutil.copytree(data, bare, ignore=shutil.ignore_patterns("dict.*", "spm.*"))
    output = generate(bare, moved, "--modalities", "audio", "--beam", "1")
    assert_decoded(output)
    assert "dict.wrd.txt does not exist: the checkpoint's dictionary is used" in output


@pytest.mark.slow
def test_another_tokenizer_is_refused(data, ctc, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    lines = (other / "dict.wrd.txt").read_text().splitlines()
    (other / "dict.wrd.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    output = generate(other, ctc, expect=1)
    assert "error: " in output
    assert "Traceback" not in output
    assert "dict.wrd.txt" in output


def test_checkpoint_without_a_dictionary_warns(data, caplog):
    task = RecognitionTask(OmegaConf.structured(RecognitionConfig(data=str(data), seed=1)))
    task.load_state_dict({})
    assert "holds no dictionary" in caplog.text


@pytest.mark.parametrize(("updates", "warned"), [(9, False), (10, True), (60_000, True)])
def test_an_encoder_that_is_never_trained_is_reported(updates, warned, caplog):
    warn_if_always_frozen(updates, OmegaConf.create({"optimization": {"max_update": 10}}))
    assert (f"model.freeze_finetune_updates={updates}" in caplog.text) == warned


def test_missing_dictionary_is_named(tmp_path):
    (tmp_path / "test.tsv").write_text("/\n")
    task = RecognitionTask(OmegaConf.structured(RecognitionConfig(data=str(tmp_path), seed=1)))
    with pytest.raises(DataError, match=r"dict\.wrd\.txt: does not exist.*transcripts"):
        task.load_dataset("test")
