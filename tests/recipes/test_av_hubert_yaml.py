"""AV-HuBERT's own YAML files run unchanged: every key of its recipes, spelled as there, and its commands.

The files beside this test were written from the tables of its recipes, with the keys that have no effect.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from fairseq import criterions, tasks

import av_ssl.tasks  # noqa: F401  (registers everything)
from av_ssl.analysis.plan import read_recipe

YAML = Path(__file__).parent / "av_hubert_yaml"
TINY = ["encoder_layers=1", "encoder_embed_dim=16", "encoder_ffn_embed_dim=16", "encoder_attention_heads=2"]
TINY_DECODER = ["decoder_layers=1", "decoder_embed_dim=16", "decoder_ffn_embed_dim=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("av hubert")
    (folder / "dict.wrd.txt").write_text("".join(f"piece{n} 1\n" for n in range(20)))
    (folder / "dict.km.txt").write_text("".join(f"{n} 1\n" for n in range(10)))
    return folder


def load(folder: Path, name: str, *overrides: str):
    """As ``fairseq-hydra-train --config-dir YAML --config-name NAME OVERRIDES`` does it."""
    return read_recipe(YAML / f"{name}.yaml", Path("/none"), [*overrides, f"task.label_dir={folder}"])


def build(cfg):
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    return task, model, criterions.build_criterion(cfg.criterion, task)


@pytest.fixture(scope="module")
def pretraining(folder: Path):
    tiny = [f"model.{key}" for key in TINY]
    return load(folder, "pretraining", "model.label_rate=100", "task.noise_wav=/noise", *tiny)


def test_pretraining(pretraining):
    task, model, criterion = build(pretraining)
    assert (task.cfg.label_rate, task.cfg.noise_snr, task.cfg.noise_prob) == (100, "0", 0.25)
    assert (task.cfg.max_trim_sample_size, task.cfg.pad_audio, task.cfg.random_crop) == (400, False, True)
    assert model.label_embs_concat.shape == (14, 256)
    assert model.mask_emb.shape == (104,)
    assert (task.needs.masking.video.length, task.needs.masking.audio.length) == (5, 10)
    assert (task.needs.masking.modality_dropout, task.needs.masking.audio_dropout) == (0.5, 0.5)
    assert criterion.penalty_weight == 10


def finetuning(folder: Path, pretraining, *overrides: str):
    cfg = load(
        folder, "finetuning", "model.w2v_path=/none", "task.tokenizer_bpe_model=null",
        *(f"model.{key}" for key in TINY_DECODER), *overrides,
    )  # fmt: skip
    cfg.model.w2v_args = {"model": pretraining.model, "task": pretraining.task}
    cfg.model.no_pretrained_weights = True
    return cfg


def test_finetuning(folder: Path, pretraining):
    task, model, _ = build(finetuning(folder, pretraining))
    assert (task.cfg.modalities, task.cfg.labels, len(task.target_dictionary)) == ("video", "wrd", 24)
    encoder = model.encoder.w2v_model
    assert (encoder.cfg.encoder_layerdrop, encoder.cfg.activation_dropout, encoder.cfg.dropout) == (
        0.1,
        0.1,
        0,
    )
    assert model.encoder.frozen
    assert model.decoder.embed_tokens.weight.shape == (24, 16)


def test_masking_in_finetuning_is_refused(folder: Path, pretraining):
    with pytest.raises(ValueError, match=r"model\.apply_mask=true.*set it to false"):
        build(finetuning(folder, pretraining, "model.apply_mask=true"))


@pytest.mark.parametrize(
    ("key", "value", "mend"),
    [("mask_channel_prob", 0.5, "set it to 0"), ("resnet_weights", "lipreading.pt", "set it to null")],
)
def test_what_would_train_another_model_is_refused(pretraining, key, value, mend):
    cfg = copy.deepcopy(pretraining)
    cfg.model.masking_type = "feature"
    cfg.model[key] = value
    with pytest.raises(ValueError, match=f"model.{key}.*{mend}"):
        build(cfg)
