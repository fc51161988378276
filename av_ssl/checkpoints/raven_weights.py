"""RAVEn's and BRAVEn's published weights: bare tensors, from whose shapes the configuration is inferred.

The authors' files hold one encoder of one stream, or a fine-tuned model that contains it.  Tensor names are
those of ``RavenEncoder`` after some prefix.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from av_ssl.checkpoints.stored import StoredModel, listed
from av_ssl.errors import DataError
from av_ssl.layout import IMAGE_MEAN, IMAGE_STD, SAMPLES_PER_FRAME

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model")
"""Keys under which training programs put the tensors."""
PROJECTIONS = ("embed.0.weight", "input_layer.0.weight")
"""The projection after the front-end, which identifies an encoder: its name now, and an older one."""
OLDER_NAMES = {"input_layer.": "embed.", "norm.": "after_norm."}
UNUSED = (".gamma_ff_macaron", ".gamma_conv", ".pe")
"""Tensors of parts that these encoders do not have, and the table of positions, which is computed here."""
AFTER_NORM = "after_norm."
PIXEL_VALUES = {"image_mean": IMAGE_MEAN, "image_std": IMAGE_STD}
CROP_SIZE = 88
FRAMES_TRIED = 3
LEAST_DIFFERENCE = 1e-3
"""Of the features of two clips of noise, which are normalised."""
LAYER_SCALE = 0.1
"""Where the encoder has layer scales, their initial value: a key that its configuration needs."""


def published_tensors(state: Any) -> dict[str, Tensor] | None:
    """The tensors of a file with such an encoder; None if the file holds something else."""
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping):
        return None
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors if encoder_prefixes(tensors) else None


def encoder_prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """The prefix of each encoder's names; a language model's, which has no front-end, does not count."""
    prefixes = {
        name.removesuffix(projection)
        for name in tensors
        for projection in PROJECTIONS
        if name.endswith(projection)
    }
    return sorted(
        prefix
        for prefix in prefixes
        if (not prefix or prefix.endswith("."))
        and any(name.startswith(f"{prefix}frontend.") for name in tensors)
    )


def stored_encoder(tensors: Mapping[str, Tensor], path: Path) -> StoredModel:
    """The encoder among :func:`published_tensors` under our names, its configuration inferred from shapes.

    Missing and left-over tensors are found when the model is built.
    """
    prefixes = encoder_prefixes(tensors)
    if len(prefixes) != 1:
        raise DataError(
            f"{path}: holds {len(prefixes)} encoders, under {listed(prefixes)}; needed is a file with one"
        )
    own, aside = split(tensors, prefixes[0])
    if aside:
        logger.info("%s: took the encoder; not used: %s", path, listed(aside))
    refuse_trained_activations(own, path)
    model = inferred_config(own, path)
    own = complete(own, model["encoder_embed_dim"], path)
    check_statistics(own, path)
    task = {
        "_name": "av_pretraining", "modalities": model["modality"], "audio_input": "waveform",
        "image_crop_size": CROP_SIZE, **PIXEL_VALUES,
    }  # fmt: skip
    return StoredModel(path, {"model": model, "task": task}, own, text=None, label_sets=[], bare=True)


def split(tensors: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's tensors under their names now, and the names of all others."""
    own: dict[str, Tensor] = {}
    aside = []
    for name, tensor in tensors.items():
        inner = name.removeprefix(prefix)
        if not name.startswith(prefix) or inner.startswith(("ctc.", "decoder.")):
            aside.append(name)
            continue
        for older, newer in OLDER_NAMES.items():
            if inner.startswith(older):
                inner = newer + inner.removeprefix(older)
        if not f".{inner}".endswith(UNUSED):
            own[inner] = tensor
    return own, aside


def refuse_trained_activations(tensors: Mapping[str, Tensor], path: Path) -> None:
    slopes = [
        name
        for name in tensors
        if name.startswith("frontend.") and (".relu" in name or name.startswith("frontend.frontend3D.2."))
    ]
    if slopes:
        raise DataError(
            f"{path}: its front-end has activations with weights ({listed(slopes)}), such as PReLU; those of "
            "RAVEn's encoders are Swish"
        )


def inferred_config(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Keys of ``SingleRavenEncoderConfig``, inferred from the tensors' shapes."""
    try:
        channels, features = tensors["embed.0.weight"].shape
        heads = len(tensors["encoders.0.self_attn.pos_bias_u"])
        ffn_channels = len(tensors["encoders.0.feed_forward.w_1.weight"])
        blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("encoders.")}
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: is no encoder of RAVEn's: it lacks {error}") from error
    return {
        "_name": "raven_encoder",
        "modality": "video" if "frontend.frontend3D.0.weight" in tensors else "audio",
        "encoder_layers": len(blocks),
        "encoder_embed_dim": channels,
        "encoder_ffn_embed_dim": ffn_channels,
        "encoder_attention_heads": heads,
        "layer_scale": LAYER_SCALE if "encoders.0.gamma_ff" in tensors else 0.0,
        "ffn_norm": "batch" if "encoders.0.norm_ff.running_mean" in tensors else "layer",
        "resnet_width": features // 8,
        **PIXEL_VALUES,
    }


def complete(tensors: dict[str, Tensor], channels: int, path: Path) -> dict[str, Tensor]:
    """The tensors; where they lack ``after_norm``, with one that scales nothing."""
    if any(name.startswith(AFTER_NORM) for name in tensors):
        return tensors
    logger.warning("%s: has no %s*: features are normalised without scale and shift", path, AFTER_NORM)
    norm = {f"{AFTER_NORM}weight": torch.ones(channels), f"{AFTER_NORM}bias": torch.zeros(channels)}
    return {**tensors, **norm}


def check_features(encoder: Any, path: Path) -> None:
    """Raise DataError where two clips of noise have the same features."""
    draw = torch.Generator().manual_seed(0)
    if encoder.modality == "audio":
        clips = torch.randint(-3000, 3000, (2, FRAMES_TRIED * SAMPLES_PER_FRAME), generator=draw).short()
    else:
        shape = (2, 1, FRAMES_TRIED, CROP_SIZE, CROP_SIZE)
        clips = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
    training = encoder.training
    with torch.no_grad():
        features, _ = encoder.eval().extract_features({encoder.modality: clips})
    encoder.train(training)
    if not (features[0] - features[1]).abs().max() > LEAST_DIFFERENCE:
        raise DataError(
            f"{path}: features of this encoder do not depend on its input: the weights are damaged, or of "
            "another layout"
        )


def check_statistics(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise DataError when the weights are damaged or batch norms were never trained."""
    variances = {name: tensor for name, tensor in tensors.items() if name.endswith(".running_var")}
    damaged = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if damaged:
        raise DataError(f"{path}: holds values that are not finite: {listed(damaged)}; the file is damaged")
    broken = [name for name, variance in variances.items() if not (variance > 0).all()]
    if broken:
        raise DataError(f"{path}: its batch norms have variances that are not above zero: {listed(broken)}")
    if all((variance == 1).all() for variance in variances.values()):
        raise DataError(
            f"{path}: its batch norms hold their initial statistics: it was never trained, or stored without "
            "its buffers"
        )
