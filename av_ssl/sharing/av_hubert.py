"""Export a fused encoder of any method as a plain AV-HuBERT checkpoint, for other projects' code."""

import dataclasses
import logging
from typing import Any

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf
from torch import Tensor

from av_ssl.checkpoints.loading import build_config
from av_ssl.checkpoints.stored import StoredModel, pretraining_only
from av_ssl.errors import DataError
from av_ssl.methods.av_hubert import AVHubertConfig
from av_ssl.methods.masked_units import CLUSTER_HEAD_TENSORS
from av_ssl.tasks.av_hubert import SHARED_KEYS

logger = logging.getLogger(__name__)

OURS = ("checkpoint_activations", "compile", "count_padding", "image_mean", "image_std", "resnet_width")
"""Keys that AV-HuBERT's model lacks."""
RESNET_WIDTH = 64
PIXEL_KEYS = ("image_mean", "image_std")
"""Keys that AV-HuBERT has only in its task."""
SHARED_TASK_KEYS = {*SHARED_KEYS, "labels", "label_rate"} - {"frames_per_update"}
CLUSTERS = "label_embs_concat"


def as_av_hubert(stored: StoredModel) -> StoredModel:
    """The encoder with AV-HuBERT's name and keys; no tensor changes its name.

    Teacher, predictors and the like are left out.  AV-HuBERT's code requires a cluster head and a mask
    embedding of the audio input even where they are not used: a model that has none gets zeros, and a head of
    one cluster, so that the file loads strictly.  Fine-tuning and feature extraction use neither.

    Raises:
        DataError: the model has no fused encoder, or is fine-tuned.
    """
    cfg = build_config(stored)
    if "audio_feat_dim" not in cfg or "masking_type" not in cfg:
        raise DataError(
            f"{stored.path}: a model {stored.model_cfg['_name']!r} is no pre-trained fused encoder; convert "
            "the checkpoint that it was fine-tuned from"
        )
    values = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    model = av_hubert_keys(values, stored)
    dropped = pretraining_only()
    tensors = {name: value for name, value in stored.tensors.items() if not name.startswith(dropped)}
    tensors |= heads(model, stored)
    classes = len(tensors[CLUSTERS])
    # A model that predicts no clusters may still have been trained with labels in its task.
    labelled = sum(map(len, stored.label_sets)) == classes
    return dataclasses.replace(
        stored,
        cfg={
            "model": model,
            "task": av_hubert_task({**stored.task_cfg, **{key: values[key] for key in PIXEL_KEYS}}),
            "criterion": {"_name": "av_hubert", "pred_masked_weight": 1.0, "pred_nomask_weight": 0.0},
        },
        tensors=tensors,
        text=None,
        label_sets=stored.label_sets if labelled else [numbered_labels(classes)],
    )


def av_hubert_keys(values: dict[str, Any], stored: StoredModel) -> dict[str, Any]:
    """The model's keys that AV-HuBERT has; the log warns about sizes that its code does not read."""
    known = {field.name for field in dataclasses.fields(AVHubertConfig)} - set(OURS)
    model = {key: value for key, value in values.items() if key in known}
    width = values["resnet_width"]
    if width != RESNET_WIDTH:
        model["resnet_width"] = width
        logger.warning(
            "%s: its visual front-end begins with %d channels, AV-HuBERT's with %d: only this package can "
            "read the result", stored.path, width, RESNET_WIDTH,
        )  # fmt: skip
    if model["masking_type"] not in ("input", "feature"):
        model["masking_type"] = "input"
    return {**model, "_name": "av_hubert"}


def heads(model: dict[str, Any], stored: StoredModel) -> dict[str, Tensor]:
    """Mask embedding and cluster head, the stored ones where they fit."""
    channels = model["encoder_embed_dim"]
    masked = model["audio_feat_dim"] if model["masking_type"] == "input" else channels
    mask_emb = stored.tensors.get("mask_emb")
    if mask_emb is None or len(mask_emb) != masked:
        mask_emb = torch.zeros(masked)
    head = {name: value for name, value in stored.tensors.items() if name.startswith(CLUSTER_HEAD_TENSORS)}
    if not {CLUSTERS, "final_proj.weight", "final_proj.bias"} <= head.keys():
        dim = model.get("final_dim") or channels
        model["target_glu"] = False
        head = {
            CLUSTERS: torch.zeros(Dictionary().nspecial + 1, dim),
            "final_proj.weight": torch.zeros(dim, channels),
            "final_proj.bias": torch.zeros(dim),
        }
    return {"mask_emb": mask_emb, **head}


def numbered_labels(classes: int) -> list[str]:
    """Symbols of a dictionary of so many classes: fairseq's special ones, then 0, 1, ..."""
    specials = Dictionary().symbols
    return [*specials, *map(str, range(classes - len(specials)))]


def av_hubert_task(task: dict[str, Any]) -> dict[str, Any]:
    streams = {"audio": ["audio"], "video": ["video"]}.get(str(task.get("modalities")), ["audio", "video"])
    shared = {key: task[key] for key in SHARED_TASK_KEYS if key in task}
    # Its default refers to max_sample_size, which cannot be resolved in the stored task.
    shared.setdefault("max_trim_sample_size", shared.setdefault("max_sample_size", None))
    labels = shared.get("labels") or ["km"]
    return {
        **shared,
        "_name": "av_hubert_pretraining",
        "labels": [labels] if isinstance(labels, str) else labels,
        "label_rate": shared.get("label_rate") or 25,
        "modalities": streams,
        "sample_rate": 25,
        "stack_order_audio": 4,
        "noise_snr": str(task.get("noise_snr", "0")),
    }
