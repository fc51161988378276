"""Small speech models that tell the clusters of frames, of masked ones too: HuBERT's loss, two front-ends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from av_ssl.data.spans import SpanMask, draw_spans
from av_ssl.layout import SAMPLE_RATE
from av_ssl.targets.speech_teacher import import_transformers

CHANNELS, LAYERS, HEADS = 128, 4, 4
WINDOW_SECONDS = 3
"""That the Whisper kind hears; the longest clip of the toy corpus lasts 2.6 s."""
HOP, RECEPTIVE_FIELD = 320, 400
"""Samples between two frames (50 a second), and under one frame."""
MASKS = SpanMask(0.5, 5, equal_counts=False)
"""Spans of 0.1 s, a phone of this corpus, that cover about two fifths of a clip.  HuBERT's (0.8, 10) run into
each other and hide whole words, which nothing tells here: the grammar draws each word without regard to the
others [ours]."""
NO_DROPOUT = {"attention_dropout": 0.0, "activation_dropout": 0.0}
"""Some hundred updates of so small a model are too few to learn clips by heart."""


class MaskedPredictor(nn.Module):
    """A model of ``transformers``, which is what is kept, and a linear layer that tells clusters.

    Args:
        model: its last hidden state has ``CHANNELS``.
        extractor: makes of waveforms what the model hears.
        padding: an option of the extractor.
        clusters: K.
    """

    def __init__(self, model: Any, extractor: Any, padding: str, clusters: int) -> None:
        super().__init__()
        self.model, self.extractor, self.padding = model, extractor, padding
        self.head = nn.Linear(CHANNELS, clusters)

    def hear(self, inputs: Any, masked: Tensor) -> Tensor:
        """Output ``[B, at least S, C]`` for what the extractor made, frames hidden by ``masked [B, S]``."""
        raise NotImplementedError

    def forward(
        self, waves: Sequence[NDArray[np.int16]], frames: Sequence[int], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Predict the clusters of all frames F of the clips, of which some are masked.

        Args:
            waves: samples ``[N]`` of each clip, 16 kHz.
            frames: of each clip, 50 a second, those that have a label.
            rng: draws the masks.

        Returns:
            Logits float32 ``[F, K]``; bool ``[F]``, which frames are masked.
        """
        scaled = [wave.astype(np.float32) / 2**15 for wave in waves]
        inputs = self.extractor(scaled, sampling_rate=SAMPLE_RATE, padding=self.padding, return_tensors="pt")
        masked = torch.from_numpy(draw_spans(frames, max(frames), MASKS, rng))
        real = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
        output = self.hear(inputs, masked)[:, : max(frames)]
        return self.head(output[real]), masked[real]


class HubertPredictor(MaskedPredictor):
    """HuBERT on waveforms; a learned vector stands for masked frames.

    Three convolutions make HuBERT's frames instead of its seven, to save time [ours].
    """

    def __init__(self, clusters: int) -> None:
        transformers = import_transformers()
        config = transformers.HubertConfig(
            hidden_size=CHANNELS, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            intermediate_size=4 * CHANNELS, num_conv_pos_embeddings=32, num_conv_pos_embedding_groups=8,
            conv_dim=(CHANNELS // 2, CHANNELS, CHANNELS), conv_kernel=(40, 7, 4), conv_stride=(20, 4, 4),
            feat_extract_norm="layer", do_stable_layer_norm=True, layerdrop=0.0,
            hidden_dropout=0.0, **NO_DROPOUT,
        )  # fmt: skip
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
        super().__init__(transformers.HubertModel(config), extractor, "longest", clusters)

    def hear(self, inputs: Any, masked: Tensor) -> Tensor:
        found = self.model(inputs.input_values, inputs.attention_mask, mask_time_indices=masked)
        output: Tensor = found.last_hidden_state
        return output


class WhisperPredictor(MaskedPredictor):
    """Whisper's encoder on log-mel frames; for masked ones stands a learned spectrum, at first of no sound.

    Weights start wider than Whisper's 0.02, which is for wider layers: here the convolutions would give next
    to nothing beside the positions that are added to them [ours].  The decoder of its format is never used.
    """

    def __init__(self, clusters: int) -> None:
        transformers = import_transformers()
        extractor = transformers.WhisperFeatureExtractor(chunk_length=WINDOW_SECONDS)
        config = transformers.WhisperConfig(
            d_model=CHANNELS, encoder_layers=LAYERS, encoder_attention_heads=HEADS,
            encoder_ffn_dim=4 * CHANNELS, init_std=CHANNELS**-0.5, dropout=0.0, **NO_DROPOUT,
            num_mel_bins=extractor.feature_size, max_source_positions=WINDOW_SECONDS * SAMPLE_RATE // HOP,
            decoder_layers=1, decoder_attention_heads=HEADS, decoder_ffn_dim=CHANNELS,
            vocab_size=3, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        super().__init__(transformers.WhisperModel(config), extractor, "max_length", clusters)
        self.mask = nn.Parameter(torch.randn(extractor.feature_size, 1))

    def hear(self, inputs: Any, masked: Tensor) -> Tensor:
        mel = inputs.input_features
        hidden = masked.repeat_interleave(HOP // self.extractor.hop_length, dim=1)
        hidden = nn.functional.pad(hidden, (0, mel.size(2) - hidden.size(1)))
        heard = torch.where(hidden[:, None], self.mask, mel)
        output: Tensor = self.model.get_encoder()(heard).last_hidden_state
        return output


KINDS = {"hubert": HubertPredictor, "whisper": WhisperPredictor}
