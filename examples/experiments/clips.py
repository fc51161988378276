"""Data folders made of another one.

    python clips.py join DATA SUBSET OUT       # clips of DATA/SUBSET.tsv and .wrd, two joined to one
    python clips.py shuffle DATA OUT --seed 1  # DATA/train.tsv, each clip with the video of another
    python clips.py unlabel DATA LABELLED OUT --label emo  # DATA/train.tsv, with the classes of LABELLED

Joined clips are longer than any that a recogniser was trained on.

Shuffled video says nothing about the audio or its label. Each clip gets the video of another, at random and
each once, cut or played back and forth to its own length: lengths say nothing either. Audio and order
stay, so the labels are those of DATA. OUT/valid.tsv lists its clips unchanged: fairseq always opens it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from from_av_ssl import (
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    Clip,
    manifest_text,
    read_crops,
    read_manifest,
    read_wave,
    write_atomically,
)  # fmt: skip
from numpy.typing import NDArray

NO_CLASS = "-"  # in no list of classes


def join(first: Clip, second: Clip, out: Path) -> Clip:
    """Write both clips, one after the other; audio is cut or padded to the length of its video."""
    videos, waves = [], []
    for clip in (first, second):
        videos.append(read_crops(clip.video))
        length = len(videos[-1]) * SAMPLES_PER_FRAME
        wave = read_wave(clip.audio)[:length]
        waves.append(np.pad(wave, (0, length - len(wave))))
    video, audio = np.concatenate(videos), np.concatenate(waves)
    name = f"{first.id}+{second.id}".replace("/", "-")
    files = out / f"{name}.npy", out / f"{name}.wav"
    np.save(files[0], video)
    soundfile.write(files[1], audio, SAMPLE_RATE)
    return Clip(name, *files, len(video), len(audio), line=0)


def join_all(data: Path, subset: str, out: Path) -> None:
    """Write ``out/SUBSET.tsv`` and ``.wrd``; a last clip without a partner is left out."""
    out.mkdir(parents=True, exist_ok=True)
    clips = read_manifest(data / f"{subset}.tsv")
    words = (data / f"{subset}.wrd").read_text(encoding="utf-8").splitlines()
    firsts = range(0, len(clips) - 1, 2)
    joined = [join(clips[first], clips[first + 1], out.resolve()) for first in firsts]
    text = "".join(f"{words[first]} {words[first + 1]}\n" for first in firsts)
    write_atomically(out / f"{subset}.wrd", text.encode())
    write_atomically(out / f"{subset}.tsv", manifest_text(joined).encode())


def fit(video: NDArray[np.uint8], frames: int) -> NDArray[np.uint8]:
    """``[T, H, W]`` -> ``[frames, H, W]``: the first frames, or all of them, then backwards, and so on."""
    missing = max(0, frames - len(video))
    mode = "reflect" if len(video) > 1 else "edge"
    return np.pad(video, ((0, missing), (0, 0), (0, 0)), mode=mode)[:frames]


def shuffle(data: Path, out: Path, seed: int) -> None:
    """Write ``out/train.tsv``, ``out/valid.tsv`` and the video in ``out/video``.

    Raises:
        ValueError: one clip has no other.
    """
    clips = read_manifest(data / "train.tsv")
    if len(clips) < 2:
        raise ValueError(f"{data / 'train.tsv'}: clips cannot swap their video: give at least 2")
    folder = out.resolve() / "video"
    folder.mkdir(parents=True, exist_ok=True)
    videos = [read_crops(clip.video) for clip in clips]
    circle = np.random.default_rng(seed).permutation(len(clips))  # each gets the video of the next
    shuffled = list(clips)
    for number, other in zip(circle, np.roll(circle, -1), strict=True):
        video, frames = folder / f"{number:05d}.npy", len(videos[number])
        np.save(video, fit(videos[other], frames))
        shuffled[number] = replace(clips[number], video=video, frames=frames)
    write_atomically(out / "train.tsv", manifest_text(shuffled).encode())
    write_atomically(out / "valid.tsv", manifest_text(read_manifest(data / "valid.tsv")).encode())


def unlabel(data: Path, labelled: Path, out: Path, label: str) -> None:
    """Write ``out/{train,valid}.tsv`` and labels; training clips outside ``labelled`` have no class."""
    out.mkdir(parents=True, exist_ok=True)
    named = {clip.id for clip in read_manifest(labelled / "train.tsv")}
    for split in ("train", "valid"):
        clips = read_manifest(data / f"{split}.tsv")
        names = (data / f"{split}.{label}").read_text(encoding="utf-8").splitlines()
        kept = [
            name if split == "valid" or clip.id in named else NO_CLASS
            for clip, name in zip(clips, names, strict=True)
        ]
        write_atomically(out / f"{split}.tsv", manifest_text(clips).encode())
        write_atomically(out / f"{split}.{label}", "".join(f"{name}\n" for name in kept).encode())
    classes = f"classes.{label}.txt"
    write_atomically(out / classes, (labelled / classes).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("join", "shuffle", "unlabel"))
    parser.add_argument("paths", nargs="+", metavar="ARGUMENT", help="as above")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label", default="emo")
    args = parser.parse_args()
    data, *between, out = args.paths
    if args.action == "join":
        join_all(Path(data), *between, Path(out))
    elif args.action == "unlabel":
        unlabel(Path(data), *map(Path, between), Path(out), args.label)
    else:
        shuffle(Path(data), Path(out), args.seed)


if __name__ == "__main__":
    main()
