"""AV2vec: multimodal self-distillation (Zhang et al., ICASSP 2023, arXiv 2212.02782).

A student sees masked (and, if wanted, noisy) audio and video, one of them at times not at all; it regresses,
on the masked frames, what a momentum teacher makes of the clean, unmasked clip.  Only the paper's abstract
was available when this was written: what it does not say (masking, targets, schedules) is a reconstruction
from its successors, and the help of each option names its origin.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from torch import Tensor, nn

from av_ssl.data.masking import SpanMask, StreamMasking
from av_ssl.models.av_encoder import AudioVisualEncoder, AudioVisualEncoderConfig, Features, Source
from av_ssl.modules.masking import replace_frames, take_frames
from av_ssl.modules.transformer import TransformerEncoder
from av_ssl.targets.ema import EMATeacher, annealed_decay
from av_ssl.targets.layer_average import averaged_targets

logger = logging.getLogger(__name__)

TEACHER_PREFIX = "_ema."


@dataclass
class AV2vecConfig(AudioVisualEncoderConfig):
    """AV2vec Base, under AV-HuBERT's keys; ``[reconstructed]``: what the paper's abstract leaves open."""

    layer_norm_first: bool = field(
        default=True, metadata={"help": "layer norm before each block (AV-HuBERT's recipes)"}
    )
    encoder_layerdrop: float = field(
        default=0.05, metadata={"help": "probability of skipping a layer (AV-HuBERT's recipes)"}
    )
    dropout_input: float = field(
        default=0.1, metadata={"help": "dropout of the fused features (AV-HuBERT's recipes)"}
    )
    feature_grad_mult: float = field(
        default=0.1, metadata={"help": "scale of the gradient into the front-ends (AV-HuBERT's recipes)"}
    )
    masking_type: ChoiceEnum(["stream_feature", "input", "feature"]) = field(  # type: ignore[valid-type]
        default="stream_feature",
        metadata={
            "help": "what is masked: each stream's features before fusion, the input itself, or the fused "
            "features [reconstructed]"
        },
    )
    mask_prob_audio: float = field(
        default=0.8, metadata={"help": "masked spans x length / frames [reconstructed]"}
    )
    mask_length_audio: int = field(
        default=10, metadata={"help": "frames of a masked audio span [reconstructed]"}
    )
    mask_prob_image: float = field(
        default=0.3, metadata={"help": "masked spans x length / frames [reconstructed]"}
    )
    mask_length_image: int = field(
        default=5, metadata={"help": "frames of a masked video span [reconstructed]"}
    )
    mask_margin: int = field(
        default=0,
        metadata={
            "help": "widen video masks by so many frames a side, which the loss leaves out: the 3-D "
            "convolution shows the two outermost frames of a masked span to its neighbours [ours]"
        },
    )
    modality_dropout: float = field(
        default=0.5,
        metadata={"help": "probability that the student loses one stream of a batch [reconstructed]"},
    )
    audio_dropout: float = field(default=0.5, metadata={"help": "that it is the audio [reconstructed]"})
    loss_on: ChoiceEnum(["union", "surviving", "all"]) = field(  # type: ignore[valid-type]
        default="union",
        metadata={
            "help": "frames in the loss: masked in either stream, in the streams kept, or all [reconstructed]"
        },
    )
    average_top_k_layers: int = field(
        default=8, metadata={"help": "teacher layers in the target [reconstructed]"}
    )
    target_type: ChoiceEnum(["ffn", "residual"]) = field(  # type: ignore[valid-type]
        default="ffn", metadata={"help": "feed-forward output or residual stream of the layers [data2vec]"}
    )
    instance_norm_target_layer: bool = field(
        default=True, metadata={"help": "normalise each layer over time"}
    )
    layer_norm_targets: bool = field(default=False, metadata={"help": "layer norm of the averaged target"})
    teacher_modalities: ChoiceEnum(["av", "a", "v"]) = field(  # type: ignore[valid-type]
        default="av", metadata={"help": "streams that the teacher sees; av is the paper's"}
    )
    ema_scope: ChoiceEnum(["layers", "transformer", "full"]) = field(  # type: ignore[valid-type]
        default="layers",
        metadata={
            "help": "what is averaged: Transformer layers (positional convolution copied), all of the "
            "Transformer, or the whole model, front-ends included [reconstructed]"
        },
    )
    ema_decay: float = field(default=0.999, metadata={"help": "decay at the start [data2vec]"})
    ema_end_decay: float = field(default=0.9999, metadata={"help": "decay at the end [data2vec]"})
    ema_anneal_end_step: int = field(
        default=30000, metadata={"help": "updates until ema_end_decay [data2vec]"}
    )
    min_target_var: float = field(
        default=0.1,
        metadata={"help": "stop if the targets' standard deviation over frames falls below [data2vec]"},
    )
    min_pred_var: float = field(default=0.01, metadata={"help": "the same for predictions [data2vec]"})
    var_check_start: int = field(
        default=5000, metadata={"help": "updates before these two are looked at [data2vec]"}
    )


@register_model("av2vec", dataclass=AV2vecConfig)
class AV2vecModel(AudioVisualEncoder):
    """Student, regression head and momentum teacher.

    The tensors of the student are the fused encoder's; ``final_pred_proj``, ``mask_emb``, ``mask_emb_video``
    and the teacher (``_ema.*``) serve pre-training alone.
    """

    def __init__(self, cfg: AV2vecConfig) -> None:
        super().__init__(cfg)
        self.cfg: AV2vecConfig = cfg
        if not 1 <= cfg.average_top_k_layers <= cfg.encoder_layers:
            raise ValueError(
                f"average_top_k_layers is {cfg.average_top_k_layers}; "
                f"the encoder has {cfg.encoder_layers} layers"
            )
        channels = cfg.encoder_embed_dim
        masking = str(cfg.masking_type)
        self.mask_emb = nn.Parameter(torch.rand(cfg.audio_feat_dim if masking == "input" else channels))
        if masking == "stream_feature":
            self.mask_emb_video = nn.Parameter(torch.rand(channels))
        self.final_pred_proj = nn.Linear(channels, channels)
        self.teacher: EMATeacher | None = None
        self.updates = 0

    @classmethod
    def build_model(cls, cfg: AV2vecConfig, task: Any = None) -> "AV2vecModel":
        return cls(cfg)

    @property
    def masking(self) -> StreamMasking:
        """What the data pipeline draws for each batch."""
        cfg = self.cfg
        return StreamMasking(
            audio=SpanMask(cfg.mask_prob_audio, cfg.mask_length_audio),
            video=SpanMask(cfg.mask_prob_image, cfg.mask_length_image),
            modality_dropout=cfg.modality_dropout,
            audio_dropout=cfg.audio_dropout,
            loss_on=str(cfg.loss_on),
            video_margin=cfg.mask_margin,
            shared=str(cfg.masking_type) == "feature",
        )

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
        if self.teacher is not None and self.training:
            cfg = self.cfg
            decay = annealed_decay(num_updates, cfg.ema_decay, cfg.ema_end_decay, cfg.ema_anneal_end_step)
            self.teacher.step(self.followed, decay, num_updates)

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
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Predict the teacher's targets on the frames that count.

        Args:
            source: ``audio [B, 104, T]`` and ``video [B, 1, T, H, W]`` as the student hears and sees them
                before masking; ``audio_clean`` is what the teacher hears where noise was added.
            padding_mask: bool ``[B, T]``.
            masks: see :class:`av_ssl.data.masking.StreamMasking`.
            frame_index: int64 ``[F]``, flat indices of real frames.

        Returns:
            ``prediction`` and ``target`` float32 ``[S, C]`` on the S frames of the loss, ``features_pen``
            (mean square of the student's features), ``target_var`` and ``pred_var`` (standard deviations over
            frames).
        """
        student, clean = self.student_and_clean_features(source, padding_mask, masks, frame_index)
        target = self.targets(clean, source, padding_mask, frame_index)
        joined = self.join(drop_stream(student, masks["dropped"]))
        features_pen = joined.flatten(0, 1)[frame_index].float().square().mean()
        fused = self.dropout_input(self.project(joined))
        if str(self.cfg.masking_type) == "feature":
            fused = replace_frames(fused, masks["audio"], self.mask_emb)
        x = self.encoder(fused, padding_mask)
        index = masks["loss_index"]
        prediction = self.final_pred_proj(x.flatten(0, 1)[index]).float()
        target = target.flatten(0, 1)[index]
        output = {
            "prediction": prediction,
            "target": target,
            "features_pen": features_pen,
            "target_var": spread(target),
            "pred_var": spread(prediction.detach()),
        }
        self.check_collapse(output)
        return output

    def student_and_clean_features(
        self, source: Source, padding_mask: Tensor, masks: dict[str, Any], frame_index: Tensor
    ) -> tuple[Features, Features]:
        """Front-end outputs for student (masked) and teacher (clean); the ResNet runs once if possible."""
        masking = str(self.cfg.masking_type)
        noisy = source.get("audio_clean") is not None
        if masking == "input":
            student = self.front_ends(self.masked_input(source, masks), padding_mask, frame_index)
            return student, self.clean_features(source, padding_mask, frame_index)
        # A dropped video needs no backward pass through the ResNet.
        student = self.front_ends(source, padding_mask, frame_index, video_grad=masks["dropped"] != "video")
        clean = student
        if noisy:
            with torch.no_grad():
                clean = student._replace(audio=self.feature_extractor_audio(source["audio_clean"]))
        if masking == "stream_feature":
            assert student.audio is not None
            assert student.video is not None
            student = Features(
                replace_frames(student.audio, masks["audio"], self.mask_emb),
                replace_frames(student.video, masks["video"], self.mask_emb_video),
            )
        return student, clean

    def masked_input(self, source: Source, masks: dict[str, Any]) -> Source:
        audio, video = source["audio"], source["video"]
        assert audio is not None
        assert video is not None
        masked = replace_frames(audio.transpose(1, 2), masks["audio"], self.mask_emb.to(audio.dtype))
        return {"audio": masked.transpose(1, 2), "video": take_frames(video, masks["video_source"])}

    @torch.no_grad()
    def clean_features(self, source: Source, padding_mask: Tensor, frame_index: Tensor) -> Features:
        """A second front-end pass, on unmasked input; in eval mode: batch norm must not count its frames."""
        resnet = self.feature_extractor_video.resnet
        training = resnet.training
        resnet.eval()
        try:
            return self.front_ends(clean_source(source), padding_mask, frame_index)
        finally:
            resnet.train(training)

    def check_collapse(self, output: dict[str, Tensor]) -> None:
        """Stop when targets or predictions are constant; every 100 updates, as a look waits for the GPU."""
        if not self.training or self.updates <= self.cfg.var_check_start or self.updates % 100:
            return
        for key, least in (("target_var", self.cfg.min_target_var), ("pred_var", self.cfg.min_pred_var)):
            value = output[key].item()
            if value < least:
                raise FloatingPointError(
                    f"the representation has collapsed at update {self.updates}: {key} is {value:.4f}, below "
                    f"{least} (model.min_{key}). Lower the learning rate, lengthen the warm-up, raise "
                    "ema_end_decay, or set teacher_modalities=a."
                )

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
        student = {key: value for key, value in state_dict.items() if not key.startswith(TEACHER_PREFIX)}
        teacher = {key[len(TEACHER_PREFIX) :]: state_dict[key] for key in state_dict if key not in student}
        result = super().load_state_dict(student, strict, model_cfg, args)
        self.teacher = None
        if teacher:
            self.teacher = self.make_teacher()
            self.teacher.load_state_dict(teacher, self.followed)
        else:
            logger.info("the checkpoint holds no teacher: it starts again as a copy of the student")
        return result

    def remove_pretraining_modules(self) -> None:
        """Drop what only pre-training needs."""
        del self.final_pred_proj
        self.teacher = None


def drop_stream(features: Features, dropped: str | None) -> Features:
    """Zero the stream that modality dropout took; parameters that had a gradient path keep a (zero) one."""
    if dropped is None:
        return features
    stream = getattr(features, dropped)
    return features._replace(**{dropped: stream * 0})


def clean_source(source: Source) -> Source:
    audio = source.get("audio_clean")
    return {"audio": source["audio"] if audio is None else audio, "video": source["video"]}


def spread(x: Tensor) -> Tensor:
    """Standard deviation over frames, averaged over channels: a scalar that falls to 0 in a collapse."""
    return (x.float().var(dim=0, correction=0) + 1e-6).sqrt().mean()
