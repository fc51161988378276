"""Speech models of transformers, built at random from their configuration: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
FAMILIES = {
    "wavlm": ("WavLMConfig", STABLE),
    "wavlm_base": ("WavLMConfig", {}),
    "hubert": ("HubertConfig", {}),
    "wav2vec2": ("Wav2Vec2Config", STABLE),
    "data2vec": ("Data2VecAudioConfig", {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}),
}
WHISPER = {
    "d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 60,
    "num_mel_bins": 80, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    "max_source_positions": 250,
}  # fmt: skip
WHISPER_SECONDS = 5


def tiny_teacher(family: str, seed: int = 0) -> tuple[Any, Any]:
    """A model and its feature extractor."""
    import transformers

    torch.manual_seed(seed)
    if family == "whisper":
        model = transformers.WhisperModel(transformers.WhisperConfig(**WHISPER))
        return model.eval(), transformers.WhisperFeatureExtractor(80, chunk_length=WHISPER_SECONDS)
    name, settings = FAMILIES[family]
    model = transformers.AutoModel.from_config(getattr(transformers, name)(**{**SMALL, **settings}))
    stable = settings.get("feat_extract_norm") == "layer"
    return model.eval(), transformers.Wav2Vec2FeatureExtractor(do_normalize=stable)


def save_teacher(folder: Path, family: str, seed: int = 0) -> Path:
    """A folder as `from_pretrained` reads it."""
    for part in tiny_teacher(family, seed):
        part.save_pretrained(folder)
    return folder
