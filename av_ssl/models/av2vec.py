"""AV2vec: multimodal self-distillation (Zhang et al., ICASSP 2023, arXiv 2212.02782).

A student sees masked (and, if wanted, noisy) audio and video, one of them at times not at all; it regresses,
on the masked frames, what a momentum teacher makes of the clean, unmasked clip.  AV2vec-MLM (``use_mlm``)
predicts cluster ids of these frames as well, as AV-HuBERT does.  Only the paper's abstract was available when
this was written: what it does not say (masking, targets, schedules) is a reconstruction from its successors,
and the help of each option names its origin.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from fairseq.models import register_model
from torch import Tensor, nn

from av_ssl.data.masking import StreamMasking
from av_ssl.models.av2vec_config import AV2vecConfig
from av_ssl.models.av_encoder import AudioVisualEncoder, Features, Source
from av_ssl.models.cluster_head import ClusterHead, label_classes
from av_ssl.models.masked_encoder import MaskedAudioVisualEncoder
from av_ssl.models.pretrained import load_pretrained, read_checkpoint
from av_ssl.modules.transformer import TransformerEncoder
from av_ssl.targets.collapse import LOOK_EVERY, Bounds, CollapseGuard
from av_ssl.targets.ema import (
    TEACHER_PREFIX,
    EMATeacher,
    annealed_decay,
    under_prefix,
    without_teachers,
)
from av_ssl.targets.layer_average import averaged_targets

logger = logging.getLogger(__name__)

GRADIENTS_COMPARED = 1000
"""Updates in which AV2vec-MLM logs how its two losses compare."""


@register_model("av2vec", dataclass=AV2vecConfig)
class AV2vecModel(ClusterHead, MaskedAudioVisualEncoder):
    """Student, regression head and momentum teacher; with ``use_mlm`` AV-HuBERT's cluster head.

    The tensors of the student are the fused encoder's; ``final_pred_proj``, the cluster head, ``mask_emb``,
    ``mask_emb_video`` and the teacher (``_ema.*``) serve pre-training alone.

    Args:
        classes: dictionary size of each label set, for ``use_mlm``.
    """

    cfg: AV2vecConfig

    def __init__(self, cfg: AV2vecConfig, classes: Sequence[int] = ()) -> None:
        super().__init__(cfg)
        if not 1 <= cfg.average_top_k_layers <= cfg.encoder_layers:
            raise ValueError(
                f"average_top_k_layers is {cfg.average_top_k_layers}; "
                f"the encoder has {cfg.encoder_layers} layers"
            )
        if cfg.sub_encoder_layers:
            raise ValueError(
                "model.sub_encoder_layers: the teacher has none of these layers, whose dropout and context "
                "would reach its targets; set it to 0"
            )
        if not cfg.use_regression and not cfg.use_mlm:
            raise ValueError("model.use_regression and model.use_mlm are both off: nothing is learned")
        if cfg.use_mlm:
            self.add_cluster_head(cfg, cfg.encoder_embed_dim, classes)
        if cfg.use_regression:
            self.final_pred_proj = nn.Linear(cfg.encoder_embed_dim, cfg.encoder_embed_dim)
        self.teacher: EMATeacher | None = None
        self.updates = 0
        self.collapse_guard = CollapseGuard(
            {
                "target_var": Bounds("model.min_target_var", low=cfg.min_target_var),
                "pred_var": Bounds("model.min_pred_var", low=cfg.min_pred_var),
            },
            start=cfg.var_check_start,
            patience=LOOK_EVERY,
            advice="Lower the learning rate, lengthen the warm-up, raise ema_end_decay, or set "
            "teacher_modalities=a.",
        )

    @classmethod
    def build_model(cls, cfg: AV2vecConfig, task: Any = None) -> "AV2vecModel":
        model = cls(cfg, label_classes(task) if cfg.use_mlm else ())
        if cfg.init_from and task.starts_from_pretrained:
            load_pretrained(model, cfg.init_from, read_checkpoint(cfg.init_from, "model.init_from").tensors)
        return model

    @property
    def masking(self) -> StreamMasking:
        """What the data pipeline draws for each batch."""
        return self.stream_masking(loss_on=str(self.cfg.loss_on), video_margin=self.cfg.mask_margin)

    # -- teacher ---------------------------------------------------------------------------------------------

    def make_teacher(self) -> EMATeacher:
        scope = str(self.cfg.ema_scope)
        if scope == "full":
            return EMATeacher(self, lambda: AudioVisualEncoder(self.cfg))
        copied = ("pos_conv.",) if scope == "layers" else ()
        return EMATeacher(self.encoder, lambda: TransformerEncoder(self.cfg), copied)

    @property
    def followed(self) -> nn.Module:
        """The part of the student that the teacher follows."""
        return self if str(self.cfg.ema_scope) == "full" else self.encoder

    def set_num_updates(self, num_updates: int) -> None:
        """Move the teacher once an update; fairseq announces their number before every micro-batch."""
        self.updates = num_updates
        if self.training:
            self.collapse_guard.look(num_updates)
        if self.teacher is not None and self.training:
            self.teacher.step(self.followed, self.decay, num_updates)

    @property
    def decay(self) -> float:
        """Of the teacher's averages, at this update."""
        cfg = self.cfg
        return annealed_decay(self.updates, cfg.ema_decay, cfg.ema_end_decay, cfg.ema_anneal_end_step)

    @torch.no_grad()
    def targets(
        self, clean: Features, source: Source, padding_mask: Tensor | None, frame_index: Tensor
    ) -> Tensor:
        """What the teacher makes of the clean, unmasked clip: float32 ``[B, T, C]``."""
        if self.teacher is None:
            self.teacher = self.make_teacher()
            self.teacher.updates = self.updates
        self.teacher.follow_device(next(self.encoder.parameters()))
        module = self.teacher.module
        fusion: AudioVisualEncoder = self
        if isinstance(module, AudioVisualEncoder):
            clean = module.front_ends(clean_source(source), padding_mask, frame_index)
            fusion, module = module, module.encoder
        seen = str(self.cfg.teacher_modalities)
        features = Features(clean.audio if "a" in seen else None, clean.video if "v" in seen else None)
        first = self.cfg.encoder_layers - self.cfg.average_top_k_layers + 1
        encoder = cast(TransformerEncoder, module)
        _, outputs = encoder.run(fusion.project(fusion.join(features)), padding_mask, first=first)
        kind = str(self.cfg.target_type)
        return averaged_targets(
            [getattr(output, kind) for output in outputs],
            padding_mask,
            self.cfg.instance_norm_target_layer,
            self.cfg.layer_norm_targets,
        )

    # -- student ---------------------------------------------------------------------------------------------

    def forward(
        self,
        source: Source,
        padding_mask: Tensor,
        masks: dict[str, Any],
        frame_index: Tensor,
        target_list: Sequence[Tensor] = (),
        **unused: Any,
    ) -> dict[str, Any]:
        """Predict the teacher's targets on the frames that count, and cluster ids.

        Args:
            source: ``audio [B, 104, T]`` and ``video [B, 1, T, H, W]`` as the student hears and sees them
                before masking; ``audio_clean`` is what the teacher hears where noise was added.
            padding_mask: bool ``[B, T]``.
            masks: see :class:`av_ssl.data.masking.StreamMasking`.
            frame_index: int64 ``[F]``, flat indices of real frames.
            target_list: int64 ``[B, T]`` for each label set.

        Returns:
            ``features_pen`` (mean square of the student's features). With ``use_regression``: ``prediction``
            and ``target`` float32 ``[S, C]`` on the S frames of the loss, ``target_var`` and ``pred_var``
            (standard deviations over frames), ``ema_decay`` (the teacher's). With ``use_mlm``:
            ``logit_m_list`` and so on, see :class:`~av_ssl.models.av_hubert.AVHubertModel`. With both, while
            their gradients are compared: ``encoder_output`` ``[B, T, C]``.
        """
        student, seen = self.student_features(source, padding_mask, masks, frame_index)
        target = None
        if self.cfg.use_regression:
            clean = self.clean_features(seen, source, padding_mask, frame_index)
            target = self.targets(clean, source, padding_mask, frame_index)
        x, penalty = self.encode_student(student, padding_mask, masks, frame_index)
        output: dict[str, Any] = {"features_pen": penalty}
        if target is not None:
            output.update(self.regression(x, target, masks["loss_index"]))
            if self.training:
                self.collapse_guard.record({key: output[key] for key in self.collapse_guard.bounds})
        if self.cfg.use_mlm:
            output.update(self.masked_units(x, target_list, masks))
        if self.training and target is not None and self.cfg.use_mlm and self.updates < GRADIENTS_COMPARED:
            output["encoder_output"] = x
        return output

    def regression(self, x: Tensor, target: Tensor, index: Tensor) -> dict[str, Any]:
        prediction = self.final_pred_proj(x.flatten(0, 1)[index]).float()
        target = target.flatten(0, 1)[index]
        return {
            "prediction": prediction,
            "target": target,
            "target_var": spread(target),
            "pred_var": spread(prediction.detach()),
            "ema_decay": self.decay,
        }

    def clean_features(
        self, seen: Features | None, source: Source, padding_mask: Tensor, frame_index: Tensor
    ) -> Features:
        """Front-end outputs of the clean clip, for the teacher: the student's own pass serves if it can."""
        if seen is None:
            return self.second_pass(source, padding_mask, frame_index)
        if source.get("audio_clean") is None:
            return seen
        with torch.no_grad():
            return seen._replace(audio=self.feature_extractor_audio(source["audio_clean"]))

    @torch.no_grad()
    def second_pass(self, source: Source, padding_mask: Tensor, frame_index: Tensor) -> Features:
        """The front-ends on unmasked input; the ResNet in eval mode: batch norm must not count its frames."""
        resnet = self.feature_extractor_video.resnet
        training = resnet.training
        resnet.eval()
        try:
            return self.front_ends(clean_source(source), padding_mask, frame_index)
        finally:
            resnet.train(training)

    # -- checkpoints -----------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The student's tensors and, under ``_ema.``, the teacher's averages."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        if self.teacher is not None:
            prefix = kwargs.get("prefix", "") + TEACHER_PREFIX
            state.update({prefix + name: tensor for name, tensor in self.teacher.state_dict().items()})
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """Load the student and the checkpoint's teacher; if it has none, the teacher restarts as a copy."""
        result = super().load_state_dict(without_teachers(state_dict), strict, model_cfg, args)
        self.teacher = None
        if stored := under_prefix(state_dict, TEACHER_PREFIX):
            self.teacher = self.make_teacher()
            self.teacher.load_state_dict(stored, self.followed)
        else:
            logger.info("the checkpoint holds no teacher: it starts again as a copy of the student")
        return result


def clean_source(source: Source) -> Source:
    audio = source.get("audio_clean")
    return {"audio": source["audio"] if audio is None else audio, "video": source["video"]}


def spread(x: Tensor) -> Tensor:
    """Standard deviation over frames, averaged over channels: a scalar that falls to 0 in a collapse."""
    return (x.float().var(dim=0, correction=0) + 1e-6).sqrt().mean()
