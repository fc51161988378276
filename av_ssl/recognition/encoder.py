"""Keys that every fine-tuning model has.

Speech teachers in fine-tuning: heads on the encoder that is fine-tuned, and their targets.

That DistillAV distils in fine-tuning, too, is in its abstract (Zhang et al., 2025, arXiv 2502.05766); how is
not public: all of this is our choice [ours].  The heads are those of pre-training, on the same layer, and the
teachers hear the clean audio whatever the recogniser sees.

The pre-trained encoder of fine-tuning models: read its checkpoint, build it, freeze it for a while.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.models import FairseqEncoder
from omegaconf import II, OmegaConf
from torch import Tensor, nn

from av_ssl.checkpoints.files import CheckpointError, read_checkpoint
from av_ssl.checkpoints.stored import StoredModel, plain_config, pretraining_only
from av_ssl.data.dataset import DataNeeds
from av_ssl.methods.encoders import Encoder, family_of, load_pretrained
from av_ssl.methods.fused_encoder import Source
from av_ssl.methods.teacher_heads import HEADS_PREFIX, TeacherHeads, TeachersConfig, make_heads, open_targets
from av_ssl.modules.relative_transformer import synchronise_batch_norm
from av_ssl.optim import mark_depths, set_depth
from av_ssl.targets.teacher_targets import TeacherTargets

logger = logging.getLogger(__name__)


@dataclass
class FineTuningMaskConfig(FairseqDataclass):
    """Keys of AV-HuBERT's fine-tuning YAML files that have no effect with ``apply_mask: false``, which its
    recipes say; ``apply_mask: true`` is refused."""

    apply_mask: bool = field(default=False, metadata={"help": "masking in fine-tuning: not supported"})
    mask_length: int = field(default=10, metadata={"help": "without effect"})
    mask_prob: float = field(default=0.5, metadata={"help": "without effect"})
    mask_selection: str = field(default="static", metadata={"help": "without effect"})
    mask_other: float = field(default=0.0, metadata={"help": "without effect"})
    no_mask_overlap: bool = field(default=False, metadata={"help": "without effect"})
    mask_channel_length: int = field(default=10, metadata={"help": "without effect"})
    mask_channel_prob: float = field(default=0.0, metadata={"help": "without effect"})
    mask_channel_selection: str = field(default="static", metadata={"help": "without effect"})
    mask_channel_other: float = field(default=0.0, metadata={"help": "without effect"})
    no_mask_channel_overlap: bool = field(default=False, metadata={"help": "without effect"})


@dataclass
class PretrainedEncoderConfig(FineTuningMaskConfig, TeachersConfig):
    """Keys that every fine-tuning model has; names and defaults are AV-HuBERT's but where marked [ours]."""

    w2v_path: str = field(
        default="",
        metadata={
            "help": "pre-trained checkpoint: of a fused encoder (av2vec, av_hubert, distillav), of RAVEn's "
            "two (raven, braven), or RAVEn's published weights"
        },
    )
    no_pretrained_weights: bool = field(
        default=False, metadata={"help": "take the checkpoint's configuration only and train from scratch"}
    )
    dropout_input: float = field(default=0.0, metadata={"help": "dropout of the encoder's fused features"})
    final_dropout: float = field(default=0.0, metadata={"help": "dropout of the encoder's output"})
    dropout: float = field(default=0.0, metadata={"help": "dropout inside the encoder"})
    attention_dropout: float = field(default=0.0, metadata={"help": "attention dropout inside the encoder"})
    activation_dropout: float = field(
        default=0.0, metadata={"help": "feed-forward dropout inside the encoder"}
    )
    layerdrop: float = field(default=0.0, metadata={"help": "probability of skipping an encoder layer"})
    drop_path: float = field(
        default=0.0,
        metadata={"help": "probability that a clip skips half an encoder layer (RAVEn's encoders alone)"},
    )
    feature_grad_mult: float = field(
        default=0.0, metadata={"help": "gradient scale of the front-ends; 0: frozen"}
    )
    freeze_finetune_updates: int = field(
        default=0, metadata={"help": "updates during which the encoder is frozen (and in eval mode)"}
    )
    frozen_train_mode: bool = field(
        default=False,
        metadata={
            "help": "keep a frozen encoder in train mode: dropout acts, batch-norm statistics drift "
            "(as AV-HuBERT has it) [ours]"
        },
    )
    normalize: bool = field(default=II("task.normalize"), metadata={"help": "must be as in pre-training"})
    data: Optional[str] = field(default=None, metadata={"help": "without effect: the task's is used"})
    sync_batch_norm: bool = field(
        default=False, metadata={"help": "batch-norm statistics over all GPUs (RAVEn: true) [ours]"}
    )
    compile: bool = field(default=False, metadata={"help": "torch.compile the encoder [ours]"})
    w2v_args: Any = field(
        default=None,
        metadata={"help": "the encoder's configuration, filled in from w2v_path; not for you to set"},
    )


HEAD_SIZES = {"final_dim": 256, "logit_temp": 0.1}
"""Of heads that no checkpoint has: pre-training's defaults."""


class RepresentationDistillation:
    """Targets of speech teachers and what a recogniser's encoder predicts of them; holds no parameters.

    Args:
        cfg: see :class:`~av_ssl.methods.teacher_heads.TeachersConfig`; it names at least one teacher.
        heads: modules of the encoder.
    """

    def __init__(self, cfg: Any, heads: TeacherHeads) -> None:
        self.cfg = cfg
        self.heads = heads
        self._targets: TeacherTargets | None = None

    @property
    def targets(self) -> TeacherTargets:
        if self._targets is None:
            self._targets = open_targets(self.cfg)
        return self._targets

    def __call__(self, x: Tensor, source: Mapping[str, Any], teachers: Mapping[str, Any]) -> dict[str, Any]:
        """``predictions`` and ``targets`` of each teacher, for the encoder's output ``[B, T, C]``."""
        return {
            "predictions": self.heads.predict(x, teachers["index"]),
            "targets": self.targets(source, teachers),
        }


def starting_heads(
    channels: int, cfg: Any, pretrained: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> TeacherHeads:
    """Heads for the teachers of fine-tuning; those that were pre-trained for the same teacher go on.

    Args:
        channels: C of the encoder.
        cfg: of fine-tuning, with ``teacher_shapes``.
        pretrained: the pre-trained model's configuration.
        tensors: its tensors; none for a start from scratch.
    """
    known = list(pretrained.get("teacher_shapes") or [])
    sizes = pretrained if known else HEAD_SIZES
    heads = make_heads(channels, cfg.teacher_shapes, sizes)
    for number, shape in enumerate(cfg.teacher_shapes):
        found = known.index(dict(shape)) if dict(shape) in known else None
        prefix = f"{HEADS_PREFIX}{found}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if own:
            nn.Module.load_state_dict(heads[number], own)
        logger.info(
            "head for teacher %s: %s", cfg.teachers[number],
            "as pre-trained" if own else "starts at random, it was not pre-trained with these clusters",
        )  # fmt: skip
    return heads


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
            and key.removeprefix(prefix).startswith(pretraining_only())
            and key.removeprefix(prefix) not in own
        ]
        for key in unused:
            del state_dict[key]
        if unused:
            logger.info("left over, of pre-training only: %s", ", ".join(unused))

    @property
    def data_needs(self) -> DataNeeds:
        """What the data pipeline adds to a batch: what speech teachers need, if there are any."""
        distillation = self.distillation
        if distillation is None:
            return DataNeeds()
        return DataNeeds(teachers=lambda: distillation.targets, teacher_shapes=self.cfg.teacher_shapes)

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
