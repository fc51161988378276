"""Synthetic files in the layout of AV-HuBERT's published checkpoints: random weights, tiny widths."""

import shutil
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE, SentencepieceConfig
from omegaconf import OmegaConf
from torch import Tensor

from av_ssl.methods.av_hubert import AVHubertConfig, AVHubertModel
from av_ssl.recognition.heads import CTCConfig, CTCModel, Seq2SeqConfig, Seq2SeqModel
from tests.data_folder import write_vocabulary
from tests.dictionaries import dictionary_of
from tests.methods.helpers import rebuild

# resnet_width is not in the published files: their front-end is 16 times as wide, and slow to store.
ENCODER = {
    "encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2,
    "layer_norm_first": True, "final_dim": 8, "untie_final_proj": True, "audio_feat_dim": 104, "conv_pos": 8,
    "conv_pos_groups": 2, "resnet_width": 4, "masking_type": "input", "dropout_input": 0.1,
}  # fmt: skip
DECODER = {
    "decoder_layers": 2, "decoder_embed_dim": 16, "decoder_ffn_embed_dim": 32, "decoder_attention_heads": 2,
    "share_decoder_input_output_embed": True, "decoder_normalize_before": True,
}  # fmt: skip
# Of the older fairseq that AV-HuBERT was written for.
DEAD_KEYS = {"required_seq_len_multiple": 1, "layer_type": "transformer", "pos_conv_depth": 1}
TASK = {
    "_name": "av_hubert_pretraining", "data": "/checkpoint/lrs3", "label_dir": "/checkpoint/km",
    "labels": ["km"], "label_rate": 25, "sample_rate": 25, "normalize": True, "stack_order_audio": 4,
    "modalities": ["audio", "video"], "input_modality": "image", "no_such_key": 3, "pdb": False,
    "noise_snr": 0, "image_mean": 0.421, "image_std": 0.165, "image_crop_size": 88, "max_sample_size": 500,
    "single_target": False, "is_s2s": False, "fine_tuning": False,
}  # fmt: skip


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def clusters(number: int = 20) -> Dictionary:
    return dictionary_of(range(number))


def state(cfg: dict[str, Any], tensors: dict[str, Tensor], task_state: dict[str, Any]) -> dict[str, Any]:
    """All keys of a published file."""
    return {
        "args": None,
        "cfg": {"common": {"seed": 1337, "fp16": True}, **cfg},
        "model": tensors,
        "criterion": None,
        "optimizer_history": [
            {"criterion_name": "X", "optimizer_name": "FairseqAdam", "lr_scheduler_state": {"best": None},
             "num_updates": 400000}
        ],
        "task_state": task_state,
        "extra_state": {"train_iterator": {"epoch": 7}, "val_loss": None},
        "last_optimizer_state": None,
    }  # fmt: skip


def pretrained_model(**overrides: Any) -> AVHubertModel:
    torch.manual_seed(0)
    cfg = AVHubertConfig(**{**ENCODER, "image_mean": 0.421, "image_std": 0.165, **overrides})
    return AVHubertModel(cfg, [len(clusters())])


def pretrained_state() -> dict[str, Any]:
    cfg = {
        "model": {"_name": "av_hubert", **ENCODER, **DEAD_KEYS, "label_rate": "${task.label_rate}"},
        "task": TASK,
        "criterion": {"_name": "av_hubert", "loss_weights": [10.0]},
    }
    return state(cfg, dict(pretrained_model().state_dict()), {"dictionaries": [clusters()]})


def tokenizer(folder: Path) -> SentencepieceBPE:
    """A pickled tokenizer, made from a file that is gone afterwards."""
    gone = folder / "gone"
    gone.mkdir()
    write_vocabulary(gone)
    made = SentencepieceBPE(SentencepieceConfig(sentencepiece_model=str(gone / "spm.model")))
    shutil.rmtree(gone)
    return made


def finetuned_state(folder: Path, name: str = "av_hubert_seq2seq") -> dict[str, Any]:
    """With two unused tensors of the encoder, a dead `w2v_path`, and references in `w2v_args`."""
    pretraining = pretrained_state()
    pretraining["cfg"]["task"] = {**TASK, "label_rate": "${model.label_rate}"}
    bpe = tokenizer(folder)
    dictionary = dictionary_of(bpe.sp.id_to_piece(number) for number in range(4, bpe.sp.get_piece_size()))
    model = {
        "_name": name, "w2v_path": "/checkpoint/somebody/large_vox.pt", "normalize": True, "data": "/nowhere",
        "apply_mask": False, "mask_prob": 0.5, "w2v_args": pretraining["cfg"], "no_pretrained_weights": False,
        "layerdrop": 0.1, "freeze_finetune_updates": 0, **(DECODER if name.endswith("seq2seq") else {}),
    }  # fmt: skip
    task = {
        **TASK, "labels": ["wrd"], "label_rate": -1, "sample_rate": 16000, "single_target": True,
        "is_s2s": True, "fine_tuning": True, "tokenizer_bpe_name": "sentencepiece",
        "tokenizer_bpe_model": "/checkpoint/somebody/spm.model",
    }  # fmt: skip
    inner, prefix = built(model, dictionary), "encoder." if name.endswith("seq2seq") else "w2v_encoder."
    for key in ("mask_emb", "label_embs_concat"):
        inner[f"{prefix}w2v_model.{key}"] = pretraining["model"][key]
    cfg = {"model": model, "task": task, "criterion": {"_name": "label_smoothed_cross_entropy"}}
    task_state = {
        "dictionaries": [dictionary], "target_dictionary": dictionary, "s2s_tokenizer": bpe,
    }  # fmt: skip
    return state(cfg, inner, task_state)


def built(model: dict[str, Any], dictionary: Dictionary) -> dict[str, Tensor]:
    """Random tensors of a fine-tuned model."""
    kind, structure = {
        "av_hubert_seq2seq": (Seq2SeqModel, Seq2SeqConfig),
        "av_hubert_ctc": (CTCModel, CTCConfig),
    }[model["_name"]]
    names = structure.__dataclass_fields__
    own = {key: value for key, value in model.items() if key in names and key != "w2v_args"}
    own["w2v_args"] = {"model": ENCODER, "task": {"image_mean": 0.421, "image_std": 0.165}}
    torch.manual_seed(0)
    cfg = OmegaConf.merge(OmegaConf.structured(structure()), own)
    return dict(rebuild(kind, cfg, dictionary).state_dict())


def save(content: dict[str, Any], path: Path) -> Path:
    torch.save(content, path)
    return path
