"""The pre-trained encoder of fine-tuning models: read its checkpoint, build it, freeze it for some updates.

Speech teachers can go on teaching it.  That DistillAV distils in fine-tuning too is in its abstract (Zhang et
al., 2025, arXiv 2502.05766); how is not public, so all of this is our choice [ours].  The heads are those of
pre-training, on the same layer, and the teachers get the clean audio whatever the recogniser's streams are.
"""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.models import MODEL_REGISTRY, FairseqEncoder
from omegaconf import II, OmegaConf
from torch import Tensor, nn

from av_ssl.checkpoints.files import CheckpointError, read_checkpoint
from av_ssl.checkpoints.raven_weights import check_features
from av_ssl.checkpoints.stored import StoredModel, encoder_prefix, plain_config, pretraining_only
from av_ssl.compat.keys import accepts_without_effect, option
from av_ssl.data.dataset import DataNeeds
from av_ssl.methods.encoder_model import EncoderModel, Source
from av_ssl.methods.pretrained import family_of, load_pretrained
from av_ssl.methods.teacher_heads import HEADS_PREFIX, TeacherHeads, TeachersConfig, make_heads, open_targets
from av_ssl.modules.relative_transformer import synchronise_batch_norm
from av_ssl.optim import mark_depths, set_depth
from av_ssl.targets.ema import under_prefix
from av_ssl.targets.teacher_targets import TeacherTargets

logger = logging.getLogger(__name__)


@dataclass
@accepts_without_effect(
    "key of AV-HuBERT's files, without effect (apply_mask must be false)",
    mask_length=10,
    mask_prob=0.5,
    mask_selection="static",
    mask_other=0.0,
    no_mask_overlap=False,
    mask_channel_length=10,
    mask_channel_prob=0.0,
    mask_channel_selection="static",
    mask_channel_other=0.0,
    no_mask_channel_overlap=False,
    data=None,
)
class FineTuningMaskConfig(FairseqDataclass):
    """Keys of AV-HuBERT's fine-tuning files for masks; its recipes set ``apply_mask: false``."""

    apply_mask: bool = option(False, "masking in fine-tuning: not supported")


@dataclass
class PretrainedEncoderConfig(FineTuningMaskConfig, TeachersConfig):
    """Keys that every fine-tuning model has; names and defaults are AV-HuBERT's unless marked [ours]."""

    # the pre-trained encoder
    w2v_path: str = option(
        "",
        "pre-trained checkpoint: of a fused encoder (av2vec, av_hubert, distillav), of RAVEn's two (raven, "
        "braven), RAVEn's published weights, or a recogniser on one of these",
    )
    no_pretrained_weights: bool = option(False, "only the checkpoint's configuration; train from scratch")
    # its regularisation
    dropout_input: float = option(0.0, "dropout of the encoder's fused features")
    final_dropout: float = option(0.0, "dropout of the encoder's output")
    dropout: float = option(0.0, "dropout inside the encoder")
    attention_dropout: float = option(0.0, "attention dropout inside the encoder")
    activation_dropout: float = option(0.0, "feed-forward dropout inside the encoder")
    layerdrop: float = option(0.0, "probability of skipping an encoder layer")
    drop_path: float = option(0.0, "probability that a clip skips half an encoder layer (RAVEn only)")
    feature_grad_mult: float = option(0.0, "gradient scale of the front-ends; 0: frozen")
    # its training
    freeze_finetune_updates: int = option(0, "updates during which the encoder is frozen (and in eval mode)")
    frozen_train_mode: bool = option(
        False, "keep a frozen encoder in train mode, as AV-HuBERT: dropout acts, statistics drift [ours]"
    )
    normalize: bool = option(II("task.normalize"), "must be as in pre-training")
    sync_batch_norm: bool = option(False, "batch-norm statistics over all GPUs (RAVEn: true) [ours]")
    compile: bool = option(False, "torch.compile the encoder [ours]")
    w2v_args: Any = option(None, "the encoder's configuration; filled in from w2v_path, do not set it")


# -- the checkpoint ------------------------------------------------------------------------------------------


def read_pretrained(cfg: Any, audio_input: str = "filterbank", modalities: str = "av") -> StoredModel:
    """Read the checkpoint ``cfg.w2v_path`` that a training starts from.

    Its configuration is stored in ``cfg.w2v_args``, so that the fine-tuned model loads without that file.
    Where ``cfg`` has it already and wants no weights, the file is not opened.

    Args:
        audio_input, modalities: the task's.

    Raises:
        CheckpointError: see :func:`read_checkpoint`; or the checkpoint has no encoder for such input.
        ValueError: masking is asked for.
    """
    if cfg.get("apply_mask"):
        raise ValueError(
            "model.apply_mask=true: recognisers are trained on unmasked clips here, as in all of AV-HuBERT's "
            "recipes; set it to false"
        )
    if cfg.get("w2v_args") is not None and cfg.no_pretrained_weights:
        return StoredModel(Path(cfg.w2v_path), plain_config(cfg.w2v_args), {}, text=None, label_sets=[])
    if not cfg.get("w2v_path"):
        raise CheckpointError("model.w2v_path is not set: name the pre-trained checkpoint to start from")
    checkpoint = encoder_part(read_checkpoint(cfg.w2v_path))
    name = str(checkpoint.model_cfg.get("_name"))
    kind = MODEL_REGISTRY.get(name)
    if kind is not None and not issubclass(kind, EncoderModel) and not hasattr(kind, "encoder_family"):
        raise CheckpointError(
            f"model.w2v_path: {cfg.w2v_path} holds a model {name}, which is no pre-trained encoder and has "
            "none to start from"
        )
    if cfg.get("w2v_args") is None:
        check_input(cfg, checkpoint, audio_input, modalities)
        model = checkpoint.model_cfg
        stream = family_of(model).choose_stream(model, modalities, cfg.w2v_path)
        OmegaConf.set_struct(cfg, False)
        cfg.w2v_args = {
            "model": {**model, "modality": stream} if stream else model,
            "task": checkpoint.task_cfg,
        }
        OmegaConf.set_struct(cfg, True)
    return dataclasses.replace(checkpoint, tensors={}) if cfg.no_pretrained_weights else checkpoint


def encoder_part(stored: StoredModel) -> StoredModel:
    """A fine-tuned model's encoder as a pre-trained model; any other model as it is."""
    prefix = encoder_prefix(stored.tensors)
    if stored.model_cfg.get("w2v_args") is None or prefix is None:
        return stored
    logger.info(
        "%s is fine-tuned: its encoder is taken. checkpoint.finetune_from_model continues with its head, too",
        stored.path,
    )
    args = plain_config(stored.model_cfg["w2v_args"])
    model = args["model"]
    if family_of(model).streams:
        model = {**model, "_name": "raven_encoder"}  # it is alone in the file, even if two were pre-trained
    if taught := stored.model_cfg.get("teacher_shapes"):  # its heads are those of the fine-tuning's teachers
        model = {**model, **({} if model.get("teacher_shapes") else HEAD_SIZES), "teacher_shapes": taught}
    return dataclasses.replace(
        stored,
        cfg={"model": model, "task": {**stored.task_cfg, **args.get("task", {})}},
        tensors=under_prefix(stored.tensors, prefix),
    )


def check_input(cfg: Any, checkpoint: StoredModel, audio_input: str, modalities: str) -> None:
    """Raise CheckpointError where a task's audio is not made as in pre-training."""
    normalize = checkpoint.task_cfg.get("normalize")
    if normalize is not None and bool(normalize) != bool(cfg.normalize):
        raise CheckpointError(
            f"task.normalize={cfg.normalize}, but {cfg.w2v_path} was pre-trained with normalize={normalize}"
        )
    trained_on = str(checkpoint.task_cfg.get("audio_input") or "filterbank")  # older files have no such key
    if modalities != "video" and trained_on != audio_input:
        raise CheckpointError(
            f"task.audio_input={audio_input}, but {cfg.w2v_path} was pre-trained with "
            f"audio_input={trained_on}: set task.audio_input={trained_on}"
        )


SHARED_KEYS = (
    "dropout", "attention_dropout", "activation_dropout", "dropout_input", "drop_path", "feature_grad_mult",
    "compile",
)  # fmt: skip
ENCODER_OVERRIDES = {**{key: key for key in SHARED_KEYS}, "encoder_layerdrop": "layerdrop"}
"""Keys of the pre-trained encoder's configuration and the fine-tuning keys that replace them."""


def encoder_config(cfg: PretrainedEncoderConfig) -> Any:
    """The pre-trained encoder's configuration with the regularisation of fine-tuning."""
    args = plain_config(cfg.w2v_args)  # without the references of AV-HuBERT's files, which lead nowhere
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


def build_encoder(cfg: PretrainedEncoderConfig, pretrained: StoredModel | None) -> EncoderModel:
    """The encoder that ``cfg.w2v_args`` describes, with the tensors of ``pretrained`` or at random."""
    stored = plain_config(cfg.w2v_args)["model"]
    family, stream = family_of(stored), stored.get("modality")
    encoder = family.build(encoder_config(cfg), stream)
    if pretrained is not None and not cfg.no_pretrained_weights:
        load_pretrained(encoder, cfg.w2v_path, pretrained.tensors, family, stream)
        if pretrained.bare:
            check_features(encoder, pretrained.path)
    return encoder


# -- speech teachers -----------------------------------------------------------------------------------------

HEAD_SIZES = {"final_dim": 256, "logit_temp": 0.1}
"""Of heads that the checkpoint does not have: the defaults of pre-training."""


def starting_heads(channels: int, cfg: Any, pretrained: StoredModel) -> TeacherHeads:
    """Heads for the teachers of fine-tuning; those pre-trained for the same teacher are taken over."""
    known = list(pretrained.model_cfg.get("teacher_shapes") or [])
    heads = make_heads(channels, cfg.teacher_shapes, pretrained.model_cfg if known else HEAD_SIZES)
    for number, shape in enumerate(cfg.teacher_shapes):
        found = known.index(dict(shape)) if dict(shape) in known else None
        own = under_prefix(pretrained.tensors, f"{HEADS_PREFIX}{found}.")
        if own:
            nn.Module.load_state_dict(heads[number], own)
        logger.info(
            "head for teacher %s: %s", cfg.teachers[number],
            "as pre-trained" if own else "starts at random, it was not pre-trained with these clusters",
        )  # fmt: skip
    return heads


# -- the encoder ---------------------------------------------------------------------------------------------


class FineTunedEncoder(FairseqEncoder):
    """A pre-trained encoder under a recognition head. Tensors: ``w2v_model.*``.

    Args:
        cfg: with ``w2v_args``, see :func:`read_pretrained`.
        pretrained: the checkpoint that training starts from; None: a fine-tuned checkpoint follows, and the
            model is only used: it has no speech teachers.
    """

    def __init__(self, cfg: PretrainedEncoderConfig, pretrained: StoredModel | None) -> None:
        super().__init__(dictionary=None)
        self.cfg = cfg
        self.w2v_model = build_encoder(cfg, pretrained)
        self.synchronised = not cfg.sync_batch_norm
        mark_depths(self.w2v_model, *self.w2v_model.layer_stack())
        self.final_dropout = nn.Dropout(cfg.final_dropout)
        self.output_dim = self.w2v_model.output_dim
        self.updates = 0
        self.distils = bool(cfg.teachers) and pretrained is not None
        if cfg.teachers and pretrained is not None:
            heads = starting_heads(self.output_dim, cfg, pretrained)
            set_depth(heads.parameters(), 0)
            self.w2v_model.teacher_heads = heads

    def set_num_updates(self, num_updates: int) -> None:
        self.updates = num_updates

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Drop pre-training's tensors of AV-HuBERT's fine-tuned checkpoints, and heads of absent teachers."""
        prefix = f"{name}.w2v_model."
        own = self.w2v_model.state_dict()
        unused = [
            prefix + inner
            for inner in under_prefix(state_dict, prefix)
            if inner.startswith(pretraining_only()) and inner not in own
        ]
        for key in unused:
            del state_dict[key]
        if unused:
            logger.info("left over, of pre-training only: %s", ", ".join(unused))

    @property
    def data_needs(self) -> DataNeeds:
        if not self.distils:
            return DataNeeds()
        return DataNeeds(teachers=lambda: self.targets, teacher_shapes=self.cfg.teacher_shapes)

    @cached_property
    def targets(self) -> TeacherTargets:
        return open_targets(self.cfg)

    @property
    def frozen(self) -> bool:
        return self.updates < self.cfg.freeze_finetune_updates

    def encode(self, source: Source, padding_mask: Tensor, frame_index: Tensor | None = None) -> Tensor:
        """Encode a batch: ``[B, T, C]``, without gradient while frozen."""
        if not self.synchronised:  # here, as fairseq moves a model to its device after it was built
            synchronise_batch_norm(self.w2v_model)
            self.synchronised = True
        frozen = self.frozen
        self.w2v_model.train(self.training and (not frozen or self.cfg.frozen_train_mode))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            x, _ = self.w2v_model.extract_features(source, padding_mask, frame_index=frame_index)
        return self.final_dropout(x)

    def distil(self, x: Tensor, source: Source, teachers: Mapping[str, Any] | None) -> dict[str, Any]:
        """``distillation`` for the output of :meth:`encode`; empty without teachers or with a frozen encoder.

        It has ``predictions``, ``targets``, ``updates`` and ``unfrozen_at``.
        """
        if not self.distils or teachers is None or self.frozen:
            return {}
        distillation = {
            "predictions": self.w2v_model.teacher_heads.predict(x, teachers["index"]),
            "targets": self.targets(source, teachers),
            "updates": self.updates,
            "unfrozen_at": self.cfg.freeze_finetune_updates,
        }
        return {"distillation": distillation}
