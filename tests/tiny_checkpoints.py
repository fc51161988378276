"""Checkpoints of tiny models with random weights, for clips of 24 x 24 pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import OmegaConf

from av_ssl.methods.av2vec import AV2vecModel
from av_ssl.recognition.heads import CTCConfig, CTCModel
from tests.checkpoints.published_layout import ENCODER, finetuned_state
from tests.methods.helpers import TINY, build, config, tiny_av2vec
from tests.methods.raven_layout import published
from tests.recognition.tiny_models import letters


def write_checkpoint(path: Path, model: AV2vecModel | None = None) -> Path:
    """A fused model of three layers, saved as fairseq does."""
    task = {"_name": "av_pretraining", "normalize": True, "image_crop_size": 22}
    cfg = {"model": {"_name": "av2vec", **TINY}, "task": task, "criterion": {"_name": "av2vec"}}
    torch.save({"args": None, "cfg": cfg, "model": (model or tiny_av2vec()).state_dict()}, path)
    return path


def write_recogniser(
    path: Path, kind: str = "av_hubert_seq2seq", modalities: tuple[str, ...] = ("audio", "video")
) -> Path:
    """A recogniser with random weights, dictionary and tokenizer in the file."""
    hybrid = kind == "hybrid_ctc_attention"
    state = finetuned_state(path.parent, "av_hubert_seq2seq" if hybrid else kind)
    if hybrid:
        symbols = len(state["task_state"]["target_dictionary"])
        head = torch.nn.Linear(ENCODER["encoder_embed_dim"], symbols).state_dict()
        state["model"].update({f"ctc.proj.{name}": tensor for name, tensor in head.items()})
        state["cfg"]["model"]["_name"] = kind
    state["cfg"]["task"].update(image_crop_size=22, modalities=list(modalities))
    torch.save(state, path)
    return path


def write_raven_recogniser(path: Path, modality: str) -> Path:
    """A CTC recogniser on RAVEn's encoder of one stream, with random weights; its symbols are words."""
    pretrained = path.with_suffix(".pretrained")
    torch.save(published(modality), pretrained)
    dictionary = letters()
    audio_input = "waveform" if modality == "audio" else "filterbank"
    cfg = config(CTCConfig, pretrained)
    model = build(CTCModel, cfg, dictionary, audio_input, modality)
    pretrained.unlink()
    task = {
        "_name": "av_recognition", "modalities": modality, "audio_input": audio_input, "normalize": True,
        "image_crop_size": 22,
    }  # fmt: skip
    values = {**OmegaConf.to_container(cfg, enum_to_str=True), "_name": "av_hubert_ctc"}
    text = {"symbols": list(dictionary.symbols), "tokenizer": None}
    cfg = {"model": values, "task": task}
    torch.save({"cfg": cfg, "model": model.state_dict(), "task_state": text}, path)
    return path
