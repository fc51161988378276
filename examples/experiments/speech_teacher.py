"""Train a small speech model on the audio of a data folder, to be a teacher of DistillAV.

    av-ssl targets clusters DATA --out LABELS --clusters 50                # MFCC clusters, 100 a second
    python examples/experiments/speech_teacher.py DATA OUT --kind hubert --labels LABELS --updates 600
    av-ssl targets teacher DATA --out TEACHER --model OUT --layers top:3 --clusters 50

It learns as HuBERT does (Hsu et al., 2021, section II): it predicts the clusters of masked frames, without
transcripts. There are two kinds, as DistillAV has two teachers: HuBERT on waveforms, and Whisper's encoder on
log-mel frames, here with HuBERT's loss, as its own needs transcripts [ours]. Hugging Face's `from_pretrained`
reads OUT. `--updates 0` writes random weights, as an untrained baseline for `av-ssl analyse probe`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from from_av_ssl import SAMPLE_RATE, DataError, LabelFile, SpanMask, draw_spans, read_manifest, read_wave
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import trange

CHANNELS, LAYERS, HEADS = 128, 4, 4
WINDOW_SECONDS = 3  # input of the Whisper kind; the longest clip of the toy corpus lasts 2.6 s
HOP, RECEPTIVE_FIELD = 320, 400  # samples between two frames (50 a second), and under one frame
LABELS_A_FRAME = 2
# Spans of 0.1 s, a phone of the toy corpus, over about two fifths of a clip. HuBERT's (0.8, 10) would hide
# entire words, which the context does not predict: the grammar draws each word independently [ours].
MASKS = SpanMask(0.5, 5, equal_counts=False)
UNMASKED_WEIGHT = 0.5  # in the loss: from masked frames alone the front-end learns too slowly
CLIPS_A_BATCH = 16
LENGTH_JITTER = 0.1  # relative error of the lengths by which clips are batched: epochs differ
LEARNING_RATE, WARMUP_SHARE, CLIP_NORM = 2e-3, 0.1, 5.0
# Some hundred updates of so small a model are too few to overfit.
NO_DROPOUT = {"attention_dropout": 0.0, "activation_dropout": 0.0}


class Predictor(nn.Module):
    """A model of ``transformers``, which is what is kept, and a linear layer that predicts clusters.

    ``extractor`` makes the model's input of waveforms; ``padding`` is an option of it.
    """

    def __init__(self, model: Any, extractor: Any, padding: str, clusters: int) -> None:
        super().__init__()
        self.model, self.extractor, self.padding = model, extractor, padding
        self.head = nn.Linear(CHANNELS, clusters)

    def encode(self, inputs: Any, masked: Tensor) -> Tensor:
        """Output ``[B, at least S, C]`` for what the extractor made, frames hidden by ``masked [B, S]``."""
        raise NotImplementedError

    def forward(self, sounds: "Sequence[Sound]", rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Logits float32 ``[F, K]`` of all frames of the clips; bool ``[F]``, which of them were masked."""
        frames = [len(sound.clusters) for sound in sounds]
        scaled = [sound.wave.astype(np.float32) / 2**15 for sound in sounds]
        inputs = self.extractor(scaled, sampling_rate=SAMPLE_RATE, padding=self.padding, return_tensors="pt")
        masked = torch.from_numpy(draw_spans(frames, max(frames), MASKS, rng))
        real = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
        output = self.encode(inputs, masked)[:, : max(frames)]
        return self.head(output[real]), masked[real]


class HubertPredictor(Predictor):
    """HuBERT on waveforms, with three convolutions in place of its seven, to save time [ours]."""

    def __init__(self, clusters: int) -> None:
        config = transformers.HubertConfig(
            hidden_size=CHANNELS, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            intermediate_size=4 * CHANNELS, num_conv_pos_embeddings=32, num_conv_pos_embedding_groups=8,
            conv_dim=(CHANNELS // 2, CHANNELS, CHANNELS), conv_kernel=(40, 7, 4), conv_stride=(20, 4, 4),
            feat_extract_norm="layer", do_stable_layer_norm=True, layerdrop=0.0, hidden_dropout=0.0,
            **NO_DROPOUT,
        )  # fmt: skip
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
        super().__init__(transformers.HubertModel(config), extractor, "longest", clusters)

    def encode(self, inputs: Any, masked: Tensor) -> Tensor:
        found = self.model(inputs.input_values, inputs.attention_mask, mask_time_indices=masked)
        return found.last_hidden_state


class WhisperPredictor(Predictor):
    """Whisper's encoder on log-mel frames; a learned spectrum replaces masked ones.

    Weights start wider than Whisper's 0.02, which suits wider layers: here the convolutions' output would be
    tiny next to the positions that are added to it [ours]. The decoder of its format is never used.
    """

    def __init__(self, clusters: int) -> None:
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

    def encode(self, inputs: Any, masked: Tensor) -> Tensor:
        mel = inputs.input_features
        hidden = masked.repeat_interleave(HOP // self.extractor.hop_length, dim=1)
        hidden = nn.functional.pad(hidden, (0, mel.size(2) - hidden.size(1)))
        shown = torch.where(hidden[:, None], self.mask, mel)
        return self.model.get_encoder()(shown).last_hidden_state


KINDS = {"hubert": HubertPredictor, "whisper": WhisperPredictor}


class Sound(NamedTuple):
    """Of a clip: samples int16 ``[N]``, 16 kHz, and cluster ids int64 ``[S]``, 50 a second."""

    wave: NDArray[np.int16]
    clusters: Tensor


def read_sounds(manifest: Path, labels: Path) -> list[Sound]:
    """The clips that have audio, cut where labels end and after ``WINDOW_SECONDS``.

    Raises:
        DataError: a file cannot be read, manifest and labels do not fit each other, or no clip is left.
    """
    clips = read_manifest(manifest)
    lines = LabelFile(labels, clips)
    sounds = []
    for number, clip in enumerate(clips):
        if clip.audio is None:
            continue
        wave = read_wave(clip.audio)[: WINDOW_SECONDS * SAMPLE_RATE]
        frames = max(0, (len(wave) - RECEPTIVE_FIELD) // HOP + 1)
        try:
            ids = [int(text) for text in lines.line(number).split()]
        except ValueError:
            raise DataError(
                f"{labels}, line {number + 1}: no list of cluster numbers; write it by `av-ssl targets`"
            ) from None
        if clusters := ids[::LABELS_A_FRAME][:frames]:
            samples = (len(clusters) - 1) * HOP + RECEPTIVE_FIELD
            sounds.append(Sound(wave[:samples], torch.tensor(clusters)))
    if not sounds:
        raise DataError(f"{manifest}: no clip has audio and labels in {labels}")
    return sounds


def batches(sounds: Sequence[Sound], rng: np.random.Generator) -> Iterator[list[Sound]]:
    """Clips of about the same length, for ever; each once an epoch."""
    lengths = np.array([len(sound.wave) for sound in sounds])
    starts = np.arange(0, len(sounds), CLIPS_A_BATCH)
    while True:
        order = np.argsort(lengths * rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(lengths)))
        for start in rng.permutation(starts):
            yield [sounds[number] for number in order[start : start + CLIPS_A_BATCH]]


def train(predictor: Predictor, sounds: Sequence[Sound], updates: int, rng: np.random.Generator) -> None:
    """AdamW with a learning rate that rises and falls linearly."""
    optimizer = torch.optim.AdamW(predictor.parameters(), LEARNING_RATE, betas=(0.9, 0.98))
    rise = max(1, round(WARMUP_SHARE * updates))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / rise, (updates - done) / max(1, updates - rise))
    )
    predictor.train()
    for _, batch in zip(trange(updates, unit="update", mininterval=1), batches(sounds, rng), strict=False):
        clusters = torch.cat([sound.clusters for sound in batch])
        logits, masked = predictor(batch, rng)
        weights = torch.where(masked, 1.0, UNMASKED_WEIGHT)
        loss = (cross_entropy(logits, clusters, reduction="none") * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(predictor.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with train.tsv")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the model")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="folder with train.km")
    parser.add_argument("--updates", type=int, default=600, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of weights, batches, masks (%(default)s)")
    args = parser.parse_args(arguments)
    torch.manual_seed(args.seed)
    try:
        sounds = read_sounds(args.data / "train.tsv", args.labels / "train.km")
    except DataError as error:
        sys.exit(f"speech_teacher.py: {error}")
    predictor = KINDS[args.kind](1 + max(int(sound.clusters.max()) for sound in sounds))
    train(predictor, sounds, args.updates, np.random.default_rng(args.seed))
    predictor.model.save_pretrained(args.out)
    predictor.extractor.save_pretrained(args.out)


if __name__ == "__main__":
    main()
