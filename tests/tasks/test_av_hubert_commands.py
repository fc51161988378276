"""AV-HuBERT under its own names: pre-training, fine-tuning and decoding by the stock commands."""

import re

import numpy as np
import pytest
from fairseq.checkpoint_utils import load_checkpoint_to_cpu

from tests.data_folder import CLUSTERS
from tests.stock import REPOSITORY, stock

from .conftest import DECODER, assert_decoded, generate, run_printed, validate

TINY = [
    "common.cpu=true", "common.fp16=false", "common.log_interval=1", "common.log_format=json",
    "dataset.max_tokens=150",
    "dataset.num_workers=0", "dataset.required_batch_size_multiple=1", "task.frames_per_update=0",
    "distributed_training.distributed_world_size=1", "+task.image_crop_size=22",
]  # fmt: skip
TINY_ENCODER = [
    "+model.encoder_layers=2", "+model.encoder_embed_dim=16", "+model.encoder_ffn_embed_dim=32",
    "+model.encoder_attention_heads=2", "+model.conv_pos=8", "+model.conv_pos_groups=2",
    "+model.resnet_width=4", "model.final_dim=8",
]  # fmt: skip


def last_logged(output, key):
    return float(re.findall(rf'"{key}": "?([-\d.]+)', output)[-1])


@pytest.fixture(scope="module")
def iterations(data, tmp_path_factory):
    """MFCC clusters at 100 Hz, a model, its clusters at 25 Hz, the next model: by the script's commands."""
    out = tmp_path_factory.mktemp("iterations")
    output = run_printed(
        REPOSITORY / "examples/av_hubert/run.sh", data, out, "--gpus", "0", "--iterations", "2",
        "--updates", "2", "--clusters", f"{CLUSTERS},12", "--layers", "2", "--fit-share", "1", "--",
        *TINY, *TINY_ENCODER, "dataset.validate_interval_updates=2",
    )  # fmt: skip
    # fairseq divides nats by ln 2; dictionaries have four symbols more than there are clusters.
    assert last_logged(output, "valid_loss_m_0") == pytest.approx(np.log2(12 + 4), rel=0.75)
    assert 0 <= last_logged(output, "valid_accuracy_m_0") <= 1
    return out


@pytest.mark.slow
def test_two_iterations(data, iterations):
    frames = [int(line.split("\t")[3]) for line in (data / "train.tsv").read_text().splitlines()[1:]]
    for iteration, label, rate, clusters in ((1, "mfcc", 100, CLUSTERS), (2, "km", 25, 12)):
        lines = (iterations / f"labels{iteration}/train.{label}").read_text().splitlines()
        seconds = np.array([len(line.split()) for line in lines]) / rate
        np.testing.assert_allclose(seconds, np.array(frames) / 25, atol=0.05)
        state = load_checkpoint_to_cpu(str(iterations / f"iteration{iteration}/checkpoint_last.pt"))
        assert state["model"]["label_embs_concat"].shape == (clusters + 4, 8)
        assert state["model"]["mask_emb"].shape == (16,)  # of the fused features
        assert state["task_state"]["label_symbols"][0][4:] == [str(cluster) for cluster in range(clusters)]


@pytest.mark.slow
def test_validate_command(data, iterations):
    output = validate(
        data, "av_hubert_pretraining", iterations / "iteration2/checkpoint_last.pt",
        "--label-dir", iterations / "labels2", "--labels", "['km']", "--modalities", "['audio','video']",
        "--label-rate", "25", "--sample-rate", "25", "--stack-order-audio", "4",
    )  # fmt: skip
    assert re.search(r"valid on 'valid' subset.* accuracy_m_0 \d", output), output[-2000:]


@pytest.mark.slow
def test_attention_decoder_is_trained_and_decoded_under_either_name(data, iterations, tmp_path):
    stock(
        "fairseq-hydra-train", "--config-dir", REPOSITORY / "examples/av_hubert/conf/finetune",
        "--config-name", "base_lrs3_30h", f"task.data={data}", f"common.user_dir={REPOSITORY / 'av_ssl'}",
        f"checkpoint.save_dir={tmp_path}", f"hydra.run.dir={tmp_path}", f"task.label_dir={data}",
        f"model.w2v_path={iterations / 'iteration2/checkpoint_last.pt'}",
        f"task.tokenizer_bpe_model={data / 'spm.model'}", "optimization.max_update=2",
        "lr_scheduler.warmup_steps=1", "lr_scheduler.decay_steps=1", "model.freeze_finetune_updates=1",
        "dataset.disable_validation=true", *TINY, *DECODER,
    )  # fmt: skip
    checkpoint, search = tmp_path / "checkpoint_last.pt", ["--beam", "2", "--max-len-b", "10"]
    assert_decoded(generate(data, checkpoint, "--modalities", "video", *search))
    own_keys = [
        "--task", "av_hubert_pretraining", "--fine-tuning", "--is-s2s", "--labels", "['wrd']",
        "--modalities", "['video']", "--pad-audio", "--stack-order-audio", "4",
        "--tokenizer-bpe-name", "sentencepiece",
    ]  # fmt: skip
    assert_decoded(generate(data, checkpoint, *search, *own_keys))
