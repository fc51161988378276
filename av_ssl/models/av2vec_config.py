"""Keys of AV2vec (Zhang et al., ICASSP 2023, arXiv 2212.02782), each with the origin of its default."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum

from av_ssl.models.cluster_head import ClusterHeadConfig
from av_ssl.models.masked_encoder import MASKINGS, REPLACEMENTS, MaskedEncoderConfig


@dataclass
class AV2vecConfig(MaskedEncoderConfig, ClusterHeadConfig):
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
    masking_type: MASKINGS = field(
        default="stream_feature",
        metadata={
            "help": "what is masked: each stream's features before fusion, the input itself, or the fused "
            "features [reconstructed]"
        },
    )
    selection_type: REPLACEMENTS = field(
        default="same_seq",
        metadata={"help": "what masked video frames show under masking_type=input (AV-HuBERT's recipes)"},
    )
    mask_prob_audio: float = field(
        default=0.8, metadata={"help": "masked spans x length / frames [reconstructed]"}
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
    final_dim: int = field(
        default=256,
        metadata={"help": "channels in which output and classes are compared (AV-HuBERT's recipes)"},
    )
    use_regression: bool = field(default=True, metadata={"help": "regress the teacher's targets"})
    use_mlm: bool = field(
        default=False,
        metadata={"help": "predict the cluster ids of task.labels, too (AV2vec-MLM)"},
    )
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
        default=True, metadata={"help": "normalise each layer over time [data2vec]"}
    )
    layer_norm_targets: bool = field(
        default=False, metadata={"help": "layer norm of the averaged target [data2vec]"}
    )
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
        metadata={
            "help": "stop if the targets' standard deviation over frames, in the mean of 100 updates, falls "
            "below [data2vec]"
        },
    )
    min_pred_var: float = field(default=0.01, metadata={"help": "the same for predictions [data2vec]"})
    var_check_start: int = field(
        default=5000, metadata={"help": "updates before these two are looked at [data2vec]"}
    )
    init_from: Optional[str] = field(
        default=None,
        metadata={
            "help": "start from the encoder of this checkpoint (av_hubert, av2vec), heads at random [ours]"
        },
    )
