"""`av-ssl trials MANIFEST OUT`: a speaker verification list over the clips of a manifest, in VoxCeleb's
format.

For clips that no published list covers, such as VoxCeleb2's test clips, which have video.
"""

from __future__ import annotations

import argparse
import random
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from av_ssl.classification.verification import key_parts, utterance_key
from av_ssl.cli.arguments import at_least_two
from av_ssl.data.labels import LabelFile
from av_ssl.errors import DataError
from av_ssl.io import write_atomically
from av_ssl.layout import read_manifest

Pair = tuple[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "manifest", metavar="MANIFEST", type=Path, help="e.g. DATA/test.tsv, with DATA/test.spk"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the list: 'LABEL UTTERANCE UTTERANCE' a line")
    parser.add_argument(
        "--number",
        type=at_least_two,
        default=10000,
        help="trials, half of them of one speaker, or as many as there are (default: 10000)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random choice (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Write the list and say what is in it."""
    clips = read_manifest(args.manifest)
    labels = LabelFile(args.manifest.with_suffix(".spk"), clips)
    parts = key_parts(args.manifest, clips)
    by_speaker: dict[str, list[str]] = {}
    for number, clip in enumerate(clips):
        by_speaker.setdefault(labels.line(number), []).append(utterance_key(clip.id, parts))
    rng = random.Random(args.seed)
    half = args.number // 2
    same = draw_within(list(by_speaker.values()), half, rng)
    different = draw_across(by_speaker, min(half, len(same)) or half, rng)
    if not same or not different:
        raise DataError(
            f"{args.manifest}: {len(by_speaker)} speakers in {len(clips)} clips give {len(same)} pairs of "
            f"one and {len(different)} of two; a list needs both"
        )
    lines = [f"1 {a} {b}\n" for a, b in same] + [f"0 {a} {b}\n" for a, b in different]
    rng.shuffle(lines)
    write_atomically(args.out, "".join(lines).encode())
    print(
        f"{args.out}: {len(same)} target and {len(different)} non-target trials, {len(by_speaker)} speakers"
    )
    return 0


def draw_within(speakers: list[list[str]], count: int, rng: random.Random) -> list[Pair]:
    """`count` of the pairs of clips of one speaker, or all if there are no more.

    VoxCeleb2's training clips have 10^8 such pairs, so they are numbered, and only those drawn are made.
    """
    ends = list(accumulate(len(clips) * (len(clips) - 1) // 2 for clips in speakers))
    total = ends[-1] if ends else 0
    drawn = []
    for number in rng.sample(range(total), min(count, total)):
        speaker = bisect_right(ends, number)
        clips, rest = speakers[speaker], number - (ends[speaker - 1] if speaker else 0)
        first = 0
        while rest >= len(clips) - 1 - first:  # first has so many pairs with later clips
            rest -= len(clips) - 1 - first
            first += 1
        drawn.append((clips[first], clips[first + 1 + rest]))
    return drawn


def draw_across(by_speaker: dict[str, list[str]], count: int, rng: random.Random) -> list[Pair]:
    """Up to `count` different pairs of clips of two speakers; every pair of speakers is equally likely."""
    speakers = sorted(by_speaker)
    found: dict[Pair, None] = {}
    for _ in range(10 * count if len(speakers) > 1 else 0):  # few clips have few pairs, which soon come again
        first, second = rng.sample(speakers, 2)
        a, b = sorted((rng.choice(by_speaker[first]), rng.choice(by_speaker[second])))
        found[a, b] = None
        if len(found) == count:
            break
    return list(found)
