"""Keys of RAVEn (Haliassos et al., ICLR 2023, arXiv 2212.06246) and BRAVEn (ICASSP 2024, 2404.02098)."""

from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum
from omegaconf import II

from av_ssl.data.spans import MASK_SEMANTICS
from av_ssl.models.raven_encoder import RavenEncoderConfig

TARGETS = ChoiceEnum(["last", "mean_blocks"])
TARGET_NORMS = ChoiceEnum(["none", "instance"])
SEMANTICS = ChoiceEnum(list(MASK_SEMANTICS))


@dataclass
class RavenConfig(RavenEncoderConfig):
    """RAVEn Base; both students have the encoder's keys."""

    mask_prob_video: float = field(default=0.2, metadata={"help": "masked video frames, see mask_semantics"})
    mask_prob_audio: float = field(default=0.2, metadata={"help": "masked audio frames, see mask_semantics"})
    mask_length: int = field(default=3, metadata={"help": "frames of a masked span (40 ms each)"})
    mask_semantics: SEMANTICS = field(  # type: ignore[valid-type]
        default="fraction",
        metadata={
            "help": "what the two probabilities mean: masked spans x length / frames, as the authors' "
            "program has it (0.2 masks about 17 %), or the probability that a span starts at a frame, as "
            "the paper says (about 49 %)"
        },
    )
    predictor_embed_dim: int = field(default=512, metadata={"help": "channels of the predictors"})
    predictor_ffn_embed_dim: int = field(
        default=2048, metadata={"help": "channels of their feed-forward blocks"}
    )
    predictor_attention_heads: int = field(default=8, metadata={"help": "their attention heads"})
    predictor_layers_video: int = field(
        default=2, metadata={"help": "blocks of predictors on the video student"}
    )
    predictor_layers_audio: int = field(
        default=2, metadata={"help": "blocks of predictors on the audio student"}
    )
    within_audio: bool = field(
        default=True, metadata={"help": "the audio student predicts the audio teacher on masked frames"}
    )
    within_video: bool = field(
        default=False,
        metadata={
            "help": "the video student predicts the video teacher on masked frames (off: the asymmetry)"
        },
    )
    target: TARGETS = field(  # type: ignore[valid-type]
        default="last",
        metadata={"help": "the teacher's output, or the mean of all its blocks' outputs (mean_blocks)"},
    )
    target_norm: TARGET_NORMS = field(  # type: ignore[valid-type]
        default="none", metadata={"help": "instance: normalise each clip and channel over time"}
    )
    ema_decay: float = field(
        default=0.999, metadata={"help": "the teachers' decay at the start; a half cosine takes it to 1"}
    )
    ema_updates: int = field(
        default=II("optimization.max_update"),
        metadata={"help": "updates until it is 1, at least 1: those of the whole training"},
    )
    teacher_drop_path: bool = field(
        default=False,
        metadata={"help": "the teachers skip blocks at random too, as the authors' program had it"},
    )
    sync_batch_norm: bool = field(
        default=True,
        metadata={"help": "batch-norm statistics over all GPUs, teachers and predictors included"},
    )
    min_target_std: float = field(
        default=0.1,
        metadata={
            "help": "stop if the standard deviation over frames of what a teacher gives, before target_norm, "
            "stays below for 500 updates (of unit vectors, times the square root of their channels: 1 where "
            "they point everywhere) [ours]"
        },
    )
    max_target_cosine: float = field(
        default=0.95,
        metadata={"help": "stop if frames of different clips stay more alike there for 500 updates [ours]"},
    )
    collapse_check_start: int = field(
        default=5000, metadata={"help": "updates before these two are looked at [ours]"}
    )


@dataclass
class BravenConfig(RavenConfig):
    """BRAVEn Base; its losses weigh audio by audio twice."""

    predictor_layers_video: int = field(
        default=1, metadata={"help": "blocks of predictors on the video student"}
    )
    mask_prob_audio: float = field(
        default=0.4,
        metadata={"help": "masked audio frames; the paper says more than RAVEn's [the value reconstructed]"},
    )
    target: TARGETS = field(  # type: ignore[valid-type]
        default="mean_blocks",
        metadata={"help": "the teacher's output, or the mean of all its blocks' outputs (mean_blocks)"},
    )
    target_norm: TARGET_NORMS = field(  # type: ignore[valid-type]
        default="instance",
        metadata={"help": "instance: normalise each clip and channel over time [reconstructed]"},
    )
