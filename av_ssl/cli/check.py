"""`av-ssl check DATA`: reads a finished data folder as training would and reports every problem."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from av_ssl.cli.arguments import (
    LABELS,
    MODEL,
    SPEAKER,
    available_cores,
    fold_folders,
    labelled_folders,
    positive,
)
from av_ssl.data.check import (
    MediaCheck,
    check_class_labels,
    check_clip,
    check_frame_labels,
    check_manifest,
    check_noise,
    check_noise_list,
    check_splits_apart,
    check_transcripts,
)
from av_ssl.data.classes import ClassList
from av_ssl.data.text import TextEncoder
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar
from av_ssl.jobs import Crash, run_isolated
from av_ssl.layout import Clip

NOT_MANIFESTS = frozenset({"clips"})  # lists that are called .tsv, too
SHORTEST, LONGEST = 5, 500  # frames: what training keeps unless told otherwise
NEEDED = ("train", "valid")

Job = TypeVar("Job")
Manifests = dict[Path, list[Clip]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="DATA", type=Path, help="folder that task.data will name")
    parser.add_argument("--label-dir", type=Path, help="folder with labels and dictionaries (default: DATA)")
    parser.add_argument(
        "--noise", type=Path, help="folder with noise lists (default: DATA/noise where there is one)"
    )
    parser.add_argument(
        "--image-crop-size", type=positive, default=88, help="as task.image_crop_size (default: 88)"
    )
    parser.add_argument("--lists-only", action="store_true", help="open no video and no recording")
    parser.add_argument(
        "--workers", type=positive, default=available_cores(), help="processes (default: one a core)"
    )


def run(args: argparse.Namespace) -> int:
    """Print every problem and a summary; 0 when there is none."""
    if not args.data.is_dir():
        raise DataError(f"{args.data}: is not a folder; name the one that holds train.tsv")
    manifests, problems = _manifests(args.data)
    labels = args.label_dir or args.data
    problems += _labels(labels, manifests) + _class_labels(labels, manifests)
    for folder in labelled_folders(args.data):
        subset, found = _manifests(folder)
        problems += found + _labels(folder, subset)
    for folder in fold_folders(args.data):  # for classification: their transcripts have no tokenizer
        subset, found = _manifests(folder)
        problems += found + _class_labels(folder, subset)
    noises, found = _noise_lists(args.noise or args.data / "noise", manifests, wanted=args.noise is not None)
    problems += found
    if not args.lists_only:
        problems += _media(manifests, noises, args)
    for problem in problems:
        print(problem)
    _summarise(args.data, manifests, len(problems))
    return 1 if problems else 0


def _manifests(folder: Path) -> tuple[Manifests, list[str]]:
    paths = [path for path in sorted(folder.glob("*.tsv")) if path.stem not in NOT_MANIFESTS]
    paths = [
        path for path in paths if not path.stem.startswith("bad_clips.") and not path.stem.endswith(".hyp")
    ]
    present = {path.stem for path in paths}
    problems = [
        f"{folder / split}.tsv: does not exist; training needs it: run av-ssl manifest"
        for split in NEEDED
        if split not in present
    ]
    manifests: Manifests = {}
    for path in paths:
        manifests[path], found = check_manifest(path)
        problems += found
    return manifests, problems + check_splits_apart(manifests)


def _labels(folder: Path, manifests: Manifests) -> list[str]:
    """Problems of every `{split}.NAME` for which there is a `dict.NAME.txt`, and of those that lack it.

    Labels of a manifest with malformed lines are left for when these are mended.
    """
    splits = _whole(manifests)
    kinds = {path.name[len("dict.") : -len(".txt")] for path in folder.glob("dict.*.txt")}
    files = [
        path
        for path in sorted(folder.iterdir() if folder.is_dir() else [])
        if path.stem in splits and path.suffix[1:] in kinds | {"wrd", "km"}
    ]
    problems: list[str] = []
    for kind in sorted({path.suffix[1:] for path in files}):
        try:
            encoder = _encoder(folder, kind)
        except DataError as error:
            problems.append(str(error))
            continue
        for path in (path for path in files if path.suffix[1:] == kind):
            clips = splits[path.stem]
            if encoder.tokenizer is None and all(s.isdecimal() for s in encoder.dictionary.symbols[4:]):
                problems += check_frame_labels(path, encoder, clips)
            else:
                problems += check_transcripts(path, encoder, len(clips))
    return problems


def _class_labels(folder: Path, manifests: Manifests) -> list[str]:
    """Problems of every `{split}.NAME` of speakers, emotions, and whatever there is a `classes.NAME.txt` for.

    Speakers of other splits need not be those of training.
    """
    splits = _whole(manifests)
    listed = {path.name[len("classes.") : -len(".txt")] for path in folder.glob("classes.*.txt")}
    problems: list[str] = []
    for kind in sorted(listed.union(LABELS)):
        files = {split: folder / f"{split}.{kind}" for split in splits}
        present = {split: path for split, path in files.items() if path.is_file()}
        if not present:
            continue
        try:
            classes = ClassList.load(folder / f"classes.{kind}.txt")
        except DataError as error:
            problems.append(str(error))
            continue
        for split, path in present.items():
            strangers = kind == SPEAKER and not split.startswith("train")
            problems += check_class_labels(path, classes, len(splits[split]), strangers)
        problems += [
            f"{files[split]}: does not exist, {classes.origin} does; make the lists again"
            for split in NEEDED
            if split in files and split not in present
        ]
    return problems


def _whole(manifests: Manifests) -> dict[str, list[Clip]]:
    """Clips by split, of manifests whose lines are all sound: to these belong the lines of the labels."""
    return {
        path.stem: clips for path, clips in manifests.items() if clips and clips[-1].line == len(clips) + 1
    }


def _encoder(folder: Path, kind: str) -> TextEncoder:
    tokenizer = folder / MODEL
    has_tokenizer = kind == "wrd" and tokenizer.is_file()
    return TextEncoder.load(folder / f"dict.{kind}.txt", tokenizer if has_tokenizer else None)


def _noise_lists(folder: Path, manifests: Manifests, wanted: bool) -> tuple[list[Path], list[str]]:
    """Noise files of all lists; a list must be there for each split that is loaded."""
    if not folder.is_dir() and not wanted:
        return [], []
    noises: list[Path] = []
    problems: list[str] = []
    for split in sorted(path.stem for path in manifests):
        found, wrong = check_noise_list(folder / f"{split}.tsv")
        noises += found
        problems += wrong
    return sorted(set(noises)), problems


def _media(manifests: Manifests, noises: list[Path], args: argparse.Namespace) -> list[str]:
    jobs = [
        MediaCheck(path, clip, args.image_crop_size) for path, clips in manifests.items() for clip in clips
    ]
    problems = _in_processes(
        check_clip, jobs, args.workers, "clip", lambda job: f"{job.manifest}, line {job.clip.line}"
    )
    return problems + _in_processes(check_noise, noises, args.workers, "noise", str)


def _in_processes(
    check: Callable[[Job], list[str]], jobs: list[Job], workers: int, unit: str, place: Callable[[Job], str]
) -> list[str]:
    """Problems of all jobs, in their order."""
    if not jobs:
        return []
    order = {id(job): number for number, job in enumerate(jobs)}
    results: list[tuple[int, list[str]]] = []
    with ProgressBar(unit) as bar:
        bar.update(0, len(jobs))
        for job, outcome in run_isolated(check, jobs, min(workers, len(jobs))):
            found = [f"{place(job)}: {outcome.message}"] if isinstance(outcome, Crash) else outcome
            results.append((order[id(job)], found))
            bar.update(len(results), len(jobs))
    return [problem for _, found in sorted(results) for problem in found]


def _summarise(data: Path, manifests: Manifests, problems: int) -> None:
    for path, clips in manifests.items():
        hours = sum(clip.frames for clip in clips) / 25 / 3600
        outside = sum(not SHORTEST <= clip.frames <= LONGEST for clip in clips)
        left_out = f"; {outside} outside {SHORTEST} to {LONGEST} frames are left out" if outside else ""
        print(f"{path}: {len(clips)} clips, {hours:.2f} hours{left_out}")
    print(f"{data}: {problems} problem{'' if problems == 1 else 's'}" if problems else f"{data}: no problem")
