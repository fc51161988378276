"""Training clips whose pictures are those of other clips: video that says nothing of the sound or its label.

python examples/toy/mispair.py DATA OUT --seed 1     # DATA/train.tsv -> OUT/train.tsv, video in OUT/video

OUT/valid.tsv lists the clips of DATA's as they are: fairseq opens it even where nothing is validated.

Every clip gets the pictures of another, drawn at random, each once, cut or played back and forth to the
length of its own: lengths tell nothing either. Sound and order stay, so the labels are those of DATA.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.reading import read_crops
from av_ssl.io import write_atomically
from av_ssl.layout import Clip, manifest_text, read_manifest


def derangement(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order ``[count]`` in which nothing is where it was.

    Raises:
        ValueError: there is none of fewer than two.
    """
    if count < 2:
        raise ValueError(f"{count} clips cannot swap their pictures: give at least 2")
    while True:  # about one random order in three will do
        order = rng.permutation(count)
        if (order != np.arange(count)).all():
            return order


def fit(pictures: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
    """``[T, H, W]`` -> ``[frames, H, W]``: the first ones, or all of them, then backwards, and so on."""
    missing = max(0, frames - len(pictures))
    mode = "reflect" if len(pictures) > 1 else "edge"
    return np.pad(pictures, ((0, missing), (0, 0), (0, 0)), mode=mode)[:frames]


def mispair(clips: list[Clip], folder: Path, seed: int) -> list[Clip]:
    """The clips with the pictures of others, which are written to ``folder``."""
    pictures = [read_crops(clip.video) for clip in clips if clip.video is not None]
    order = derangement(len(pictures), np.random.default_rng(seed))
    found = []
    for number, (clip, own, other) in enumerate(zip(clips, pictures, order, strict=True)):
        video = folder / f"{number:05d}.npy"
        np.save(video, fit(pictures[other], len(own)))
        found.append(replace(clip, video=video, frames=len(own)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = args.out.resolve() / "video"
    folder.mkdir(parents=True, exist_ok=True)
    clips = mispair(read_manifest(args.data / "train.tsv"), folder, args.seed)
    write_atomically(args.out / "train.tsv", manifest_text(clips).encode())
    write_atomically(args.out / "valid.tsv", manifest_text(read_manifest(args.data / "valid.tsv")).encode())


if __name__ == "__main__":
    main()
