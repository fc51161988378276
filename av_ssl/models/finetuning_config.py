"""Keys that every fine-tuning model has."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from omegaconf import II

from av_ssl.models.teacher_heads import TeachersConfig


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
