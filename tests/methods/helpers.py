"""Tiny models and batches for tests."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from av_ssl.methods.av2vec import AV2vecConfig, AV2vecModel
from av_ssl.recognition.encoder import read_pretrained

TINY = {
    "encoder_layers": 3,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "conv_pos": 8,
    "conv_pos_groups": 2,
    "resnet_width": 4,
    "average_top_k_layers": 2,
    "image_mean": 0.421,
    "image_std": 0.165,
    "ema_anneal_end_step": 10,
}
CALM = {"dropout": 0.0, "attention_dropout": 0.0, "dropout_input": 0.0, "encoder_layerdrop": 0.0}
DECODER = {
    "decoder_layers": 1, "decoder_embed_dim": 16, "decoder_ffn_embed_dim": 16, "decoder_attention_heads": 2,
    "share_decoder_input_output_embed": True, "decoder_normalize_before": True,
}  # fmt: skip


def tiny_av2vec(classes: Sequence[int] = (), **overrides: Any) -> AV2vecModel:
    torch.manual_seed(0)
    cfg = OmegaConf.merge(OmegaConf.structured(AV2vecConfig()), {**TINY, **overrides})
    return AV2vecModel(cfg, classes)


def source(lengths: list[int], frames: int, size: int = 24, seed: int = 0) -> dict[str, Any]:
    """A batch's ``source``, ``padding_mask`` and ``frame_index``."""
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(len(lengths), 104, frames, generator=generator)
    video = torch.randint(
        0, 256, (len(lengths), 1, frames, size, size), dtype=torch.uint8, generator=generator
    )
    padding = torch.arange(frames) >= torch.tensor(lengths)[:, None]
    audio.transpose(1, 2)[padding] = 0
    return {
        "source": {"audio": audio, "video": video},
        "padding_mask": padding,
        "frame_index": (~padding).flatten().nonzero().squeeze(1),
    }


def net_input(
    model: AV2vecModel, lengths: list[int], frames: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """What the data pipeline gives an AV2vec model."""
    frames = frames or max(lengths)
    masks = model.masking.draw(lengths, frames, np.random.default_rng(seed))
    return {**source(lengths, frames, seed=seed), "masks": masks}


def config(structure: Any, path: Any, **overrides: Any) -> Any:
    """Configuration of a recogniser on the pre-trained checkpoint `path`."""
    return OmegaConf.merge(
        OmegaConf.structured(structure()), {"w2v_path": str(path), "normalize": True, **overrides}
    )


def build(model: Any, cfg: Any, dictionary: Any, *task: str) -> Any:
    """A recogniser for training as `RecognitionTask` builds it; `task`: its audio input and modalities."""
    pretrained = read_pretrained(cfg, *task)
    return model.build_model(cfg, SimpleNamespace(target_dictionary=dictionary, pretrained=pretrained))


def rebuild(model: Any, cfg: Any, dictionary: Any) -> Any:
    """A recogniser as it is built for its own checkpoint."""
    return model.build_model(cfg, SimpleNamespace(target_dictionary=dictionary, pretrained=None))
