"""The pre-trained encoder of fine-tuning models: read its checkpoint, build it, freeze it for a while."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.models import FairseqEncoder
from omegaconf import OmegaConf
from torch import Tensor, nn

from av_ssl.errors import DataError
from av_ssl.models.av_encoder import Source
from av_ssl.models.encoders import PRETRAINING_ONLY, CheckpointError, Encoder, family_of, load_pretrained
from av_ssl.models.finetuning_config import PretrainedEncoderConfig
from av_ssl.models.finetuning_distillation import RepresentationDistillation, starting_heads
from av_ssl.models.model_files import read_stored
from av_ssl.models.stored import StoredModel, plain_config
from av_ssl.modules.batch_norm import synchronise_batch_norm
from av_ssl.optim.parameter_groups import mark_depths, set_depth

logger = logging.getLogger(__name__)

ENCODER_OVERRIDES = {
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "dropout_input": "dropout_input",
    "encoder_layerdrop": "layerdrop",
    "drop_path": "drop_path",
    "feature_grad_mult": "feature_grad_mult",
    "compile": "compile",
}
"""Keys of the pre-trained encoder's configuration and the fine-tuning keys that replace them."""


def read_checkpoint(path: str | Path, key: str = "model.w2v_path") -> StoredModel:
    """Read a pre-trained model on the CPU, without running code from its file; ``key`` names it in errors.

    Raises:
        CheckpointError: the file is missing, cut off, no checkpoint, or asks for code to be run.
    """
    try:
        return read_stored(path)
    except DataError as error:
        raise CheckpointError(f"{key}: {error}") from error


@functools.lru_cache(maxsize=1)
def _model_being_built(path: str) -> StoredModel:
    """Of ``model.w2v_path``: files are gigabytes, and read once for configuration, encoder and heads."""
    return read_checkpoint(path)


def attach_encoder_config(cfg: Any, audio_input: str = "filterbank", modalities: str = "av") -> None:
    """Fill ``cfg.w2v_args`` from ``cfg.w2v_path``, so that the fine-tuned checkpoint loads without that file.

    Args:
        cfg: the fine-tuned model's configuration.
        audio_input: what the task gives the model to hear.
        modalities: the task's streams: ``audio``, ``video`` or ``av``.

    Raises:
        CheckpointError: see :func:`read_checkpoint`; or ``normalize`` or ``audio_input`` differs from
            pre-training; or the checkpoint's encoders take one stream each, and none takes these.
        ValueError: masking is asked for.
    """
    if cfg.get("apply_mask"):
        raise ValueError(
            "model.apply_mask=true: recognisers are trained on whole clips here, as in all of AV-HuBERT's "
            "recipes; set it to false"
        )
    if cfg.get("w2v_args") is not None:
        return
    if not cfg.get("w2v_path"):
        raise CheckpointError("model.w2v_path is not set: name the pre-trained checkpoint to start from")
    _model_being_built.cache_clear()  # the file may have changed since the last model
    checkpoint = _model_being_built(cfg.w2v_path)
    pretrained_normalize = checkpoint.task_cfg.get("normalize")
    if pretrained_normalize is not None and bool(pretrained_normalize) != bool(cfg.normalize):
        raise CheckpointError(
            f"task.normalize={cfg.normalize}, but {cfg.w2v_path} was pre-trained with "
            f"normalize={pretrained_normalize}"
        )
    model = checkpoint.model_cfg
    stream = family_of(model).choose_stream(model, modalities, cfg.w2v_path)
    heard = str(checkpoint.task_cfg.get("audio_input") or "filterbank")  # others came later
    if modalities != "video" and heard != audio_input:
        raise CheckpointError(
            f"task.audio_input={audio_input}, but {cfg.w2v_path} was pre-trained with audio_input={heard}: "
            f"set task.audio_input={heard}"
        )
    OmegaConf.set_struct(cfg, False)
    cfg.w2v_args = {
        "model": {**model, "modality": stream} if stream else model,
        "task": checkpoint.task_cfg,
    }
    OmegaConf.set_struct(cfg, True)


def encoder_config(cfg: PretrainedEncoderConfig) -> Any:
    """The pre-trained encoder's configuration with the regularisation that fine-tuning asks for.

    Raises:
        ValueError: fine-tuning asks for regularisation that this kind of encoder has no place for.
    """
    args = plain_config(cfg.w2v_args)  # references that AV-HuBERT's files hold lead nowhere any more
    stored = {**args.get("task", {}), **args["model"]}
    encoder = family_of(stored).config()
    for known in dataclasses.fields(encoder):
        if stored.get(known.name) is not None:
            setattr(encoder, known.name, stored[known.name])
    for target, source in ENCODER_OVERRIDES.items():
        if hasattr(encoder, target):
            setattr(encoder, target, getattr(cfg, source))
        elif getattr(cfg, source):
            raise ValueError(
                f"model.{source}={getattr(cfg, source)}: the encoder of {cfg.w2v_path} has no {source}; "
                "leave it out"
            )
    return encoder


def build_encoder(cfg: PretrainedEncoderConfig, load_weights: bool) -> Encoder:
    """The encoder that ``cfg.w2v_args`` describes, with weights from ``cfg.w2v_path`` or at random."""
    stored = plain_config(cfg.w2v_args)["model"]
    family, stream = family_of(stored), stored.get("modality")
    encoder = family.build(encoder_config(cfg), stream)
    if load_weights and not cfg.no_pretrained_weights:
        load_pretrained(encoder, cfg.w2v_path, _model_being_built(cfg.w2v_path).tensors, family, stream)
    return encoder


class FineTunedEncoder(FairseqEncoder):
    """A pre-trained encoder under a recognition head. Tensors: ``w2v_model.*``.

    ``distillation`` has the speech teachers that it keeps learning from; None, and no heads for them, where
    there are none or the model was read from a checkpoint to be used.
    """

    def __init__(self, cfg: PretrainedEncoderConfig, load_weights: bool) -> None:
        super().__init__(dictionary=None)
        self.cfg = cfg
        self.w2v_model = build_encoder(cfg, load_weights)
        self.synchronised = not cfg.sync_batch_norm
        mark_depths(self.w2v_model, *self.w2v_model.layer_stack())
        self.final_dropout = nn.Dropout(cfg.final_dropout)
        self.output_dim = self.w2v_model.cfg.encoder_embed_dim
        self.updates = 0
        self.distillation: RepresentationDistillation | None = None
        if cfg.teachers and load_weights:
            self.add_teachers()
        _model_being_built.cache_clear()

    def add_teachers(self) -> None:
        cfg = self.cfg
        tensors = {} if cfg.no_pretrained_weights else _model_being_built(cfg.w2v_path).tensors
        pretrained = plain_config(cfg.w2v_args)["model"]
        heads = starting_heads(self.output_dim, cfg, pretrained, tensors)
        set_depth(heads.parameters(), 0)
        self.w2v_model.teacher_heads = heads
        self.distillation = RepresentationDistillation(cfg, heads)

    def set_num_updates(self, num_updates: int) -> None:
        self.updates = num_updates

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Drop what AV-HuBERT's fine-tuned checkpoints keep of pre-training, and heads for teachers that this
        model does not have."""
        prefix = f"{name}.w2v_model."
        own = self.w2v_model.state_dict()
        unused = [
            key
            for key in state_dict
            if key.startswith(prefix)
            and key.removeprefix(prefix).startswith(PRETRAINING_ONLY)
            and key.removeprefix(prefix) not in own
        ]
        for key in unused:
            del state_dict[key]
        if unused:
            logger.info("left over, of pre-training only: %s", ", ".join(unused))

    @property
    def teacher_inputs(self) -> Any:
        """What the data pipeline asks about speech teachers; None where there are none."""
        return None if self.distillation is None else self.distillation.inputs

    @property
    def needs_clean_waveform(self) -> bool:
        """Whether teachers hear the batch."""
        return self.distillation is not None and any(self.distillation.targets.online)

    @property
    def frozen(self) -> bool:
        return self.updates < self.cfg.freeze_finetune_updates

    def encode(self, source: Source, padding_mask: Tensor, frame_index: Tensor | None = None) -> Tensor:
        """Encode a batch: ``[B, T, C]``, without gradient while frozen."""
        if not self.synchronised:  # not while it was built: fairseq moves models to their device later
            synchronise_batch_norm(self.w2v_model)
            self.synchronised = True
        frozen = self.frozen
        self.w2v_model.train(self.training and (not frozen or self.cfg.frozen_train_mode))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            x, _ = self.w2v_model.extract_features(source, padding_mask, frame_index=frame_index)
        return self.final_dropout(x)

    def distil(self, x: Tensor, source: Source, teachers: Mapping[str, Any] | None) -> dict[str, Any]:
        """What speech teachers make of a batch, for a criterion that distils.

        Args:
            x: what :meth:`encode` returned for it.
            source: ``waveform`` int16 ``[B, 640 T]``, where teachers run online.
            teachers: see :class:`~av_ssl.data.teacher_batch.TeacherBatch`.

        Returns:
            ``distillation``: ``predictions``, ``targets``, ``updates``, ``unfrozen_at``; nothing where there
            are no teachers, or the encoder is frozen and learns nothing from them.
        """
        if self.distillation is None or teachers is None or self.frozen:
            return {}
        now = {"updates": self.updates, "unfrozen_at": self.cfg.freeze_finetune_updates}
        return {"distillation": {**self.distillation(x, source, teachers), **now}}
