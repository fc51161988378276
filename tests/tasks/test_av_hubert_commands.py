"""AV-HuBERT under its own names: pre-training, fine-tuning and decoding by the stock commands."""

import re

import numpy as np
import pytest
from fairseq.checkpoint_utils import load_checkpoint_to_cpu

from tests.data_folder import CLUSTERS
from tests.stock import REPOSITORY, stock

from .conftest import assert_decoded, generate, pretrain, tensors

TINY = [
    "common.cpu=true", "common.fp16=false", "common.log_interval=1", "dataset.max_tokens=150",
    "dataset.num_workers=0", "dataset.required_batch_size_multiple=1", "task.frames_per_update=0",
    "distributed_training.distributed_world_size=1", "+task.image_crop_size=22",
]  # fmt: skip
TINY_ENCODER = [
    "+model.encoder_layers=2", "+model.encoder_embed_dim=16", "+model.encoder_ffn_embed_dim=32",
    "+model.encoder_attention_heads=2", "+model.conv_pos=8", "+model.conv_pos_groups=2",
    "+model.resnet_width=4", "model.final_dim=8",
]  # fmt: skip
TINY_DECODER = [
    "+model.decoder_layers=1", "+model.decoder_embed_dim=16", "+model.decoder_ffn_embed_dim=16",
    "+model.decoder_attention_heads=2",
]  # fmt: skip


def train(kind, recipe, data, save, *overrides):
    return stock(
        "fairseq-hydra-train", "--config-dir", REPOSITORY / "examples/av_hubert/conf" / kind,
        "--config-name", recipe, f"task.data={data}", f"common.user_dir={REPOSITORY / 'av_ssl'}",
        f"checkpoint.save_dir={save}", f"hydra.run.dir={save}", *TINY, *overrides,
    )  # fmt: skip


def pretrain_av_hubert(recipe, data, labels, save, *overrides):
    return train(
        "pretrain", recipe, data, save, f"task.label_dir={labels}", *TINY_ENCODER,
        "optimization.max_update=3", "lr_scheduler.warmup_updates=1", "lr_scheduler.total_num_update=3",
        *overrides,
    )  # fmt: skip


def finetune(recipe, data, checkpoint, save, *overrides):
    return train(
        "finetune", recipe, data, save, f"task.label_dir={data}", f"model.w2v_path={checkpoint}",
        f"task.tokenizer_bpe_model={data / 'spm.model'}", "optimization.max_update=3",
        "lr_scheduler.warmup_steps=1", "lr_scheduler.decay_steps=2", "model.freeze_finetune_updates=1",
        "dataset.disable_validation=true", *overrides,
    )  # fmt: skip


def last_logged(output, key):
    return float(re.findall(rf'"{key}": "?([-\d.]+)', output)[-1])


@pytest.fixture(scope="module")
def pretrained(data, labels, tmp_path_factory):
    """The last iteration's recipe, labels at 25 Hz, validated."""
    save = tmp_path_factory.mktemp("iteration5")
    output = pretrain_av_hubert("base_lrs3_iter5", data, labels, save, "dataset.validate_interval_updates=3")
    # fairseq divides nats by ln 2; dictionaries have four symbols more than there are clusters.
    assert last_logged(output, "valid_loss_m_0") == pytest.approx(np.log2(CLUSTERS + 4), rel=0.5)
    assert 0 <= last_logged(output, "valid_accuracy_m_0") <= 1
    return save / "checkpoint_last.pt"


@pytest.mark.slow
def test_two_iterations_by_the_script(data, tmp_path):
    """MFCC clusters at 100 Hz, a model, its clusters at 25 Hz, the next model."""
    stock(
        REPOSITORY / "examples/av_hubert/run.sh", data, tmp_path, "--gpus", "0", "--iterations", "2",
        "--updates", "2", "--clusters", f"{CLUSTERS},12", "--layers", "2", "--fit-share", "1", "--",
        *TINY, *TINY_ENCODER, "dataset.disable_validation=true",
    )  # fmt: skip
    frames = [int(line.split("\t")[3]) for line in (data / "train.tsv").read_text().splitlines()[1:]]
    for iteration, label, rate, clusters in ((1, "mfcc", 100, CLUSTERS), (2, "km", 25, 12)):
        lines = (tmp_path / f"labels{iteration}/train.{label}").read_text().splitlines()
        seconds = np.array([len(line.split()) for line in lines]) / rate
        np.testing.assert_allclose(seconds, np.array(frames) / 25, atol=0.05)
        state = load_checkpoint_to_cpu(str(tmp_path / f"iteration{iteration}/checkpoint_last.pt"))
        assert state["model"]["label_embs_concat"].shape == (clusters + 4, 8)
        assert state["model"]["mask_emb"].shape == (16,)  # of the fused features
        assert state["task_state"]["label_symbols"][0][4:] == [str(cluster) for cluster in range(clusters)]


SEARCH = ["--beam", "2", "--max-len-a", "1", "--max-len-b", "10"]


@pytest.mark.slow
def test_validate_command(data, labels, pretrained):
    output = stock(
        "fairseq-validate", data, "--user-dir", REPOSITORY / "av_ssl", "--task", "av_hubert_pretraining",
        "--path", pretrained, "--valid-subset", "valid", "--max-tokens", "200", "--cpu",
        "--label-dir", labels, "--labels", "['km']", "--modalities", "['audio','video']",
        "--label-rate", "25", "--sample-rate", "25", "--stack-order-audio", "4", "--image-crop-size", "22",
        "--log-format", "simple",
    )  # fmt: skip
    assert re.search(r"valid on 'valid' subset.* accuracy_m_0 \d", output), output[-2000:]


@pytest.mark.slow
def test_attention_decoder_is_trained_and_decoded_under_either_name(data, pretrained, tmp_path):
    output = finetune("base_lrs3_30h", data, pretrained, tmp_path, *TINY_DECODER)
    assert re.search(r"loaded \d+ tensors of .*; \d+ were not used", output)
    checkpoint = tmp_path / "checkpoint_last.pt"
    assert_decoded(generate(data, checkpoint, *SEARCH, "--modalities", "video"))
    own_keys = [
        "--fine-tuning", "--is-s2s", "--labels", "['wrd']", "--modalities", "['video']", "--pad-audio",
        "--stack-order-audio", "4", "--tokenizer-bpe-name", "sentencepiece",
    ]  # fmt: skip
    assert_decoded(generate(data, checkpoint, *SEARCH, *own_keys, task="av_hubert_pretraining"))


@pytest.mark.slow
def test_ctc_head_hears_what_was_trained_on_both(data, pretrained, tmp_path):
    finetune("base_433h_ctc", data, pretrained, tmp_path, "task.modalities=[audio,video]")
    assert_decoded(generate(data, tmp_path / "checkpoint_last.pt", *SEARCH, "--modalities", "audio"))


@pytest.mark.slow
def test_av2vec_mlm(data, labels, tmp_path):
    output = pretrain(
        data, tmp_path, 2, f"+task.label_dir={labels}", "+task.labels=[km]", "+model.use_mlm=true",
        "+model.final_dim=8",
    )  # fmt: skip
    assert last_logged(output, "train_loss_regression") > 0
    assert last_logged(output, "train_loss_m_0") == pytest.approx(np.log2(CLUSTERS + 4), rel=0.5)
    assert last_logged(output, "train_gradient_ratio") > 0
    classes = tensors(tmp_path / "checkpoint_last.pt")["label_embs_concat"]
    assert classes.shape == (CLUSTERS + 4, 8)
