"""Keys of DistillAV (Zhang et al., Pattern Recognition 2025, arXiv 2502.05766), with origins of defaults."""

from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum

from av_ssl.models.masked_encoder import MASKINGS, MaskedEncoderConfig
from av_ssl.models.teacher_heads import TeachersConfig


@dataclass
class DistillAVConfig(MaskedEncoderConfig, TeachersConfig):
    """DistillAV Base, under AV-HuBERT's keys; ``[public code]``: as the authors published it."""

    layer_norm_first: bool = field(
        default=True, metadata={"help": "layer norm before each block [public code]"}
    )
    encoder_layerdrop: float = field(
        default=0.05, metadata={"help": "probability of skipping a layer [public code]"}
    )
    dropout_input: float = field(
        default=0.1, metadata={"help": "dropout of the fused features [public code]"}
    )
    feature_grad_mult: float = field(
        default=0.1, metadata={"help": "scale of the gradient into the front-ends [public code]"}
    )
    masking_type: MASKINGS = field(
        default="stream_feature",
        metadata={"help": "what is masked: each stream's features before fusion [public code]"},
    )
    mask_prob_audio: float = field(
        default=0.8, metadata={"help": "masked spans x length / frames [public code]"}
    )
    mask_prob_image: float = field(
        default=0.3, metadata={"help": "masked spans x length / frames [public code]"}
    )
    mask_length_image: int = field(
        default=5, metadata={"help": "frames of a masked video span [public code]"}
    )
    mask_equal_counts: bool = field(
        default=True,
        metadata={
            "help": "un-mask random frames until all clips of a batch have as many masked ones [public "
            "code]; false leaves long clips more [ours]"
        },
    )
    modality_dropout: float = field(
        default=0.5, metadata={"help": "probability that the student loses one stream [public code]"}
    )
    audio_dropout: float = field(default=0.5, metadata={"help": "that it is the audio [public code]"})
    loss_on: ChoiceEnum(["all", "union", "surviving"]) = field(  # type: ignore[valid-type]
        default="all",
        metadata={
            "help": "frames in the loss: all [public code], masked in either stream, or in the streams kept "
            "[ours]"
        },
    )
    final_dim: int = field(
        default=256, metadata={"help": "channels in which output and clusters are compared [public code]"}
    )
    logit_temp: float = field(default=0.1, metadata={"help": "cosines are divided by it [public code]"})
    balance: ChoiceEnum(["aligned_mtl", "none"]) = field(  # type: ignore[valid-type]
        default="aligned_mtl",
        metadata={
            "help": "how the gradients of the tasks meet at the encoder's output: by Aligned-MTL [public "
            "code], or as they are (none), with the weights of the criterion"
        },
    )
    gram: ChoiceEnum(["batch_sum", "full"]) = field(  # type: ignore[valid-type]
        default="batch_sum",
        metadata={
            "help": "Aligned-MTL compares gradients that are summed over the clips of a batch [public code], "
            "or all of them (full) [ours]"
        },
    )
