"""RAVEn's pre-training (Haliassos et al., ICLR 2023, arXiv 2212.06246), and BRAVEn's (ICASSP 2024, arXiv
2404.02098).

Two students on raw audio and raw video predict the outputs of momentum teachers.  Each student receives its
stream with short spans zeroed.  The video student predicts the audio teacher's output, the audio student
those of both teachers.  BRAVEn is the same model with other settings.

    students: masked audio / video -> encoder -> a predictor for each teacher -> prediction
    teachers: unmasked audio / video -> EMA of the encoder -> target
    loss:     negative cosine: video -> audio and audio -> video on all frames,
              audio -> audio on masked frames

The authors published the pre-training code of neither; the help of an option names the origin of its default
where the paper does not give it.
"""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, cast

import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from omegaconf import II
from torch import Tensor, nn

from av_ssl.compat.keys import option
from av_ssl.data.dataset import DataNeeds
from av_ssl.data.masking import UnimodalMasking
from av_ssl.data.spans import MASK_SEMANTICS, SpanMask
from av_ssl.methods.criterion import Logs, MeanCriterion, log_means, logged
from av_ssl.methods.encoder_model import Source
from av_ssl.methods.raven.encoder import RavenEncoder, RavenEncoderConfig
from av_ssl.modules.relative_transformer import (
    Predictor,
    RelativeTransformerSizes,
    synchronise_batch_norm,
    use_batch_statistics,
)
from av_ssl.optim import clip_together
from av_ssl.targets.collapse import Bounds, CollapseGuard, target_monitor
from av_ssl.targets.ema import (
    TEACHER_PREFIX,
    EMATeacher,
    averaged_targets,
    cosine_decay,
    instance_norm,
    under_prefix,
    without_teachers,
)

logger = logging.getLogger(__name__)

# -- configuration -------------------------------------------------------------------------------------------

TARGETS = ChoiceEnum(["last", "mean_blocks"])
TARGET_NORMS = ChoiceEnum(["none", "instance"])
SEMANTICS = ChoiceEnum(list(MASK_SEMANTICS))


@dataclass
class RavenConfig(RavenEncoderConfig):
    """RAVEn Base; both students have the encoder's keys."""

    # masking
    mask_prob_image: float = option(0.2, "masked video frames, see mask_semantics")
    mask_prob_audio: float = option(0.2, "masked audio frames, see mask_semantics")
    mask_length: int = option(3, "frames of a masked span (40 ms each)")
    mask_semantics: SEMANTICS = option(  # type: ignore[valid-type]
        "fraction",
        "meaning of the two probabilities: masked spans x length / frames, as in the authors' program (0.2 "
        "masks about 17 %), or the probability that a span starts at a frame, as in the paper (about 49 %)",
    )
    # predictors
    predictor_embed_dim: int = option(512, "channels of the predictors")
    predictor_ffn_embed_dim: int = option(2048, "channels of their feed-forward blocks")
    predictor_attention_heads: int = option(8, "their attention heads")
    predictor_layers_video: int = option(2, "blocks of predictors on the video student")
    predictor_layers_audio: int = option(2, "blocks of predictors on the audio student")
    within_audio: bool = option(True, "the audio student predicts the audio teacher on masked frames")
    within_video: bool = option(False, "the video student predicts the video teacher on masked frames")
    # teachers
    target: TARGETS = option("last", "the teacher's output, or the mean of its blocks' (mean_blocks)")  # type: ignore[valid-type]
    target_norm: TARGET_NORMS = option("none", "instance: normalise each clip and channel over time")  # type: ignore[valid-type]
    ema_decay: float = option(0.999, "the teachers' decay at the start; a half cosine takes it to 1")
    ema_anneal_end_step: int = option(II("optimization.max_update"), "updates until the decay is 1")
    teacher_drop_path: bool = option(False, "the teachers skip blocks too, as in the authors' program")
    sync_batch_norm: bool = option(True, "batch-norm statistics over all GPUs, teachers included")
    # collapse guard
    min_target_std: float = option(
        0.1,
        "stop if the standard deviation over frames of a teacher's output (scaled so that random directions "
        "have 1), before target_norm, stays below for 500 updates [ours]",
    )
    max_target_cosine: float = option(0.95, "the same if the mean cosine between clips stays above [ours]")
    collapse_check_start: int = option(5000, "updates before these two are checked [ours]")


@dataclass
class BravenConfig(RavenConfig):
    """BRAVEn Base; its losses weigh audio by audio twice."""

    predictor_layers_video: int = option(1, "blocks of predictors on the video student")
    mask_prob_audio: float = option(0.4, "masked audio frames; paper: more than RAVEn's [reconstructed]")
    target: TARGETS = option("mean_blocks", "the teacher's output, or the mean of its blocks'")  # type: ignore[valid-type]
    target_norm: TARGET_NORMS = option("instance", "instance: over time [reconstructed]")  # type: ignore[valid-type]


# -- model ---------------------------------------------------------------------------------------------------

STUDENTS = ("video", "audio")
SHORT = {"video": "v", "audio": "a"}
COLLAPSE_PATIENCE = 500
"""Updates that a collapse must last to end the training [ours]."""


class Pair(NamedTuple):
    """A student's stream and that of the teacher which it predicts."""

    student: str
    teacher: str

    @property
    def name(self) -> str:
        """E.g. ``va``: video predicts audio."""
        return SHORT[self.student] + SHORT[self.teacher]

    @property
    def within(self) -> bool:
        """Both are of one stream; such a pair counts masked frames only."""
        return self.student == self.teacher


class PairOutput(NamedTuple):
    """A student's prediction and its target on the N frames of the loss: float ``[N, D]``."""

    prediction: Tensor
    target: Tensor


@register_model("raven", dataclass=RavenConfig)
class RavenModel(BaseFairseqModel):
    """Students ``video_student``, ``audio_student``; predictors; a teacher for each student.

    Fine-tuning takes one student only. The teachers' averages are in the checkpoint, under ``_ema.``.
    """

    encoder_family = dataclasses.replace(
        RavenEncoder.encoder_family, holds="RAVEn's encoders", prefix="{}_student."
    )
    pair_weights: Mapping[str, float] = dict.fromkeys(("va", "av", "aa", "vv"), 1.0)
    """Default weight of each pair's loss; the criterion's configuration wins."""

    def __init__(self, cfg: RavenConfig) -> None:
        super().__init__()
        self.cfg = cfg
        for key, within in (("mask_prob_audio", "within_audio"), ("mask_prob_image", "within_video")):
            if cfg[within] and cfg[key] <= 0:
                raise ValueError(
                    f"model.{key} is {cfg[key]}, but {within} predicts masked frames: raise it, or set "
                    f"{within}=false"
                )
        self.video_student = RavenEncoder(cfg, "video")
        self.audio_student = RavenEncoder(cfg, "audio")
        self.pairs = [Pair("video", "audio"), Pair("audio", "video")]
        self.pairs += [Pair("audio", "audio")] if cfg.within_audio else []
        self.pairs += [Pair("video", "video")] if cfg.within_video else []
        self.predictors = nn.ModuleDict({pair.name: self.make_predictor(pair) for pair in self.pairs})
        self.teachers: dict[str, EMATeacher] = {}
        self.synchronised = not cfg.sync_batch_norm
        self.updates = 0
        self.bounds = {
            "std": Bounds("model.min_target_std", low=cfg.min_target_std),
            "cosine_between_clips": Bounds("model.max_target_cosine", high=cfg.max_target_cosine),
        }
        self.collapse_guard = CollapseGuard(
            {f"{stream}_target_{name}": b for stream in STUDENTS for name, b in self.bounds.items()},
            cfg.collapse_check_start,
            COLLAPSE_PATIENCE,
            "Lower the learning rate, lengthen the warm-up, or raise the batch (task.frames_per_update).",
        )
        self.name_clip_groups()

    @classmethod
    def build_model(cls, cfg: RavenConfig, task: Any = None) -> "RavenModel":
        if getattr(task, "for_training", False) and cfg.ema_anneal_end_step < 1:
            raise ValueError(
                f"model.ema_anneal_end_step is {cfg.ema_anneal_end_step}; its default is "
                "optimization.max_update: set that, or +model.ema_anneal_end_step=N for a training that ends "
                "by max_epoch"
            )
        return cls(cfg)

    def make_predictor(self, pair: Pair) -> Predictor:
        cfg = self.cfg
        sizes = RelativeTransformerSizes(
            layers=cfg.predictor_layers_video if pair.student == "video" else cfg.predictor_layers_audio,
            channels=cfg.predictor_embed_dim,
            ffn_channels=cfg.predictor_ffn_embed_dim,
            heads=cfg.predictor_attention_heads,
            dropout=cfg.dropout,
            attention_dropout=cfg.attention_dropout,
            layer_scale=None,
            ffn_norm=str(cfg.ffn_norm),
        )
        return Predictor(cfg.encoder_embed_dim, cfg.encoder_embed_dim, sizes)

    def name_clip_groups(self) -> None:
        """Let ``grouped_adam`` clip the gradients of each student and its predictors by their own norm."""
        for stream in STUDENTS:
            predictors = [self.predictors[pair.name] for pair in self.pairs if pair.student == stream]
            for module in (self.student(stream), *predictors):
                clip_together(module.parameters(), stream)

    def student(self, stream: str) -> RavenEncoder:
        return self.video_student if stream == "video" else self.audio_student

    @property
    def masking(self) -> UnimodalMasking:
        cfg = self.cfg
        return UnimodalMasking(audio=self.spans(cfg.mask_prob_audio), video=self.spans(cfg.mask_prob_image))

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(masking=self.masking, audio_input="waveform", clean_audio=True)

    def spans(self, probability: float) -> SpanMask:
        semantics = str(self.cfg.mask_semantics)
        return SpanMask(
            probability,
            self.cfg.mask_length,
            min_spans=1,
            equal_counts=semantics == "fraction",
            semantics=semantics,
        )

    # -- teachers --------------------------------------------------------------------------------------------

    def make_teacher(self, stream: str) -> EMATeacher:
        teacher = EMATeacher(self.student(stream), lambda: RavenEncoder(self.cfg, stream))
        teacher.updates = self.updates
        if self.cfg.sync_batch_norm:
            synchronise_batch_norm(teacher.module)
        return teacher

    def synchronise(self) -> None:
        """Synchronise batch norms before the first batch: fairseq moves a model after building it."""
        synchronise_batch_norm(self)
        for teacher in self.teachers.values():
            teacher.follow_device(next(self.parameters()))
            synchronise_batch_norm(teacher.module)
        self.synchronised = True

    def set_num_updates(self, num_updates: int) -> None:
        """Move the teachers once an update; fairseq calls this before every micro-batch."""
        self.updates = num_updates
        if self.training:
            self.collapse_guard.look(num_updates)
            decay = cosine_decay(num_updates - 1, self.cfg.ema_decay, self.cfg.ema_anneal_end_step)
            for stream, teacher in self.teachers.items():
                teacher.step(self.student(stream), decay, num_updates)

    @torch.no_grad()
    def teacher_output(
        self, stream: str, source: Source, padding_mask: Tensor | None, frame_index: Tensor | None
    ) -> Tensor:
        """The output of a stream's teacher for the unmasked clip: float32 ``[B, T, D]``.

        Batch norm uses the batch's own statistics, as in the authors' training; dropout is off.
        """
        if stream not in self.teachers:
            self.teachers[stream] = self.make_teacher(stream)
        teacher = self.teachers[stream]
        teacher.follow_device(next(self.parameters()))
        encoder = cast(RavenEncoder, teacher.module)
        use_batch_statistics(encoder, self.cfg.teacher_drop_path)
        average = str(self.cfg.target) == "mean_blocks"
        signal = unmasked(source, stream)
        last, blocks = encoder.encode(signal, padding_mask, frame_index, collect_blocks=average)
        if not average:
            return last.float()
        return averaged_targets(blocks, padding_mask, normalize_layers=False)

    def target(self, output: Tensor, padding_mask: Tensor | None) -> Tensor:
        """The students' target from a teacher's output: float32 ``[B, T, D]``."""
        return instance_norm(output, padding_mask) if str(self.cfg.target_norm) == "instance" else output

    # -- students --------------------------------------------------------------------------------------------

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        masks: dict[str, Any],
        frame_index: Tensor,
        **unused: Any,
    ) -> dict[str, Any]:
        """Predict the teachers' outputs.

        Args:
            source: ``audio`` int16 ``[B, 640*T]`` at 16 kHz and ``video`` ``[B, 1, T, H, W]`` before masking;
                ``audio_clean`` is the teacher's audio where noise was added.
            padding_mask, frame_index: see :class:`~av_ssl.methods.av_hubert.AVHubertModel`.
            masks: see :class:`av_ssl.data.masking.UnimodalMasking`.

        Returns:
            ``pairs``: a :class:`PairOutput` for each pair by name (``va``, ``av``, ``aa``, ``vv``), on all
            real frames across the streams, on the student's masked frames within one. ``weights``: of
            their losses. ``monitors``: of each teacher's output, by stream.
        """
        if not self.synchronised:
            self.synchronise()
        outputs = {
            stream: self.teacher_output(stream, source, padding_mask, frame_index)
            for stream in STUDENTS
            if any(pair.teacher == stream for pair in self.pairs)
        }
        targets = {stream: self.target(output, padding_mask) for stream, output in outputs.items()}
        encoded = {
            stream: self.student(stream).encode(
                given(source, stream), padding_mask, frame_index, masks[stream]
            )[0]
            for stream in STUDENTS
        }
        pairs = {}
        for pair in self.pairs:
            x = self.predictors[pair.name](encoded[pair.student], masks[pair.student], padding_mask)
            index = masks[f"{pair.student}_index"] if pair.within else frame_index
            prediction, target = (y.flatten(0, 1)[index].float() for y in (x, targets[pair.teacher]))
            pairs[pair.name] = PairOutput(prediction, target)
        # Not of the targets: after instance norm, noise around a constant looks healthy.
        monitors = {stream: target_monitor(output, padding_mask) for stream, output in outputs.items()}
        if self.training:
            # A single clip cannot be compared with another.
            names = list(self.bounds) if len(padding_mask) > 1 else ["std"]
            guarded = {
                f"{stream}_target_{name}": getattr(monitor, name)
                for stream, monitor in monitors.items()
                for name in names
            }
            self.collapse_guard.record(guarded)
        return {"pairs": pairs, "weights": self.pair_weights, "monitors": monitors}

    # -- checkpoints -----------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Students and predictors, and under ``_ema.{stream}.`` the teachers' averages."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "") + TEACHER_PREFIX
        for stream, teacher in self.teachers.items():
            state.update({f"{prefix}{stream}.{name}": x for name, x in teacher.state_dict().items()})
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """Load the students and the checkpoint's teachers; without these they start as copies."""
        result = super().load_state_dict(without_teachers(state_dict), strict, model_cfg, args)
        self.teachers = {}
        for stream in STUDENTS:
            if stored := under_prefix(state_dict, f"{TEACHER_PREFIX}{stream}."):
                self.teachers[stream] = self.make_teacher(stream)
                self.teachers[stream].load_state_dict(stored, self.student(stream))
        if not self.teachers:
            logger.info("the checkpoint holds no teachers: they start as copies of the students")
        return result


@register_model("braven", dataclass=BravenConfig)
class BravenModel(RavenModel):
    """RAVEn with BRAVEn's settings."""

    pair_weights: Mapping[str, float] = {**RavenModel.pair_weights, "aa": 2.0}


def unmasked(source: Source, stream: str) -> Tensor:
    """The input of a stream's teacher: audio without the noise that was added for the student."""
    clean = source.get("audio_clean") if stream == "audio" else None
    return given(source, stream) if clean is None else clean


def given(source: Source, stream: str) -> Tensor:
    signal = source[stream]
    if signal is None:
        raise ValueError(f"source has no {stream}; pre-training needs both streams (task.modalities=av)")
    return signal


# -- criterion -----------------------------------------------------------------------------------------------


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the cosine similarity of each frame's pair of vectors: ``[N, D]``, ``[N, D]`` -> ``[N]``."""
    return -F.cosine_similarity(prediction.float(), target.float(), dim=-1, eps=1e-8)


def mean_over_frames(values: Tensor) -> Tensor:
    """Mean of ``[N]``; 0 where a batch of very short clips has no masked frame."""
    return values.sum() / max(1, len(values))


@dataclass
class RavenCriterionConfig(FairseqDataclass):
    """Weights of the terms; one whose predictor the model does not have has no effect."""

    va_weight: Optional[float] = option(None, "video predicts audio, all frames; null: the model's, 1")
    av_weight: Optional[float] = option(None, "audio predicts video, all frames; null: the model's, 1")
    aa_weight: Optional[float] = option(None, "audio predicts audio, masked frames; null: RAVEn 1, BRAVEn 2")
    vv_weight: Optional[float] = option(None, "video predicts video, masked frames; null: the model's, 1")


@register_criterion("raven", dataclass=RavenCriterionConfig)
class RavenCriterion(MeanCriterion):
    """``sum_p weight_p mean_frames(-cos)`` over the pairs p of students and teachers.

    Each term is the mean over its frames of a micro-batch, and the sample size is 1: over workers and
    accumulated micro-batches fairseq averages the means, as the authors' distributed training does.
    """

    def __init__(self, cfg: RavenCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        weights = {pair: getattr(cfg, f"{pair}_weight") for pair in RavenModel.pair_weights}
        self.weights = {pair: weight for pair, weight in weights.items() if weight is not None}

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        output = model(**sample["net_input"])
        terms = {
            pair: mean_over_frames(negative_cosine(prediction, target))
            for pair, (prediction, target) in output["pairs"].items()
        }
        weights = {**output["weights"], **self.weights}
        loss = torch.stack([weights[pair] * term for pair, term in terms.items()]).sum()
        log = logged(sample, 1, loss=loss, **{f"loss_{pair}": term for pair, term in terms.items()})
        for stream, monitor in output["monitors"].items():
            log.update({f"{stream}_target_{name}": x for name, x in monitor._asdict().items()})
        return loss, 1, log

    @staticmethod
    def reduce_metrics(logging_outputs: Logs) -> None:
        """Means over workers and micro-batches."""
        keys = logging_outputs[0] if logging_outputs else ()
        log_means(logging_outputs, [key for key in keys if key.startswith("loss") or "_target_" in key])


@register_criterion("braven", dataclass=RavenCriterionConfig)
class BravenCriterion(RavenCriterion):
    """RAVEn's criterion: the model of each name has its own default weights."""
