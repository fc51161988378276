"""Lists of clips in AV-HuBERT's formats: what ``av-ssl data manifest`` writes into a data folder.

``SPLIT.tsv``: "/" on the first line, then id, video, audio, frames, samples, separated by tabs. Paths are
absolute, since AV-HuBERT's own loader joins no root to the audio path.
``SPLIT.wrd``: the transcript of each clip, written only when every clip of the split has one.
``SPLIT.spk``, ``SPLIT.emo``: speaker and emotion of each clip, of corpora that have them; the classes of the
training clips are in ``classes.spk.txt`` and ``classes.emo.txt``, one a line.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from av_ssl.corpora.corpus import Corpus, CorpusClip, Draw, assign_splits, read_id_lists
from av_ssl.errors import DataError
from av_ssl.io import write_atomically
from av_ssl.layout import (
    CLASS_LABELS,
    LABELLED,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    SPEAKER,
    SPLITS,
    TOKENIZER_FILES,
    fold_folder,
    labelled_folder,
)
from av_ssl.media.crop_report import read_clips

ROOT = "/"
Row = tuple[str, str, str, str, str]
"""Columns of a manifest: id, video, audio, frames, samples."""


@dataclass(frozen=True)
class Entry:
    """A clip in a list."""

    id: str
    line: str  # of the manifest
    transcript: str | None
    part: str  # of the corpus, such as "pretrain"
    labels: Mapping[str, str]  # class names by kind: ``spk``, ``emo``


def write_data_folder(
    out: Path,
    corpus: Corpus,
    clips: Mapping[str, CorpusClip],
    draw: Draw,
    seed: int,
    valid_ids: Mapping[str, int] | None,
    labelled: int | None,
    folds: Sequence[str],
) -> list[str]:
    """Write the lists of all splits and of parts of them; returns a line for each list.

    Args:
        out: data folder; for corpora with video, ``av-ssl crop`` has filled it.
        corpus: driver; each of its subsets gets a folder.
        clips: of the corpus, by id.
        draw: how many clips, or speakers, are for validation and test.
        seed: of the random choices.
        valid_ids: the validation clips; None: drawn.
        labelled: clips of an extra folder ``labelled_N`` of transcribed training clips; None: no such folder.
        folds: names of the corpus's published divisions by speaker, each written into ``fold_NAME``.

    Raises:
        DataError: there are no clips, or fewer than are to be drawn; a recording has another format.
    """
    entries = make_entries(out, corpus, clips)
    present = {name: clips[name] for name in entries}
    splits = assign_splits(present, draw, seed, valid_ids)
    whole = {split: [entries[name] for name in names] for split, names in splits.items()}
    report = write_lists(out, whole)
    for folder, part in corpus.subsets.items():
        train = [entry for entry in whole["train"] if entry.part == part]
        if 0 < len(train) < len(whole["train"]):
            report += write_subset(out, out / folder, {**whole, "train": train})
    if labelled:
        train = draw_labelled(whole["train"], labelled, seed)
        report += write_subset(out, labelled_folder(out, labelled), {**whole, "train": train})
    for name in folds:
        fold = corpus.folds[name]
        parts = {s: [e for e in entries.values() if fold.split(present[e.id]) == s] for s in SPLITS}
        report += write_subset(out, fold_folder(out, name), parts)
    return report


def write_named_lists(out: Path, corpus: Corpus, clips: Mapping[str, CorpusClip], folder: Path) -> list[str]:
    """Write the lists that ``folder/NAME.txt`` name; returns a line for each list.

    ``train``, ``valid`` and any other become ``OUT/NAME.tsv``. ``labelled_N`` becomes the training list of
    ``OUT/labelled_N``, beside the other lists.

    Raises:
        DataError: there is no list for training, or one of its clips is also in a list that is no part of it.
    """
    entries = make_entries(out, corpus, clips)
    ids = read_id_lists(folder, corpus, clips)
    if "train" not in ids:
        raise DataError(f"{folder / 'train.txt'}: is missing; it lists the training clips, one id a line")
    parts = [name for name in ids if name.startswith(LABELLED)]
    evaluated = [name for name in ids if name not in ("train", *parts)]
    for trained in ("train", *parts):
        for name in evaluated:
            for shared in ids[trained].keys() & ids[name].keys():
                raise DataError(
                    f"{folder / name}.txt, line {ids[name][shared]}: {shared} is also in {trained}.txt; "
                    "remove it from one of them"
                )
    lists = {name: [entries[one] for one in listed if one in entries] for name, listed in ids.items()}
    held_out = {name: lists[name] for name in evaluated}
    report = write_lists(out, {"train": lists["train"], **held_out})
    for part in parts:
        report += write_subset(out, out / part, {"train": lists[part], **held_out})
    for name, found in lists.items():
        if len(found) < len(ids[name]):
            report.append(f"{folder / name}.txt: {len(ids[name]) - len(found)} of its clips are not cropped")
    return report


def make_entries(out: Path, corpus: Corpus, clips: Mapping[str, CorpusClip]) -> dict[str, Entry]:
    """Entries of the clips that are cropped (recorded, for corpora without video), by id."""
    entries = {}
    for row in recordings(clips) if corpus.audio_only else crops(out):
        if row[0] not in clips:
            continue  # cropped in an earlier run, with another choice of ids
        clip = clips[row[0]]
        labels = {**({SPEAKER: clip.speaker} if clip.speaker else {}), **clip.labels}
        entries[row[0]] = Entry(row[0], "\t".join(row), clip.transcript, clip.part, labels)
    if not entries:
        raise DataError(
            f"{out / 'clips.tsv'}: lists no clip of the corpus; give --corpus and --ids as to av-ssl crop"
        )
    return entries


def crops(out: Path) -> Iterator[Row]:
    folder = out.resolve()
    for name, video, audio, frames, samples in read_clips(out):
        yield name, str(folder / video), str(folder / audio), str(frames), str(samples)


def recordings(clips: Mapping[str, CorpusClip]) -> Iterator[Row]:
    """Rows of clips without video; frames are those that a video of this length would have."""
    for name, clip in clips.items():
        assert clip.source.sound is not None
        sound = clip.source.sound.resolve()
        samples = recorded_samples(sound)
        yield name, "", str(sound), str(samples // SAMPLES_PER_FRAME), str(samples)


def recorded_samples(path: Path) -> int:
    """Number of samples of a recording; DataError if it is not 16 kHz mono."""
    try:
        header = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path}: cannot be read as audio ({error}); replace or remove it") from error
    if (header.samplerate, header.channels) != (SAMPLE_RATE, 1):
        raise DataError(
            f"{path}: has {header.samplerate} Hz and {header.channels} channel(s); convert it: "
            "ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"
        )
    return int(header.frames)


def draw_labelled(train: Sequence[Entry], count: int, seed: int) -> list[Entry]:
    """``count`` random clips with a transcript, in the order of the list."""
    labelled = [entry for entry in train if entry.transcript]
    if len(labelled) < count:
        raise DataError(f"--labelled {count}: only {len(labelled)} training clips have a transcript")
    chosen = {entry.id for entry in random.Random(seed).sample(labelled, count)}
    return [entry for entry in labelled if entry.id in chosen]


def write_subset(out: Path, folder: Path, lists: Mapping[str, list[Entry]]) -> list[str]:
    """Write the lists of a part of the training clips, with the tokenizer of the whole."""
    report = write_lists(folder, lists)
    for name in TOKENIZER_FILES:
        if (out / name).is_file():
            write_atomically(folder / name, (out / name).read_bytes())
    return report


def write_lists(folder: Path, lists: Mapping[str, list[Entry]]) -> list[str]:
    """Write the lists of every split and the training clips' classes; returns a line for each split."""
    report = []
    for split, entries in lists.items():
        manifest = folder / f"{split}.tsv"
        fits = listed_ids(manifest) == [entry.id for entry in entries]
        write_lines(manifest, [ROOT, *(entry.line for entry in entries)])
        report.append(f"{manifest}: {len(entries)} clips, {transcribed(entries)}")
        report += write_column(folder / f"{split}.wrd", [entry.transcript for entry in entries], fits)
        for kind in CLASS_LABELS:
            values = [entry.labels.get(kind) for entry in entries]
            report += write_column(folder / f"{split}.{kind}", values, fits)
    for kind in CLASS_LABELS:
        names = [entry.labels.get(kind) for entry in lists["train"]]
        classes = sorted({name for name in names if name}) if all(names) else []
        report += write_column(folder / f"classes.{kind}.txt", classes, kept=not any(names))
    return report


def listed_ids(manifest: Path) -> list[str]:
    """Ids of the clips of a list that is there, unchecked."""
    if not manifest.is_file():
        return []
    lines = manifest.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split("\t")[0] for line in lines[1:]]


def write_column(path: Path, values: Sequence[str | None], kept: bool) -> list[str]:
    """Write a value a line where every clip has one; returns what became of a file that was there before.

    It may be the user's own work: where no clip has a value it is ``kept``, if it is for the same clips. Any
    other would not fit the list, and gets another name.
    """
    known = [value for value in values if value]
    if known and len(known) == len(values):
        write_lines(path, known)
        return []
    if not path.is_file():
        return []
    if kept and not known:
        return [f"{path}: is left as it was, since the corpus has nothing to write into it"]
    names = (path.with_name(f"{path.name}.old{number or ''}") for number in itertools.count())
    old = next(name for name in names if not name.exists())
    path.rename(old)
    return [f"{path}: is now {old.name}, since it may not fit these clips"]


def write_lines(path: Path, lines: Iterable[str]) -> None:
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def transcribed(entries: Sequence[Entry]) -> str:
    without = [entry.id for entry in entries if not entry.transcript]
    if len(without) == len(entries):
        return "no transcripts"
    if without:
        return (
            f"{len(without)} without transcript (e.g. {without[0]}), so there is no .wrd: write them, or use "
            "--labelled N"
        )
    return "all with transcripts"
