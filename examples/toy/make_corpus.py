#!/usr/bin/env python
"""Make a corpus of talking faces here, without a download; README.md tells more.

    python examples/toy/make_corpus.py CORPUS --train 600 --valid 40 --test 60
    preprocess/folder.sh CORPUS DATA

    CORPUS/{pretrain,valid,test}/SPEAKER/CLIP.mp4   h264, 25 frames/s; aac, 22.05 kHz
    CORPUS/{pretrain,valid,test}/SPEAKER/CLIP.txt   transcript with the times of the words
    CORPUS/alignments/SPLIT/SPEAKER/CLIP.json       times of the phones, the viseme track, where the lips are
    CORPUS/corpus.json                              the settings

The same settings give the same clips bit for bit with any number of workers (on one machine and one set of
library versions). A run that was stopped resumes; with larger counts a corpus grows.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import cv2
from corpus.clip import Settings, Slot, Studio, write
from corpus.look import PhotographError, Portrait, load_portraits
from corpus.script import SPLITS
from corpus.speech import SpeechError, Synthesiser
from tqdm import tqdm

from av_ssl.media.face_mesh import FaceMesh

_worker: tuple[Path, Studio] | None = None


def plan(settings: Settings, counts: Mapping[str, int]) -> list[Slot]:
    """The clips of a corpus with so many in each split; the first do not depend on how many follow.

    Raises `ValueError` for a count below 0 and for a corpus without clips.
    """
    for split, count in counts.items():
        if count < 0:
            raise ValueError(f"{count} clips asked for {split}: give a number from 0")
    slots = [
        Slot(split, number, settings.speakers_in(split))
        for split in SPLITS
        for number in range(counts.get(split, 0))
    ]
    if not slots:
        raise ValueError("no clips asked for: give at least one of --train, --valid, --test a number above 0")
    return slots


def generate(
    root: Path, settings: Settings, counts: Mapping[str, int], portraits: Sequence[Portrait], workers: int
) -> tuple[int, int]:
    """Make the clips that `root` lacks, in several processes; numbers of clips made and kept.

    Raises `ValueError` for wrong counts and where `root` holds a corpus with other settings or more clips,
    `SpeechError` where espeak-ng cannot be used, and `OSError` where `root` cannot be written.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: give at least 1")
    slots = plan(settings, counts)
    Synthesiser()  # if it is missing, report it once, not in every worker
    _claim(root, settings, counts)
    missing = [slot for slot in slots if not all(path.is_file() for path in slot.files(root))]
    # Several threads a process would only slow each other down, and could sum in another order.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # A forked worker would inherit the locks of other threads of this process.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start_worker, (root, settings, portraits)) as pool:
        for _ in tqdm(pool.map(_make, missing), total=len(missing), desc="toy corpus", unit="clip"):
            pass
    return len(missing), len(slots) - len(missing)


def _claim(root: Path, settings: Settings, counts: Mapping[str, int]) -> None:
    """Note in `root` what is made there, or check that it is what was made there before."""
    path = root / "corpus.json"
    root.mkdir(parents=True, exist_ok=True)
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            before, had = Settings(**known["settings"]), known["clips"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a corpus's ({error}): choose another folder") from error
        if before != settings:
            raise ValueError(f"{path}: made with {before}, asked for {settings}: choose another folder")
        for split in SPLITS:
            if had.get(split, 0) > counts.get(split, 0):
                raise ValueError(
                    f"{path}: holds {had[split]} clips of {split}, asked for {counts.get(split, 0)}: "
                    "choose another folder (a corpus may grow, not shrink)"
                )
    named = asdict(settings)
    for key in ("emotions", "link"):
        if named[key] in (False, None):
            del named[key]  # as in corpora of earlier versions
    document = {"settings": named, "clips": {split: counts.get(split, 0) for split in SPLITS}}
    write(path, f"{json.dumps(document, indent=2)}\n".encode())


def _start_worker(root: Path, settings: Settings, portraits: Sequence[Portrait]) -> None:
    global _worker
    cv2.setNumThreads(1)
    _worker = root, Studio(settings, portraits)


def _make(slot: Slot) -> None:
    assert _worker is not None, "a worker begins with _start_worker"
    root, studio = _worker
    studio.record(slot).write(root)


def main(arguments: Sequence[str] | None = None) -> int:
    defaults = Settings()
    parser = argparse.ArgumentParser(description="Make a corpus of synthetic talking faces.")
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder of the corpus")
    add("--train", type=int, default=600, help="training clips, in OUT/pretrain (%(default)s)")
    add("--valid", type=int, default=40, help="validation clips (%(default)s)")
    add("--test", type=int, default=60, help="test clips (%(default)s)")
    add("--speakers", type=int, default=defaults.speakers, help="in training; in test a fifth (%(default)s)")
    add("--seed", type=int, default=defaults.seed, help="(%(default)s)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    add("--difficulty", type=float, default=defaults.difficulty, help="of lip-reading (%(default)s)")
    add(
        "--emotions", action="store_true", help="each clip shows one; CLIP.emo names it, CLIP.spk the speaker"
    )
    add(
        "--link",
        type=float,
        metavar="SHARE",
        help="looks follow voices, emotions are blends, and this share of clips has the face that belongs "
        "to the voice (0: video tells nothing about the voice; default: no links, as in earlier versions)",
    )
    add("--frame-size", type=int, default=defaults.frame_size, help="pixels (%(default)s)")
    args = parser.parse_args(arguments)
    counts = {"pretrain": args.train, "valid": args.valid, "test": args.test}
    try:
        settings = Settings(
            args.seed, args.speakers, args.difficulty, args.frame_size, args.emotions, args.link
        )
        portraits = load_portraits(FaceMesh().find)
        made, kept = generate(args.out, settings, counts, portraits, args.workers)
    except (ValueError, OSError, PhotographError, SpeechError) as error:
        print(f"make_corpus.py: {error}", file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print("make_corpus.py: a worker was killed (out of memory?): run again to resume", file=sys.stderr)
        return 1
    print(f"{args.out}: {made} clips made, {kept} were there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
