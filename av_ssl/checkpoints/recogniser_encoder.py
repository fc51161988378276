"""The encoder in a recogniser's file; its configuration from the shapes of its tensors if it is not stored.

Recognisers store the configuration of their encoder as ``w2v_args``, so that they need no other file.  Where
it is null, as it can be in files that AV-HuBERT's program wrote, the checkpoint at ``w2v_path`` has it; that
may be gone.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from av_ssl.checkpoints.stored import StoredModel
from av_ssl.errors import DataError
from av_ssl.layout import IMAGE_MEAN, IMAGE_STD

logger = logging.getLogger(__name__)

ENCODER_PREFIX = {
    "av_hubert_seq2seq": "encoder.w2v_model.",
    "av_hubert_ctc": "w2v_encoder.w2v_model.",
    "hybrid_ctc_attention": "encoder.w2v_model.",
}
"""Before the encoder's names, by the recogniser's name."""
HEAD_CHANNELS = 64
PUBLISHED = {
    "layer_norm_first": True,
    "activation_fn": "gelu",
    "image_mean": IMAGE_MEAN,
    "image_std": IMAGE_STD,
}
"""What shapes do not say, as AV-HuBERT's published models have it; and the number of heads."""
NOT_IN_SHAPES = ("encoder_attention_heads", *PUBLISHED)

FEED_FORWARD = "encoder.layers.0.fc1.weight"
POSITIONS = "encoder.pos_conv.0.weight_v"
AUDIO = "feature_extractor_audio.proj.weight"
VIDEO = "feature_extractor_video.resnet.frontend3D.0.weight"
SLOPES_OF_PRELU = "feature_extractor_video.resnet.frontend3D.2.weight"
DIMENSIONS = {FEED_FORWARD: 2, POSITIONS: 3, AUDIO: 2, VIDEO: 5}
"""Of the tensors whose shapes are needed."""


def lacks_encoder_args(model_cfg: Mapping[str, Any]) -> bool:
    """Whether this is a recogniser's configuration without its encoder's."""
    return str(model_cfg.get("_name")) in ENCODER_PREFIX and model_cfg.get("w2v_args") is None


def encoder_args(stored: StoredModel, pretrained: Mapping[str, Any]) -> dict[str, Any]:
    """``w2v_args`` of a recogniser that lacks them.

    Keys that no shape tells are the file's own (``cfg.model``), else the pre-trained model's, else the task's
    (mean and standard deviation of images), else assumed, with a warning.

    Args:
        pretrained: configuration of the model at ``w2v_path``; empty if there is none. It counts only if its
            sizes are the tensors'.

    Raises:
        DataError: tensors are missing that are needed, or the number of heads cannot be assumed.
    """
    model = stored.model_cfg
    sizes = sizes_from_shapes(stored.tensors, ENCODER_PREFIX[model["_name"]], stored.path)
    if any(pretrained.get(key, size) != size for key, size in sizes.items()):
        pretrained = {}
    given: dict[str, Any] = {}
    for source in (stored.cfg.get("task") or {}, pretrained, model):
        given |= {key: source[key] for key in NOT_IN_SHAPES if source.get(key) is not None}
    assumed = {key: value for key, value in PUBLISHED.items() if key not in given}
    if "encoder_attention_heads" not in given:
        assumed["encoder_attention_heads"] = assumed_heads(sizes["encoder_embed_dim"], stored.path)
    if assumed:
        logger.warning(
            "%s: w2v_args is null and w2v_path (%s) gives no configuration, so the encoder is built from the "
            "shapes of its tensors. Assumed: %s. If it was trained with other values, its outputs are wrong: "
            "add the right ones to cfg.model in the file",
            stored.path, model.get("w2v_path") or "not set",
            ", ".join(f"{key}={value}" for key, value in sorted(assumed.items())),
        )  # fmt: skip
    return {"model": {"_name": "av_hubert", **sizes, **given, **assumed}, "task": {}}


def sizes_from_shapes(tensors: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Any]:
    """Keys of the fused encoder that a recogniser's tensors tell; ``prefix``: before the encoder's names."""
    shapes = {name.removeprefix(prefix): x.shape for name, x in tensors.items() if name.startswith(prefix)}
    absent = [prefix + name for name, count in DIMENSIONS.items() if len(shapes.get(name, ())) != count]
    if absent:
        raise DataError(
            f"{path}: w2v_args is null, and the sizes of the encoder cannot be read from its tensors; "
            f"missing or of another number of dimensions: {', '.join(absent)}"
        )
    ffn, channels = shapes[FEED_FORWARD]
    _, of_a_group, kernel = shapes[POSITIONS]
    return {
        "encoder_layers": layers_under("encoder.layers.", shapes),
        "encoder_embed_dim": channels,
        "encoder_ffn_embed_dim": ffn,
        "conv_pos": kernel,
        "conv_pos_groups": channels // max(of_a_group, 1),
        "audio_feat_dim": shapes[AUDIO][1],
        "resnet_width": shapes[VIDEO][0],
        "resnet_relu_type": "prelu" if SLOPES_OF_PRELU in shapes else "relu",
        "modality_fuse": "concat" if "post_extract_proj.weight" in shapes else "add",
        "sub_encoder_layers": layers_under("feature_extractor_audio.encoder.layers.", shapes),
    }


def layers_under(stem: str, names: Iterable[str]) -> int:
    """One more than the largest number behind ``stem``; 0 if there is none."""
    numbers = (name.removeprefix(stem).partition(".")[0] for name in names if name.startswith(stem))
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def assumed_heads(channels: int, path: Path) -> int:
    """Heads of 64 channels; one head where there are fewer channels."""
    if channels > HEAD_CHANNELS and channels % HEAD_CHANNELS:
        raise DataError(
            f"{path}: w2v_args is null, and the number of attention heads cannot be assumed: "
            f"{channels} channels are no multiple of {HEAD_CHANNELS}. Add encoder_attention_heads to "
            "cfg.model in the file"
        )
    return max(channels // HEAD_CHANNELS, 1)
