"""Every problem of a data folder: manifests, labels, dictionaries, noise lists, checksums, and their files.

Training stops at the first mistake; these functions return all of them, each a text with file, line and fix.
Files are read as training reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from av_ssl.data.checksums import Checksum, read_checksums
from av_ssl.data.classes import ClassList
from av_ssl.data.clip_reader import CropAndFlip
from av_ssl.data.labels import ID_FIRST, TOLERATED_SECONDS, holds_ids
from av_ssl.data.noise import noise_list, read_noise_list
from av_ssl.data.reading import read_crops, read_wave
from av_ssl.data.text import TOLERATED_UNKNOWN, TextEncoder
from av_ssl.errors import DataError, MediaError
from av_ssl.io import composed, read_text
from av_ssl.jobs import Crash, run_isolated
from av_ssl.layout import (
    CLASS_LABELS,
    FRAME_RATE,
    NOT_MANIFESTS,
    SAMPLES_PER_FRAME,
    SPEAKER,
    TOKENIZER,
    fold_folders,
    labelled_folders,
)
from av_ssl.manifest import Clip, lists_clips, scan_manifest

"""Names of other lists that end in .tsv."""
SHORTEST, LONGEST = 5, 500  # frames: what training keeps by default
VALIDATION = "valid"
NEEDED = ("train", VALIDATION)
PUNCTUATION = re.compile(r"[.,;:!?\"()\[\]{}<>#*_/\u2026\u00ab\u00bb\u201c\u201d\u201e\u00bf\u00a1]")
"""And marks of tags; not what stands in words: apostrophes and hyphens."""
LABEL_RATES = (25.0, 50.0, 100.0)  # labels a second that are in use

Manifests = dict[Path, list[Clip]]


def check_folder(
    data: Path,
    label_dir: Path,
    noise: Path | None,
    crop_size: int | None,
    workers: int,
    progress: Callable[[int, int], None],
) -> tuple[list[str], list[str]]:
    """Remarks with a line about each manifest, and all problems of a data folder.

    Args:
        data: folder with ``{split}.tsv``.
        label_dir: folder with labels and dictionaries.
        noise: folder with noise lists; None: ``data/noise`` where there is one.
        crop_size: side in pixels of the frames that training cuts; None: media files are not opened, and
            checksums (``SHA256SUMS``) not compared.
        workers: processes that open media files.
        progress: called with the number of files done and of all files.
    """
    if not data.is_dir():
        raise DataError(f"{data}: is not a folder; name the one that holds train.tsv")
    remarks: list[str] = []
    manifests, problems = _manifests(data, remarks)
    problems += _labels(label_dir, manifests, remarks) + _class_labels(label_dir, manifests)
    for folder in labelled_folders(data):
        subset, found = _manifests(folder, remarks)
        problems += found + _labels(folder, subset, remarks)
    for folder in fold_folders(data):  # for classification: their transcripts have no tokenizer
        subset, found = _manifests(folder, remarks)
        problems += found + _class_labels(folder, subset)
    noises, found = _noise_lists(noise or data / "noise", manifests, wanted=noise is not None)
    problems += found
    if crop_size is not None:
        media = [MediaCheck(path, clip, crop_size) for path, clips in manifests.items() for clip in clips]
        listed, found = read_checksums(data)
        problems += found + _check_files([*media, *noises, *listed], workers, progress)
    return [*remarks, *(_described(path, clips) for path, clips in manifests.items())], problems


def _described(path: Path, clips: Sequence[Clip]) -> str:
    hours = sum(clip.frames for clip in clips) / FRAME_RATE / 3600
    outside = sum(not SHORTEST <= clip.frames <= LONGEST for clip in clips)
    left_out = f"; {outside} outside {SHORTEST} to {LONGEST} frames are left out" if outside else ""
    return f"{path}: {len(clips)} clips, {hours:.2f} hours{left_out}"


def _manifests(folder: Path, remarks: list[str]) -> tuple[Manifests, list[str]]:
    """Clips and problems; ``remarks`` are added to."""
    lists = {
        path.stem: path for path in sorted(folder.glob("*.tsv")) if not NOT_MANIFESTS.fullmatch(path.stem)
    }
    problems = [
        f"{folder / split}.tsv: does not exist; training needs it: run av-ssl data manifest"
        for split in NEEDED
        if split not in lists
    ]
    manifests: Manifests = {}
    for split, path in lists.items():
        if split not in NEEDED and not lists_clips(path):
            continue  # of a corpus too small for it
        if split == VALIDATION and _names_root_alone(path):
            remarks.append(
                f"{path}: lists no clips: transcribe and features work, training needs some: add videos, or "
                "set dataset.disable_validation=true"
            )
            continue
        manifests[path], found = check_manifest(path)
        problems += found
    return manifests, problems + check_splits_apart(manifests)


def _names_root_alone(path: Path) -> bool:
    return len(read_text(path, "make it readable").split()) > 0 and not lists_clips(path)


def _labels(folder: Path, manifests: Manifests, remarks: list[str]) -> list[str]:
    """Problems of every `{split}.NAME` for which there is a `dict.NAME.txt`, and of those that lack it.

    ``remarks`` are added to. Labels of a manifest with malformed lines are left for when these are fixed.
    """
    splits = _whole(manifests)
    kinds = {path.name[len("dict.") : -len(".txt")] for path in folder.glob("dict.*.txt")}
    files = [
        path
        for path in sorted(folder.iterdir() if folder.is_dir() else [])
        if path.stem in splits and path.suffix[1:] in kinds | {"wrd", "km"}
    ]
    problems: list[str] = []
    if "wrd" in kinds:
        there = {path.stem for path in files if path.suffix == ".wrd"} | {
            "train" for _ in labelled_folders(folder)
        }
        remarks += [
            f"{folder / split}.wrd: does not exist, as not all clips of {split} have transcripts: no "
            "recogniser can be trained or scored on them"
            for split in splits
            if split not in there
        ]
    for kind in sorted({path.suffix[1:] for path in files}):
        has_tokenizer = kind == "wrd" and (folder / TOKENIZER).is_file()
        try:
            encoder = TextEncoder.load(
                folder / f"dict.{kind}.txt", folder / TOKENIZER if has_tokenizer else None
            )
        except DataError as error:
            problems.append(str(error))
            continue
        for path in (path for path in files if path.suffix[1:] == kind):
            clips = splits[path.stem]
            if encoder.tokenizer is None and all(s.isdecimal() for s in encoder.dictionary.symbols[4:]):
                problems += check_frame_labels(path, encoder, clips)
            else:
                found, small = check_transcripts(path, encoder, clips)
                problems += found
                remarks += small
    return problems


def _class_labels(folder: Path, manifests: Manifests) -> list[str]:
    """Problems of every `{split}.NAME` of speakers, emotions, and whatever there is a `classes.NAME.txt` for.

    Speakers of other splits need not be those of training.
    """
    splits = _whole(manifests)
    listed = {path.name[len("classes.") : -len(".txt")] for path in folder.glob("classes.*.txt")}
    problems: list[str] = []
    for kind in sorted(listed.union(CLASS_LABELS)):
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


def _noise_lists(folder: Path, manifests: Manifests, wanted: bool) -> tuple[list[Path], list[str]]:
    """Noise files of all lists; a list must be there for each split that is loaded."""
    if not folder.is_dir() and not wanted:
        return [], []
    noises: list[Path] = []
    problems: list[str] = []
    for path in sorted({noise_list(folder, manifest.stem) for manifest in manifests}):
        found, wrong = check_noise_list(path)
        noises += found
        problems += wrong
    return sorted(set(noises)), problems


def _check_files(
    files: Sequence[MediaCheck | Path | Checksum], workers: int, progress: Callable[[int, int], None]
) -> list[str]:
    if not files:
        return []
    numbers = {id(file): number for number, file in enumerate(files)}
    results: dict[int, list[str]] = {}
    progress(0, len(files))
    for file, outcome in run_isolated(_check_file, files, min(workers, len(files))):
        place = file if isinstance(file, Path) else file.place
        found = [f"{place}: {outcome.message}"] if isinstance(outcome, Crash) else outcome
        results[numbers[id(file)]] = found
        progress(len(results), len(files))
    return [problem for number in sorted(results) for problem in results[number]]


def _check_file(file: MediaCheck | Path | Checksum) -> list[str]:
    """Problems of a noise recording, of a clip's files, or of a file whose checksum is listed."""
    if isinstance(file, Checksum):
        return [problem] if (problem := file.problem()) else []
    if isinstance(file, Path):
        try:
            read_wave(file)
        except DataError as error:
            return [str(error)]
        return []
    problems = []
    for stream in (_check_video, _check_audio):
        try:
            problems += [f"{file.place}: {problem}" for problem in stream(file)]
        except DataError as error:
            problems.append(f"{file.place}: {error}")
    return problems


def check_manifest(path: Path) -> tuple[list[Clip], list[str]]:
    """Clips of the well-formed lines, and the problems of all lines: columns, numbers, ids, lengths."""
    try:
        clips, problems = scan_manifest(path)
    except DataError as error:
        return [], [str(error)]
    for clip in clips:
        place = f"{path}, line {clip.line}"
        if clip.video is None and clip.audio is None:
            problems.append(f"{place}: names neither video nor audio; fill in the columns")
        problems += [f"{place}: {problem}" for problem in _lengths(clip)]
    problems += _partly_missing(path, clips)
    return clips, problems


def _lengths(clip: Clip) -> Iterator[str]:
    if clip.video is not None and clip.frames < 1:
        yield f"{clip.frames} video frames; write the length of the video"
    if clip.audio is not None and clip.samples < 1:
        yield f"{clip.samples} audio samples; write the length of the audio"
    elif clip.video is not None and clip.audio is not None:
        apart = clip.samples / SAMPLES_PER_FRAME - clip.frames
        if abs(apart) > TOLERATED_SECONDS * FRAME_RATE:
            longer = "audio" if apart > 0 else "video"
            yield (
                f"{clip.frames} frames at 25 Hz and {clip.samples} samples at 16 kHz: the {longer} is "
                f"{abs(apart) / FRAME_RATE:.2f} s longer; crop the clip again, or correct the two numbers"
            )


def _partly_missing(path: Path, clips: Sequence[Clip]) -> list[str]:
    """Lines without a stream that other lines have: a run that loads this stream would refuse them."""
    problems = []
    for stream in ("video", "audio"):
        without = [clip for clip in clips if getattr(clip, stream) is None]
        if 0 < len(without) < len(clips):
            problems += [
                f"{path}, line {clip.line}: has no {stream}, other clips have; "
                "fill in the column or remove the line"
                for clip in without
            ]
    return problems


def check_splits_apart(splits: Mapping[Path, Sequence[Clip]]) -> list[str]:
    """Clips that stand in two manifests, by id or file: the one flatters results on the other."""
    problems: list[str] = []
    seen: dict[str | Path, tuple[Path, int]] = {}
    for path, clips in splits.items():
        for clip in clips:
            known = {key: seen.setdefault(key, (path, clip.line)) for key in clip.keys}
            for key, (other, line) in known.items():
                if other != path:
                    what = f"id {clip.id!r}" if isinstance(key, str) else key
                    problems.append(
                        f"{path}, line {clip.line}: {what} stands in {other.name}, line {line}, too; take it "
                        "out of one of them"
                    )
                    break
    return problems


def check_transcripts(path: Path, encoder: TextEncoder, clips: Sequence[Clip]) -> tuple[list[str], list[str]]:
    """Problems and remarks of `{split}.wrd`: number of lines, encoding, empty lines, unknown symbols.

    A few symbols that the dictionary lacks are a remark, as training only warns of them.
    """
    lines, problems = _lines(path, len(clips))
    if holds_ids((line for _, line in lines), clips):
        problems.append(f"{path}, line 1: begins with {clips[0].id!r}, {ID_FIRST}")
    unknown: list[tuple[int, list[str]]] = []
    pieces, punctuated = 0, [number for number, line in lines if PUNCTUATION.search(line)]
    for number, line in lines:
        if not line.split():
            problems.append(f"{path}, line {number}: is empty; write what is said, or remove the clip")
            continue
        encoded = encoder.encode(line).split()
        pieces += len(encoded)
        lacking = [piece for piece in encoded if piece not in encoder.dictionary]
        if lacking:
            unknown.append((number, lacking))
    found = [
        f"{path}, line {number}: {', '.join(map(repr, lacking[:5]))} not in the dictionary"
        for number, lacking in unknown
    ]
    if sum(len(lacking) for _, lacking in unknown) > TOLERATED_UNKNOWN * pieces:
        fix = "make dictionary and tokenizer from these transcripts"
        return [*problems, *(f"{one}; {fix}" for one in found)], []
    remarks = [f"{one}: training takes it as <unk>" for one in found]
    if punctuated:
        remarks.append(
            f"{path}, line {punctuated[0]}: has punctuation or tags, as {len(punctuated)} of {len(lines)} "
            "lines: recognisers learn to write them, and scores count them; remove them if that is not wanted"
        )
    return problems, remarks


def check_frame_labels(path: Path, encoder: TextEncoder, clips: Sequence[Clip]) -> list[str]:
    """Problems of cluster labels such as `{split}.km`: lines, unknown ids, lengths against the manifest.

    The number of labels a second is taken to be the one of 25, 50 and 100 that fits most lines.
    """
    lines, problems = _lines(path, len(clips))
    counts = {number: len(line.split()) for number, line in lines}
    if len(counts) != len(clips):
        return problems
    rates = [counts[k] * FRAME_RATE / clip.frames for k, clip in enumerate(clips, 1) if clip.frames > 0]
    rate = min(LABEL_RATES, key=lambda known: abs(np.log(max(np.median(rates or [25]), 0.1) / known)))
    known = set(encoder.dictionary.symbols)
    for (number, line), clip in zip(lines, clips, strict=True):
        unknown = sorted(set(line.split()) - known)
        if unknown:
            problems.append(
                f"{path}, line {number}: {', '.join(map(repr, unknown[:5]))} not in the dictionary; "
                "list every cluster id there"
            )
        if abs(counts[number] / rate - clip.frames / FRAME_RATE) >= TOLERATED_SECONDS:
            problems.append(
                f"{path}, line {number}: {counts[number]} labels at {rate:g} a second for {clip.frames} "
                "frames at 25 Hz; make the labels again from this manifest"
            )
    return problems


def check_class_labels(path: Path, classes: ClassList, clips: int, strangers: bool) -> list[str]:
    """Problems of `{split}.emo` and the like: number of lines, encoding, names that are not in the list.

    With `strangers`, names that the list lacks are in order, as of speakers who are not in training.
    """
    lines, problems = _lines(path, clips)
    for number, line in lines:
        name = composed(line.strip())
        if not name:
            problems.append(f"{path}, line {number}: is empty; write the class, or remove the clip")
        elif name not in classes.ids and not strangers:
            problems.append(
                f"{path}, line {number}: {name!r} is not in {classes.origin}; correct it, or add it there"
            )
    return problems


def check_noise_list(path: Path) -> tuple[list[Path], list[str]]:
    """Noise files of a list, and the lines whose file is missing."""
    try:
        paths = read_noise_list(path)
    except DataError as error:
        return [], [str(error)]
    lines = read_text(path, "make it again").split("\n")
    places = [number for number, line in enumerate(lines, 1) if line.strip()]
    missing = [
        f"{path}, line {number}: {noise} does not exist; make the list again"
        for number, noise in zip(places, paths, strict=True)
        if not noise.is_file()
    ]
    return [noise for noise in paths if noise.is_file()], missing


def _lines(path: Path, clips: int) -> tuple[list[tuple[int, str]], list[str]]:
    """Numbered lines, and the problems of the file as a whole."""
    try:
        rows = read_text(path, "make the labels again").split("\n")
    except DataError as error:
        return [], [str(error)]
    if rows[-1] == "":
        rows.pop()
    while len(rows) > clips and not rows[-1].strip():
        rows.pop()
    problems = []
    if len(rows) != clips:
        problems.append(
            f"{path}: {len(rows)} lines, {path.stem}.tsv lists {clips} clips; line k of the labels belongs "
            "to clip k: make them again from the same manifest"
        )
    return list(enumerate(rows, start=1)), problems


@dataclass(frozen=True)
class MediaCheck:
    """A clip to be read, from a line of ``manifest``; training cuts frames of ``crop_size`` pixels."""

    manifest: Path
    clip: Clip
    crop_size: int = 88

    @property
    def place(self) -> str:
        return f"{self.manifest}, line {self.clip.line}"


def _check_video(job: MediaCheck) -> Iterator[str]:
    clip = job.clip
    if clip.video is None:
        return
    frames, height, width = read_crops(clip.video).shape
    if frames != clip.frames:
        yield f"{clip.video}: holds {frames} frames, the manifest says {clip.frames}; write {frames} there"
    try:
        CropAndFlip(job.crop_size).draw(height, width, np.random.default_rng(0))
    except MediaError as error:
        yield f"{clip.video}: {error}"


def _check_audio(job: MediaCheck) -> Iterator[str]:
    clip = job.clip
    if clip.audio is None:
        return
    samples = len(read_wave(clip.audio))
    if samples != clip.samples:
        yield (
            f"{clip.audio}: holds {samples} samples, the manifest says {clip.samples}; write {samples} there"
        )
