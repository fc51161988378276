"""Between forms of a file, and from AV2vec to AV-HuBERT."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task

import av_ssl
import av_ssl.tasks
from av_ssl.checkpoints.files import read_stored, write_stored
from av_ssl.errors import DataError
from av_ssl.sharing.av_hubert import as_av_hubert
from tests.checkpoints.published_layout import (
    clusters,
    finetuned_state,
    pretrained_state,
    save,
)
from tests.methods.helpers import TINY, source, tiny_av2vec


def av2vec_file(path: Path, **overrides: Any) -> Any:
    model = tiny_av2vec(**overrides)
    model.teacher = model.make_teacher()
    cfg = {
        "model": {"_name": "av2vec", **TINY, **overrides},
        "task": {"_name": "av_pretraining", "data": "/data", "modalities": "av", "max_sample_size": 500},
    }
    torch.save({"cfg": cfg, "model": model.state_dict()}, path)
    return model.eval()


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    assert type(a) is type(b)
    own, other = a.state_dict(), b.state_dict()
    assert own.keys() == other.keys()
    for name, tensor in own.items():
        assert torch.equal(tensor, other[name]), name


def test_there_and_back(published, tmp_path):
    plain, back = tmp_path / "plain.safetensors", tmp_path / "back.pt"
    first = av_ssl.load(published).module
    assert write_stored(read_stored(published), plain) == [plain, tmp_path / "plain.json"]
    assert json.loads((tmp_path / "plain.json").read_text())["cfg"]["common"] == {"seed": 1337, "fp16": True}
    before, after = torch.load(published)["model"], read_stored(plain).tensors
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    write_stored(read_stored(plain), back)
    for path in (plain, back):
        again = av_ssl.load(path).module
        assert_same(first, again)
        assert again.cfg == first.cfg
        assert again.task_cfg == first.task_cfg
        if first.text_encoder is not None:
            assert again.text_encoder.dictionary.symbols == first.text_encoder.dictionary.symbols
            assert again.text_encoder.tokenizer == first.text_encoder.tokenizer
    (stock,), _, _ = load_model_ensemble_and_task([str(back)])
    assert_same(first, stock.eval())


@pytest.mark.parametrize("masking", ["stream_feature", "input", "feature"])
def test_av2vec_becomes_av_hubert(tmp_path, masking):
    spans = {"mask_prob_image": 0.8, "mask_length_image": 10}  # as of the audio, which "feature" asks for
    av2vec = av2vec_file(tmp_path / "av2vec.pt", masking_type=masking, resnet_width=64, **spans)
    write_stored(as_av_hubert(read_stored(tmp_path / "av2vec.pt")), tmp_path / "av_hubert.pt")
    exported = torch.load(tmp_path / "av_hubert.pt")
    names = exported["model"].keys()
    assert {"mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"} <= names
    assert not [name for name in names if name.startswith(("_ema", "final_pred", "mask_emb_video"))]
    assert not {"resnet_width", "compile", "image_mean", "ema_decay"} & exported["cfg"]["model"].keys()
    assert exported["cfg"]["task"]["modalities"] == ["audio", "video"]
    (model,), _, _ = load_model_ensemble_and_task([str(tmp_path / "av_hubert.pt")])  # strictly
    assert model.cfg._name == "av_hubert"
    assert model.cfg.layer_norm_first == av2vec.cfg.layer_norm_first
    batch = source([8, 6], 8)
    with torch.no_grad():
        expected, _ = av2vec.extract_finetune(batch["source"], batch["padding_mask"])
        features, _ = model.eval().extract_finetune(batch["source"], batch["padding_mask"])
    torch.testing.assert_close(features, expected, atol=0, rtol=0)


def test_a_trained_cluster_head_stays(tmp_path):
    path = save(pretrained_state(), tmp_path / "published.pt")
    stored = read_stored(path)
    exported = as_av_hubert(stored)
    assert exported.tensors.keys() == stored.tensors.keys()
    assert all(torch.equal(exported.tensors[name], stored.tensors[name]) for name in stored.tensors)
    assert exported.label_sets == [clusters().symbols]


def with_own_labels(content: dict[str, Any], *label_sets: list[str]) -> dict[str, Any]:
    """As this package's training stores the dictionaries."""
    return {**content, "task_state": {"label_symbols": list(label_sets)}}


@pytest.mark.parametrize("stored", [True, False])
def test_a_model_trained_here_keeps_its_clusters(tmp_path, stored):
    own = with_own_labels(pretrained_state(), *[clusters().symbols] * stored)
    exported = as_av_hubert(read_stored(save(own, tmp_path / "own.pt")))
    assert exported.label_sets == [clusters().symbols]
    write_stored(exported, tmp_path / "plain.pt")
    (model,), _, _ = load_model_ensemble_and_task([str(tmp_path / "plain.pt")])
    assert model.classes == [24]


@pytest.mark.parametrize("use_mlm", [True, False])
def test_av2vec_beside_labels_becomes_av_hubert(tmp_path, use_mlm):
    model = tiny_av2vec([24], use_mlm=use_mlm, target_glu=True)
    cfg = {
        "model": {"_name": "av2vec", **TINY, "use_mlm": use_mlm, "target_glu": True},
        "task": {"_name": "av_pretraining", "data": "/data", "labels": ["km"]},
    }
    content = with_own_labels({"cfg": cfg, "model": model.state_dict()}, clusters().symbols)
    write_stored(as_av_hubert(read_stored(save(content, tmp_path / "av2vec.pt"))), tmp_path / "plain.pt")
    (plain,), _, _ = load_model_ensemble_and_task([str(tmp_path / "plain.pt")])
    assert plain.classes == [24 if use_mlm else 5]
    if use_mlm:
        x = torch.randn(3, 16)
        assert torch.equal(plain.cluster_logits(x)[0], model.cluster_logits(x)[0])


def test_what_av_hubert_cannot_read_is_named(tmp_path, caplog):
    av2vec_file(tmp_path / "narrow.pt")
    with caplog.at_level(logging.WARNING):
        as_av_hubert(read_stored(tmp_path / "narrow.pt"))
    assert "narrow.pt: its visual front-end begins with 4 channels, AV-HuBERT's with 64" in caplog.text


def test_a_recogniser_is_no_encoder(tmp_path):
    path = save(finetuned_state(tmp_path), tmp_path / "recogniser.pt")
    with pytest.raises(DataError, match=r"recogniser\.pt: a model 'av_hubert_seq2seq' is no pre-trained"):
        as_av_hubert(read_stored(path))


def test_infinite_values_are_kept_as_words(tmp_path):
    stored = read_stored(save(pretrained_state(), tmp_path / "published.pt"))
    stored.cfg["optimization"] = {"stop": float("inf")}
    write_stored(stored, tmp_path / "plain.safetensors")
    assert read_stored(tmp_path / "plain.safetensors").cfg["optimization"] == {"stop": "inf"}


def test_other_suffixes_are_refused(tmp_path):
    stored = read_stored(save(pretrained_state(), tmp_path / "published.pt"))
    with pytest.raises(DataError, match=r"model\.onnx: name a file that ends in \.pt .*or \.safetensors"):
        write_stored(stored, tmp_path / "model.onnx")
