"""Train a small speech model on the sound of a data folder, to be a teacher of DistillAV.

    av-ssl targets DATA --out LABELS --clusters 50                             # MFCC clusters, 100 a second
    python examples/toy/speech_teacher.py DATA OUT --kind hubert --labels LABELS --updates 600
    av-ssl targets teacher DATA --out TEACHER --model OUT --layers top:3 --clusters 50

A teacher with random weights teaches nothing, and published ones would have to be downloaded. This one learns
as HuBERT does (Hsu et al., 2021, section II): it predicts the clusters of masked frames, and reads no
transcripts. There are two kinds, as DistillAV has two teachers: HuBERT on waveforms, and Whisper's encoder on
log-mel frames, which has HuBERT's loss here, as its own takes transcripts [ours]. OUT is a folder as Hugging
Face's `from_pretrained` reads it.

Whether it knows something is told by a linear probe, beside one of random weights, `--updates 0`:

    av-ssl features OUT DATA --out FEATURES/teacher
    av-ssl features UNTRAINED DATA --out FEATURES/untrained
    av-ssl probe FEATURES/untrained FEATURES/teacher --alignments CORPUS/alignments
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from masked_prediction import HOP, KINDS, RECEPTIVE_FIELD, WINDOW_SECONDS, MaskedPredictor
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import trange

from av_ssl.data.labels import LabelFile
from av_ssl.data.reading import read_wave
from av_ssl.errors import DataError
from av_ssl.layout import SAMPLE_RATE, read_manifest

LABELS_A_FRAME = 2
UNMASKED_WEIGHT = 0.5
"""Of the loss on frames that are not masked: masked ones alone teach the front-end too slowly."""
CLIPS_A_BATCH = 16
LENGTH_JITTER = 0.1
"""By which lengths are off when batches are made, so that a clip has other company in every epoch."""
LEARNING_RATE, WARMUP_SHARE, CLIP_NORM = 2e-3, 0.1, 5.0
HELD_OUT_MASKS = 10
"""Draws of masks for the clips that accuracy is measured on."""


@dataclass(frozen=True)
class Sound:
    """Of a clip: samples int16 ``[N]``, 16 kHz, and cluster ids int64 ``[S]``, 50 a second."""

    wave: NDArray[np.int16]
    clusters: Tensor


def read_sounds(data: Path, labels: Path, split: str) -> list[Sound]:
    """The clips of a split that have sound, cut where labels end and after ``WINDOW_SECONDS``.

    Raises:
        DataError: a file cannot be read, manifest and labels do not fit each other, or no clip is left.
    """
    clips = read_manifest(data / f"{split}.tsv")
    lines = LabelFile(labels / f"{split}.km", clips)
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
                f"{lines.path}, line {number + 1}: is no list of cluster numbers; make it by `av-ssl targets`"
            ) from None
        if clusters := ids[::LABELS_A_FRAME][:frames]:
            heard = (len(clusters) - 1) * HOP + RECEPTIVE_FIELD
            sounds.append(Sound(wave[:heard], torch.tensor(clusters)))
    if not sounds:
        raise DataError(f"{data / split}.tsv: no clip has sound and labels in {lines.path}")
    return sounds


def batches(sounds: Sequence[Sound], rng: np.random.Generator) -> Iterator[list[Sound]]:
    """Clips of about the same length, for ever; each once an epoch."""
    lengths = np.array([len(sound.wave) for sound in sounds])
    starts = np.arange(0, len(sounds), CLIPS_A_BATCH)
    while True:
        order = np.argsort(lengths * rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(lengths)))
        for start in rng.permutation(starts):
            yield [sounds[number] for number in order[start : start + CLIPS_A_BATCH]]


def predict(
    predictor: MaskedPredictor, sounds: Sequence[Sound], rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits ``[F, K]`` and clusters ``[F]`` of all frames, and which of them were masked, bool ``[F]``."""
    clusters = [sound.clusters for sound in sounds]
    logits, masked = predictor([sound.wave for sound in sounds], [len(ids) for ids in clusters], rng)
    return logits, torch.cat(clusters), masked


def train(
    predictor: MaskedPredictor, sounds: Sequence[Sound], updates: int, rng: np.random.Generator
) -> None:
    """AdamW with a learning rate that rises and falls in straight lines."""
    optimizer = torch.optim.AdamW(predictor.parameters(), LEARNING_RATE, betas=(0.9, 0.98))
    rise = max(1, round(WARMUP_SHARE * updates))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / rise, (updates - done) / max(1, updates - rise))
    )
    drawn = batches(sounds, rng)
    predictor.train()
    with trange(updates, unit="update", mininterval=1) as progress:
        for _ in progress:
            logits, clusters, masked = predict(predictor, next(drawn), rng)
            weights = torch.where(masked, 1.0, UNMASKED_WEIGHT)
            loss = (cross_entropy(logits, clusters, reduction="none") * weights).sum() / weights.sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(predictor.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            progress.set_postfix(loss=f"{loss.item():.2f}", refresh=False)


class Accuracy(NamedTuple):
    """Shares of frames whose cluster is found."""

    masked: float
    heard: float
    """Of those that are not masked."""
    most_frequent: float
    """Of the masked ones, were they all put into their most frequent cluster."""


@torch.no_grad()
def accuracy(predictor: MaskedPredictor, sounds: Sequence[Sound], rng: np.random.Generator) -> Accuracy:
    """Over several draws of masks."""
    predictor.eval()
    drawn = [predict(predictor, sounds, rng) for _ in range(HELD_OUT_MASKS)]
    logits, clusters, masked = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    hits = (logits.argmax(dim=1) == clusters).float()
    counts = clusters[masked].bincount()
    return Accuracy(
        hits[masked].mean().item(), hits[~masked].mean().item(), (counts.max() / counts.sum()).item()
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with train.tsv and valid.tsv")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the model")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="folder with train.km and valid.km")
    parser.add_argument("--updates", type=int, default=600, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of weights, batches, masks (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    try:
        training, held_out = (read_sounds(args.data, args.labels, split) for split in ("train", "valid"))
        clusters = 1 + max(int(sound.clusters.max()) for sound in training + held_out)
        predictor = KINDS[args.kind](clusters)
    except DataError as error:
        sys.exit(f"speech_teacher.py: {error}")
    train(predictor, training, args.updates, rng)
    found = accuracy(predictor, held_out, rng)
    predictor.model.save_pretrained(args.out)
    predictor.extractor.save_pretrained(args.out)
    print(
        f"{args.out}: {found.masked:.1%} of the masked and {found.heard:.1%} of the other frames of "
        f"{len(held_out)} held-out clips are put into the right one of {clusters} clusters; the most "
        f"frequent one has {found.most_frequent:.1%} of the masked"
    )


if __name__ == "__main__":
    main()
