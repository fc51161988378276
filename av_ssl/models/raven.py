"""RAVEn: two students on raw audio and video, each predicting what momentum teachers hear and see.

Haliassos et al., ICLR 2023, arXiv 2212.06246. Each student gets its stream with short spans zeroed. The video
student predicts the audio teacher's output; the audio student predicts both teachers'. BRAVEn (ICASSP 2024,
arXiv 2404.02098) is the same model with other settings. The authors published neither's pre-training code.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor, nn

from av_ssl.data.spans import SpanMask
from av_ssl.data.unimodal_masking import UnimodalMasking
from av_ssl.models.av_encoder import Source
from av_ssl.models.raven_config import BravenConfig, RavenConfig
from av_ssl.models.raven_encoder import RavenEncoder
from av_ssl.modules.batch_norm import synchronise_batch_norm, use_batch_statistics
from av_ssl.modules.predictor import Predictor
from av_ssl.optim.parameter_groups import clip_together
from av_ssl.targets.collapse import CollapseGuard
from av_ssl.targets.ema import TEACHER_PREFIX, EMATeacher, cosine_decay, under_prefix, without_teachers
from av_ssl.targets.layer_average import averaged_targets, instance_norm
from av_ssl.targets.monitors import bounded, monitor_bounds, target_monitor

logger = logging.getLogger(__name__)

STREAMS = ("video", "audio")
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
    """What a student predicts and what it should, on the N frames that count: float ``[N, D]``."""

    prediction: Tensor
    target: Tensor


@register_model("raven", dataclass=RavenConfig)
class RavenModel(BaseFairseqModel):
    """Students ``video_student``, ``audio_student``; predictors; a teacher for each student.

    Only the students outlive pre-training. Both teachers' averages are in the checkpoint, under ``_ema.``.
    """

    audio_input = "waveform"
    loss_weights: Mapping[str, float] = dict.fromkeys(("va", "av", "aa", "vv"), 1.0)
    """Of each pair's loss, where the criterion's configuration says nothing else."""

    def __init__(self, cfg: RavenConfig) -> None:
        super().__init__()
        self.cfg = cfg
        for within, probability in (("audio", cfg.mask_prob_audio), ("video", cfg.mask_prob_video)):
            if cfg[f"within_{within}"] and probability <= 0:
                raise ValueError(
                    f"model.mask_prob_{within} is {probability}, but within_{within} predicts masked frames: "
                    f"raise it, or set within_{within}=false"
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
        self.collapse_guard = CollapseGuard(
            monitor_bounds(STREAMS, cfg.min_target_std, cfg.max_target_cosine),
            cfg.collapse_check_start,
            COLLAPSE_PATIENCE,
            "Lower the learning rate, lengthen the warm-up, or raise the batch (task.frames_per_update).",
        )
        self.name_clip_groups()

    @classmethod
    def build_model(cls, cfg: RavenConfig, task: Any = None) -> "RavenModel":
        """As fairseq calls it.

        Raises:
            ValueError: a training begins whose teachers would stand still from its second update on.
        """
        if getattr(task, "starts_from_pretrained", False) and cfg.ema_updates < 1:
            raise ValueError(
                f"model.ema_updates is {cfg.ema_updates}, as optimization.max_update is unless it is set: "
                "the teachers need to know how many updates the training has. Set optimization.max_update, "
                "or +model.ema_updates=N for a training that ends by max_epoch"
            )
        return cls(cfg)

    def make_predictor(self, pair: Pair) -> Predictor:
        cfg = self.cfg
        layers = cfg.predictor_layers_video if pair.student == "video" else cfg.predictor_layers_audio
        return Predictor(
            cfg.encoder_embed_dim,
            cfg.encoder_embed_dim,
            width=cfg.predictor_embed_dim,
            heads=cfg.predictor_attention_heads,
            ffn=cfg.predictor_ffn_embed_dim,
            layers=layers,
            dropout=cfg.dropout,
            ffn_norm=str(cfg.ffn_norm),
        )

    def name_clip_groups(self) -> None:
        """``grouped_adam`` clips the gradients of each student, its predictors included, by themselves."""
        for stream in STREAMS:
            predictors = [self.predictors[pair.name] for pair in self.pairs if pair.student == stream]
            for module in (self.student(stream), *predictors):
                clip_together(module.parameters(), stream)

    def student(self, stream: str) -> RavenEncoder:
        return self.video_student if stream == "video" else self.audio_student

    @property
    def masking(self) -> UnimodalMasking:
        """What the data pipeline draws for each batch."""
        cfg = self.cfg
        return UnimodalMasking(audio=self.spans(cfg.mask_prob_audio), video=self.spans(cfg.mask_prob_video))

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
        """Move the teachers once an update; fairseq announces their number before every micro-batch."""
        self.updates = num_updates
        if self.training:
            self.collapse_guard.look(num_updates)
            decay = cosine_decay(num_updates - 1, self.cfg.ema_decay, self.cfg.ema_updates)
            for stream, teacher in self.teachers.items():
                teacher.step(self.student(stream), decay, num_updates)

    @torch.no_grad()
    def teacher_output(
        self, stream: str, source: Source, padding_mask: Tensor | None, frame_index: Tensor | None
    ) -> Tensor:
        """What the teacher of a stream makes of the unmasked clip: float32 ``[B, T, D]``.

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
        """What students predict of a teacher's output: float32 ``[B, T, D]``."""
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
                ``audio_clean`` is what the teacher hears where noise was added.
            padding_mask: bool ``[B, T]``.
            masks: see :class:`av_ssl.data.unimodal_masking.UnimodalMasking`.
            frame_index: int64 ``[F]``, flat indices of real frames.

        Returns:
            ``pairs``: a :class:`PairOutput` for each pair by name (``va``, ``av``, ``aa``, ``vv``), on all
            real frames across the streams, on the student's masked frames within one. ``weights``: of
            their losses, by name. ``monitors``: a
            :class:`~av_ssl.targets.monitors.TargetMonitor` of each teacher's output by stream.
        """
        if not self.synchronised:
            self.synchronise()
        outputs = {
            stream: self.teacher_output(stream, source, padding_mask, frame_index)
            for stream in STREAMS
            if any(pair.teacher == stream for pair in self.pairs)
        }
        targets = {stream: self.target(output, padding_mask) for stream, output in outputs.items()}
        encoded = {
            stream: self.student(stream).encode(
                given(source, stream), padding_mask, frame_index, masks[stream]
            )[0]
            for stream in STREAMS
        }
        pairs = {}
        for pair in self.pairs:
            x = self.predictors[pair.name](encoded[pair.student], masks[pair.student], padding_mask)
            index = masks[f"{pair.student}_index"] if pair.within else frame_index
            prediction, target = (y.flatten(0, 1)[index].float() for y in (x, targets[pair.teacher]))
            pairs[pair.name] = PairOutput(prediction, target)
        # Not of the targets: instance norm makes noise around a constant look healthy.
        monitors = {stream: target_monitor(output, padding_mask) for stream, output in outputs.items()}
        if self.training:
            self.collapse_guard.record(bounded(monitors, clips=len(padding_mask)))
        return {"pairs": pairs, "weights": self.loss_weights, "monitors": monitors}

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
        """Load the students and the checkpoint's teachers; without these they restart as copies."""
        result = super().load_state_dict(without_teachers(state_dict), strict, model_cfg, args)
        self.teachers = {}
        for stream in STREAMS:
            if stored := under_prefix(state_dict, f"{TEACHER_PREFIX}{stream}."):
                self.teachers[stream] = self.make_teacher(stream)
                self.teachers[stream].load_state_dict(stored, self.student(stream))
        if not self.teachers:
            logger.info("the checkpoint holds no teachers: they start again as copies of the students")
        return result

    def max_positions(self) -> None:
        return None


@register_model("braven", dataclass=BravenConfig)
class BravenModel(RavenModel):
    """RAVEn with BRAVEn's settings."""

    loss_weights: Mapping[str, float] = {**RavenModel.loss_weights, "aa": 2.0}


def unmasked(source: Source, stream: str) -> Tensor:
    """What the teacher of a stream gets: audio without the noise that was added for the student."""
    clean = source.get("audio_clean") if stream == "audio" else None
    return given(source, stream) if clean is None else clean


def given(source: Source, stream: str) -> Tensor:
    signal = source[stream]
    if signal is None:
        raise ValueError(f"source has no {stream}; pre-training needs both streams (task.modalities=av)")
    return signal
