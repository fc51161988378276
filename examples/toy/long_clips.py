"""Join test clips two by two: clips longer than any that a recogniser was trained on.

python examples/toy/long_clips.py DATA OUT     # DATA/test.tsv, test.wrd -> OUT/test.tsv, test.wrd, clips
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile

from av_ssl.data.reading import read_crops, read_wave
from av_ssl.layout import SAMPLE_RATE, SAMPLES_PER_FRAME, Clip, manifest_text, read_manifest


def join(first: Clip, second: Clip, out: Path) -> Clip:
    """Write pictures and sound of both, one after the other; the sound fits the pictures of each."""
    pictures = [read_crops(clip.video) for clip in (first, second)]
    sounds = [
        np.pad(wave[:length], (0, max(0, length - len(wave))))
        for clip, shown in zip((first, second), pictures, strict=True)
        for wave, length in [(read_wave(clip.audio), len(shown) * SAMPLES_PER_FRAME)]
    ]
    video, audio = np.concatenate(pictures), np.concatenate(sounds)
    name = f"{first.id.replace('/', '-')}+{second.id.replace('/', '-')}"
    np.save(out / f"{name}.npy", video)
    soundfile.write(out / f"{name}.wav", audio, SAMPLE_RATE)
    return Clip(name, out / f"{name}.npy", out / f"{name}.wav", len(video), len(audio), line=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    clips = read_manifest(args.data / "test.tsv")
    words = (args.data / "test.wrd").read_text(encoding="utf-8").splitlines()
    pairs = list(zip(range(0, len(clips) - 1, 2), range(1, len(clips), 2), strict=True))
    joined = [join(clips[a], clips[b], args.out.resolve()) for a, b in pairs]
    text = "".join(f"{words[a]} {words[b]}\n" for a, b in pairs)
    (args.out / "test.wrd").write_text(text, encoding="utf-8")
    (args.out / "test.tsv").write_text(manifest_text(joined), encoding="utf-8")


if __name__ == "__main__":
    main()
