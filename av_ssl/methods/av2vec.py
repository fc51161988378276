"""AV2vec: multimodal self-distillation (Zhang et al., ICASSP 2023, arXiv 2212.02782).

The student receives masked (and, optionally, noisy) audio and video; at times one of them is dropped.  On the
masked frames it regresses the targets of a momentum teacher, which receives the clean, unmasked clip.
AV2vec-MLM (``use_mlm``) also predicts the cluster ids of these frames, as AV-HuBERT does.

    student: corrupted clip -> fused encoder -> final_pred_proj -> prediction  (-> cluster head -> logits)
    teacher: clean clip -> EMA of the encoder -> mean of its top K layers, normalised over time -> target
    loss:    squared distance on the masked frames  (+ cross-entropy of cluster ids)  + feature penalty

Only the paper's abstract was available.  What it leaves open (masking, targets, schedules) is reconstructed
from later work, and the help of each option names its origin:  ``[paper]``, ``[data2vec]``, ``[recipes]``
(AV-HuBERT's), ``[reconstructed]``, or ``[ours]``.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, cast

import torch
from fairseq.criterions import register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor, nn

from av_ssl.checkpoints.files import read_checkpoint
from av_ssl.compat.keys import option
from av_ssl.data.dataset import DataNeeds
from av_ssl.data.masking import LOSS_FRAMES, StreamMasking
from av_ssl.methods.criterion import (
    FeaturePenaltyConfig,
    Logs,
    MeanCriterion,
    log_means,
    logged,
    penalty_weight,
    regression_loss,
)
from av_ssl.methods.encoder_model import Source
from av_ssl.methods.fused_encoder import (
    REPLACEMENTS,
    AudioVisualEncoder,
    Features,
    MaskedAudioVisualEncoder,
    RecipeConfig,
)
from av_ssl.methods.masked_units import (
    CLUSTER_HEAD_TENSORS,
    ClusterHead,
    ClusterHeadConfig,
    frame_counts,
    label_classes,
    masked_unit_log,
    masked_unit_losses,
    reduce_masked_unit_metrics,
)
from av_ssl.methods.pretrained import load_pretrained
from av_ssl.modules.transformer import TransformerEncoder
from av_ssl.targets.collapse import (
    LOOK_EVERY,
    Bounds,
    CollapseGuard,
    TargetMonitor,
    decorrelation_loss,
    target_monitor,
)
from av_ssl.targets.ema import (
    TEACHER_PREFIX,
    EMATeacher,
    annealed_decay,
    averaged_targets,
    under_prefix,
    without_teachers,
)

logger = logging.getLogger(__name__)


# -- configuration -------------------------------------------------------------------------------------------


@dataclass
class AV2vecConfig(RecipeConfig, ClusterHeadConfig):
    """AV2vec Base; masking and encoder as in :class:`~av_ssl.methods.fused_encoder.RecipeConfig`."""

    # start
    w2v_path: Optional[str] = option(None, "start from this checkpoint's encoder, heads at random [ours]")
    # masking
    selection_type: REPLACEMENTS = option(
        "same_seq", "what replaces masked video (masking_type=input) [recipes]"
    )
    mask_margin: int = option(
        0,
        "widen video masks by so many frames a side, which the loss leaves out (the 3-D convolution mixes 5 "
        "frames) [ours]",
    )
    # objectives
    use_regression: bool = option(True, "regress the teacher's targets")
    use_mlm: bool = option(False, "predict the cluster ids of task.labels, too (AV2vec-MLM)")
    loss_on: ChoiceEnum(list(LOSS_FRAMES)) = option(  # type: ignore[valid-type]
        "union", "frames in the loss: masked in either stream, in the streams kept, or all [reconstructed]"
    )
    # teacher
    average_top_k_layers: int = option(8, "teacher layers in the target [reconstructed]")
    target_type: ChoiceEnum(["ffn", "residual"]) = option(  # type: ignore[valid-type]
        "ffn", "feed-forward output or residual stream of the layers [data2vec]"
    )
    instance_norm_target_layer: bool = option(True, "normalise each layer over time [data2vec]")
    layer_norm_targets: bool = option(False, "layer norm of the averaged target [data2vec]")
    teacher_modalities: ChoiceEnum(["av", "a", "v"]) = option(  # type: ignore[valid-type]
        "av", "streams that the teacher receives: both [paper], a or v [ours]"
    )
    ema_scope: ChoiceEnum(["layers", "transformer", "full"]) = option(  # type: ignore[valid-type]
        "layers",
        "what is averaged: Transformer layers, all of the Transformer, or the whole model (full); the rest, "
        "such as front-ends, fusion and positional convolution, is the student's own [reconstructed]",
    )
    ema_decay: float = option(0.999, "decay at the start [data2vec]")
    ema_end_decay: float = option(0.9999, "decay at the end [data2vec]")
    ema_anneal_end_step: int = option(30000, "updates until ema_end_decay [data2vec]")
    # collapse guard
    min_target_std: float = option(
        0.1,
        "stop if the teacher's output, before the norm of the targets, varies less over frames, over 100 "
        "updates (random directions: 1) [ours]",
    )
    min_target_rank: float = option(
        1.5, "the same for its effective rank: the directions that share its variance [ours]"
    )
    min_pred_std: float = option(0.01, "the same for predictions [data2vec]")
    collapse_check_start: int = option(5000, "updates before these two are checked [data2vec]")


# -- model ---------------------------------------------------------------------------------------------------

GRADIENTS_COMPARED = 1000
"""Updates in which AV2vec-MLM logs the ratio of its two losses' gradients."""


@register_model("av2vec", dataclass=AV2vecConfig)
class AV2vecModel(ClusterHead, MaskedAudioVisualEncoder):
    """Student, regression head and momentum teacher; with ``use_mlm`` AV-HuBERT's cluster head.

    Args:
        classes: dictionary size of each label set, for ``use_mlm``.
    """

    cfg: AV2vecConfig
    pretraining_only = ("mask_emb", "final_pred_proj.", TEACHER_PREFIX, *CLUSTER_HEAD_TENSORS)

    def __init__(self, cfg: AV2vecConfig, classes: Sequence[int] = ()) -> None:
        super().__init__(cfg)
        if not 1 <= cfg.average_top_k_layers <= cfg.encoder_layers:
            raise ValueError(
                f"average_top_k_layers is {cfg.average_top_k_layers}; "
                f"the encoder has {cfg.encoder_layers} layers"
            )
        if cfg.sub_encoder_layers:
            raise ValueError(
                "model.sub_encoder_layers is not supported: the teacher's targets would depend on the "
                "dropout and the context of these layers; set it to 0"
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
                "target_std": Bounds("model.min_target_std", low=cfg.min_target_std),
                "target_rank": Bounds("model.min_target_rank", low=cfg.min_target_rank),
                "pred_var": Bounds("model.min_pred_std", low=cfg.min_pred_std),
            },
            start=cfg.collapse_check_start,
            patience=LOOK_EVERY,
            advice="Lower the learning rate, lengthen the warm-up, raise ema_end_decay, or set "
            "criterion.decorrelation_weight.",
        )

    @classmethod
    def build_model(cls, cfg: AV2vecConfig, task: Any = None) -> "AV2vecModel":
        model = cls(cfg, label_classes(task) if cfg.use_mlm else ())
        if cfg.w2v_path and task.for_training:
            load_pretrained(model, cfg.w2v_path, read_checkpoint(cfg.w2v_path).tensors)
        return model

    @property
    def masking(self) -> StreamMasking:
        return self.stream_masking(loss_on=str(self.cfg.loss_on), video_margin=self.cfg.mask_margin)

    @property
    def data_needs(self) -> DataNeeds:
        return DataNeeds(masking=self.masking, clean_audio=True)

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
        """Move the teacher once an update; fairseq calls this before every micro-batch."""
        self.updates = num_updates
        if self.training:
            self.collapse_guard.look(num_updates)
        if self.teacher is not None and self.training:
            self.teacher.step(self.followed, self.decay, num_updates)

    @property
    def decay(self) -> float:
        cfg = self.cfg
        return annealed_decay(self.updates, cfg.ema_decay, cfg.ema_end_decay, cfg.ema_anneal_end_step)

    @torch.no_grad()
    def targets(
        self, clean: Features, source: Source, padding_mask: Tensor | None, frame_index: Tensor
    ) -> tuple[Tensor, TargetMonitor]:
        """The teacher's targets for the clean, unmasked clip, float32 ``[B, T, C]``, and their spread.

        The spread is that before the norm: after it, noise around a constant looks healthy.
        """
        if self.teacher is None:
            self.teacher = self.make_teacher()
            self.teacher.updates = self.updates
        self.teacher.follow_device(next(self.encoder.parameters()))
        module = self.teacher.module
        fusion: AudioVisualEncoder = self
        if isinstance(module, AudioVisualEncoder):
            clean = module.front_ends(clean_source(source), padding_mask, frame_index)
            fusion, module = module, module.encoder
        streams = str(self.cfg.teacher_modalities)
        features = Features(clean.audio if "a" in streams else None, clean.video if "v" in streams else None)
        first = self.cfg.encoder_layers - self.cfg.average_top_k_layers + 1
        encoder = cast(TransformerEncoder, module)
        _, outputs = encoder.run(fusion.project(fusion.join(features)), padding_mask, first=first)
        layers = [getattr(output, str(self.cfg.target_type)) for output in outputs]
        target = averaged_targets(
            layers, padding_mask, self.cfg.instance_norm_target_layer, self.cfg.layer_norm_targets
        )
        return target, target_monitor(torch.stack(layers).mean(0), padding_mask)

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
        """Predict the teacher's targets on the frames of the loss, and cluster ids.

        Args:
            source: ``audio [B, 104, T]`` and ``video [B, 1, T, H, W]``, the student's input before masking;
                ``audio_clean`` is the teacher's audio where noise was added.
            padding_mask, masks, frame_index, target_list: see
                :class:`~av_ssl.methods.av_hubert.AVHubertModel`.

        Returns:
            ``features_pen`` (mean square of the student's features). With ``use_regression``: ``encoded``,
            ``prediction`` and ``target`` (float32) ``[S, C]`` on the S frames of the loss, ``target_var`` and
            ``pred_var`` (standard deviations over frames), ``ema_decay``, and the fields of
            :class:`~av_ssl.targets.collapse.TargetMonitor` as ``target_std`` and so on. With ``use_mlm``:
            ``logit_m_list`` and so on, as AV-HuBERT's. With both, while their gradients are compared:
            ``encoder_output [B, T, C]``.
        """
        student, unmasked = self.student_features(source, padding_mask, masks, frame_index)
        targets = None
        if self.cfg.use_regression:
            clean = self.clean_features(unmasked, source, padding_mask, frame_index)
            targets = self.targets(clean, source, padding_mask, frame_index)
        x, penalty = self.encode_student(student, padding_mask, masks, frame_index)
        output: dict[str, Any] = {"features_pen": penalty}
        if targets is not None:
            output.update(self.regression(x, *targets, masks["loss_index"]))
            if self.training:
                self.collapse_guard.record({key: output[key] for key in self.collapse_guard.bounds})
        if self.cfg.use_mlm:
            output.update(self.masked_units(x, target_list, masks))
        if self.training and targets is not None and self.cfg.use_mlm and self.updates < GRADIENTS_COMPARED:
            output["encoder_output"] = x
        return output

    def regression(self, x: Tensor, target: Tensor, monitor: TargetMonitor, index: Tensor) -> dict[str, Any]:
        frames = x.flatten(0, 1)[index]
        prediction = self.final_pred_proj(frames).float()
        target = target.flatten(0, 1)[index]
        return {
            "prediction": prediction,
            "target": target,
            "encoded": frames,
            "target_var": spread(target),
            "pred_var": spread(prediction.detach()),
            "ema_decay": self.decay,
            **{f"target_{name}": value for name, value in monitor._asdict().items()},
        }

    def clean_features(
        self, unmasked: Features | None, source: Source, padding_mask: Tensor, frame_index: Tensor
    ) -> Features:
        """Front-end outputs of the clean clip, for the teacher; ``unmasked``, the student's, if possible."""
        if unmasked is None:
            return self.second_pass(source, padding_mask, frame_index)
        if source.get("audio_clean") is None:
            return unmasked
        with torch.no_grad():
            return unmasked._replace(audio=self.feature_extractor_audio(source["audio_clean"]))

    @torch.no_grad()
    def second_pass(self, source: Source, padding_mask: Tensor, frame_index: Tensor) -> Features:
        """The front-ends on unmasked input, with the ResNet in eval mode: batch norms must not count it."""
        resnet = self.feature_extractor_video.resnet
        training = resnet.training
        resnet.eval()
        try:
            return self.front_ends(clean_source(source), padding_mask, frame_index)
        finally:
            resnet.train(training)

    def remove_pretraining_modules(self) -> None:
        super().remove_pretraining_modules()
        self.teacher = None

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
        """Load the student and the checkpoint's teacher; without one, the teacher starts as a copy."""
        result = super().load_state_dict(without_teachers(state_dict), strict, model_cfg, args)
        self.teacher = None
        if stored := under_prefix(state_dict, TEACHER_PREFIX):
            self.teacher = self.make_teacher()
            self.teacher.load_state_dict(stored, self.followed)
        else:
            logger.info("the checkpoint holds no teacher: it starts as a copy of the student")
        return result


def clean_source(source: Source) -> Source:
    """The unmasked clip without the noise that was added for the student."""
    audio = source.get("audio_clean")
    return {"audio": source["audio"] if audio is None else audio, "video": source["video"]}


def spread(x: Tensor) -> Tensor:
    """Standard deviation over frames, averaged over channels: a scalar that falls to 0 in a collapse."""
    return (x.float().var(dim=0, correction=0) + 1e-6).sqrt().mean()


# -- criterion -----------------------------------------------------------------------------------------------

TEACHER_STATISTICS = ("target_var", "pred_var", "ema_decay", *(f"target_{n}" for n in TargetMonitor._fields))
MEANS = ("loss", "loss_regression", "features_pen", "decorrelation", *TEACHER_STATISTICS, "gradient_ratio")
"""What is logged as a mean over the frames of the loss."""


@dataclass
class AV2vecCriterionConfig(FeaturePenaltyConfig):
    """Weights of the terms; each term is a mean over its own frames."""

    regression_weight: float = option(1.0, "weight of the regression [ours]")
    pred_masked_weight: float = option(1.0, "weight of cluster ids on the frames of the loss [ours]")
    pred_nomask_weight: float = option(0.0, "weight of cluster ids on the other frames [ours]")
    decorrelation_weight: float = option(
        0.0, "weight of the squared correlations between channels of the encoder's output [ours]"
    )
    loss_beta: float = option(0.0, "smooth-L1 threshold; 0: squared error [data2vec]")
    loss_scale: Optional[float] = option(None, "null: 1/sqrt(C) [data2vec]")


@register_criterion("av2vec", dataclass=AV2vecCriterionConfig)
class AV2vecCriterion(MeanCriterion):
    """``w_r R/|S| + w_m M/|S| + w_u U/|rest| + w_pen pen``, a mean over frames.

    R is the summed regression loss, M and U the summed cross-entropies of a model with ``use_mlm``, S the
    frames of the loss.  The weights are ``regression_weight``, ``pred_masked_weight``, ``pred_nomask_weight``
    and ``loss_weights``.  The sum is multiplied by |S|, and |S| is the sample size, so that fairseq's
    division by the sample size of all workers and micro-batches gives the mean over all their frames.
    """

    def __init__(self, cfg: AV2vecCriterionConfig, task: Any) -> None:
        super().__init__(cfg, task)
        self.penalty_weight = penalty_weight(cfg)

    def forward(
        self, model: Any, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        output = model(target_list=sample.get("target_list", ()), **sample["net_input"])
        frames = sample["net_input"]["masks"]["loss_index"].numel()
        penalty = output["features_pen"] * frames
        loss = self.penalty_weight * penalty
        log = logged(sample, frames, features_pen=penalty)
        if "prediction" in output:
            regression = regression_loss(
                output["prediction"], output["target"], self.cfg.loss_beta, self.cfg.loss_scale
            )
            loss = loss + self.cfg.regression_weight * regression
            log["loss_regression"] = regression.detach()
            if self.cfg.decorrelation_weight and frames:  # of no frames it is no number
                decorrelation = decorrelation_loss(output["encoded"]) * frames
                loss = loss + self.cfg.decorrelation_weight * decorrelation
                log["decorrelation"] = decorrelation.detach()
            log.update({key: output[key] * frames for key in TEACHER_STATISTICS})
        if "logit_m_list" in output:
            losses = masked_unit_losses(output)
            loss = loss + self.masked_unit_loss(losses, frame_counts(output)) * frames
            log.update(masked_unit_log(output, losses))
        if "encoder_output" in output:
            ratio = gradient_ratio(losses["m"].sum(), regression, output["encoder_output"])
            log["gradient_ratio"] = ratio * frames
        log["loss"] = loss.detach()
        return loss, frames, log

    def masked_unit_loss(self, losses: dict[str, Tensor], counts: dict[str, int]) -> Tensor:
        weights = {"m": self.cfg.pred_masked_weight}
        if self.cfg.pred_nomask_weight:  # a weight of 0 would cost a backward pass
            weights["u"] = self.cfg.pred_nomask_weight
        means = [weight * losses[part].sum() / max(1, counts[part]) for part, weight in weights.items()]
        return torch.stack(means).sum()

    @staticmethod
    def reduce_metrics(logging_outputs: Logs) -> None:
        log_means(logging_outputs, MEANS)
        reduce_masked_unit_metrics(logging_outputs)


def gradient_ratio(loss: Tensor, other: Tensor, x: Tensor) -> Tensor:
    """Norm of the gradient of ``loss`` at ``x``, divided by that of ``other``; ideally near 1."""
    norms = [torch.autograd.grad(each, x, retain_graph=True)[0].float().norm() for each in (loss, other)]
    return norms[0] / norms[1].clamp(min=1e-12)
