"""Errors of word times, against alignments as GRID has them.

    python benchmarks/word_times.py MODEL DATA SUBSET ALIGNMENTS [--modalities audio]

``ALIGNMENTS/ID.align`` is as GRID has it (``av_ssl.analysis.alignments``). Prints the mean absolute error of
starts and ends in ms, for the known text (forced alignment) and for the recognised text, of which the words
count that stand at the same place in the transcript.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from av_ssl.analysis.alignments import read_alignment
from av_ssl.data.clip_reader import frames_of, samples_of
from av_ssl.manifest import Clip, read_manifest
from av_ssl.media.recording import Part
from av_ssl.transcription.recogniser import RecogniserSpec
from av_ssl.transcription.transcript import Word
from av_ssl.transcription.word_times import align, loudness


def true_words(folder: Path, clip: str) -> list[Word]:
    units = read_alignment(folder, clip).units
    return [Word(unit.label, unit.start, unit.end, 1.0) for unit in units]


def part_of(clip: Clip, streams: Sequence[str]) -> Part:
    frames = frames_of(clip) if "video" in streams else None
    return Part(0.0, frames, samples_of(clip) if "audio" in streams else None)


def errors(found: Sequence[Word], expected: Sequence[Word]) -> Iterator[tuple[float, float]]:
    """Of start and end, in ms, for words at the same place."""
    if len(found) != len(expected):
        return
    for one, other in zip(found, expected, strict=True):
        if one.word == other.word:
            yield 1000 * (one.start - other.start), 1000 * (one.end - other.end)


def report(name: str, pairs: Sequence[tuple[float, float]], words: int) -> None:
    values = np.array(pairs).reshape(-1, 2)
    mean, bias = np.abs(values).mean(0), values.mean(0)
    print(
        f"{name}: {len(values)} of {words} words; mean absolute error of starts {mean[0]:.1f} ms, of ends "
        f"{mean[1]:.1f} ms, both {mean.mean():.1f} ms; mean error {bias[0]:+.1f} and {bias[1]:+.1f} ms; "
        f"{100 * (np.abs(values) <= 80).mean():.1f} % within 80 ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="folder with {subset}.tsv")
    parser.add_argument("subset")
    parser.add_argument("alignments", type=Path)
    parser.add_argument("--modalities", choices=("audio", "video", "av"))
    parser.add_argument("--beam", type=int, default=5)
    args = parser.parse_args()
    recogniser = RecogniserSpec(args.model, args.modalities).open()
    streams = recogniser.streams
    clips = read_manifest(args.data / f"{args.subset}.tsv")
    expected = [true_words(args.alignments, clip.id) for clip in clips]
    parts = [part_of(clip, streams) for clip in clips]
    outputs = recogniser.ctc_log_probs(parts, streams)
    known = []
    for part, output, words in zip(parts, outputs, expected, strict=True):
        (spelled,) = recogniser.spell_text(" ".join(word.word for word in words))
        levels = None if part.samples is None else loudness(part.samples)
        known += errors(align(output, spelled, levels), words)
    recognised = []
    for found, words in zip(recogniser.recognise(parts, streams, word_times=True), expected, strict=True):
        recognised += errors(found.words, words)
    count = sum(map(len, expected))
    report("known text", known, count)
    report("recognised text", recognised, count)


if __name__ == "__main__":
    main()
