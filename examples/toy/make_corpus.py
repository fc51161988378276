#!/usr/bin/env python
"""Make a corpus of talking faces on the spot, without a download.

Synthetic voices say sentences such as "bin blue at two now" (24 words), and photographed faces move their
mouths with them. The clips are ordinary mp4 files with transcripts, in the folders of LRS3, so that they
enter as any data set does:

    python examples/toy/make_corpus.py CORPUS --train 600 --valid 40 --test 60
    preprocess/folder.sh CORPUS DATA

    CORPUS/{pretrain,valid,test}/SPEAKER/CLIP.mp4   h264, 25 frames/s; aac, 22.05 kHz
    CORPUS/{pretrain,valid,test}/SPEAKER/CLIP.txt   transcript with the times of the words
    CORPUS/alignments/SPLIT/SPEAKER/CLIP.json       times of the phones, the viseme track, where the lips are
    CORPUS/corpus.json                              the settings

The same settings give the same clips bit for bit with any number of workers (on one machine and one set of
library versions). A run that was stopped goes on where it was; larger counts make a corpus grow.

What it is not: there are two photographs, an astronaut and Grace Hopper. Speakers of the test and valid
splits have voices that are not in training and faces that are warped and coloured anew, but no face is truly
unseen. It shows that a method learns; it says nothing of how well it would do on people.

With `--emotions` voices and faces show one of five: pitch, range, rate and loudness, brows and corners of the
mouth. Crop whole faces then: `preprocess/folder.sh CORPUS DATA --region face`.

`--difficulty` is how far the lips stray from what is said: at 0 lip-reading is easier than listening (for
smoke tests), at 1 the words can hardly be read from the lips.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from corpus.clip import Settings
from corpus.generate import generate
from corpus.photographs import PhotographError, load_portraits
from corpus.speech import SpeechError

from av_ssl.media.face_mesh import FaceMesh


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    counts = {"pretrain": arguments.train, "valid": arguments.valid, "test": arguments.test}
    try:
        settings = Settings(
            arguments.seed,
            arguments.speakers,
            arguments.difficulty,
            arguments.frame_size,
            arguments.emotions,
        )
        portraits = load_portraits(FaceMesh().find)
        report = generate(arguments.out, settings, counts, portraits, arguments.workers)
    except (ValueError, OSError, PhotographError, SpeechError) as error:
        print(f"make_corpus.py: {error}", file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(
            "make_corpus.py: a worker process was killed (out of memory?): run again to go on",
            file=sys.stderr,
        )
        return 1
    print(f"{arguments.out}: {report.made} clips made, {report.kept} were there")
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(description="Make a corpus of synthetic talking faces.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the corpus")
    parser.add_argument(
        "--train", type=int, default=600, help="training clips, in OUT/pretrain (%(default)s)"
    )
    parser.add_argument("--valid", type=int, default=40, help="validation clips (%(default)s)")
    parser.add_argument("--test", type=int, default=60, help="test clips (%(default)s)")
    parser.add_argument(
        "--speakers",
        type=int,
        default=defaults.speakers,
        help="training speakers; a fifth as many others in valid, and in test (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument(
        "--difficulty",
        type=float,
        default=defaults.difficulty,
        help="0: clear lips, easier to read than the sound is to hear; 1: hardly legible (%(default)s)",
    )
    parser.add_argument(
        "--emotions",
        action="store_true",
        help="clips say and show one of five emotions; CLIP.emo beside a clip names it, CLIP.spk the speaker",
    )
    parser.add_argument("--frame-size", type=int, default=defaults.frame_size, help="pixels (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
