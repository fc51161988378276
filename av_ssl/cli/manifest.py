"""`av-ssl manifest IN OUT`: clip lists and transcripts in AV-HuBERT's formats.

`SPLIT.tsv`: "/" on the first line, then id, video, audio, frames, samples, with tabs between. Paths are
absolute, since AV-HuBERT's own loader joins no root to the audio path.
`SPLIT.wrd`: the transcript of each clip, written only when every clip of the split has one.
`SPLIT.spk`, `SPLIT.emo`: speaker and emotion of each clip, of corpora that have them.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from av_ssl.cli.arguments import positive, share_or_number
from av_ssl.cli.corpus_options import add_corpus_arguments, chosen_clips
from av_ssl.cli.data_folder import SPLITS, TOKENIZER_FILES, labelled_folder
from av_ssl.corpora import CORPORA, CorpusClip
from av_ssl.corpora.corpus import Draw
from av_ssl.corpora.id_list import read_ids, require_known
from av_ssl.corpora.splits import assign_splits, capped
from av_ssl.errors import DataError
from av_ssl.media.crop_report import read_clips
from av_ssl.media.files import write_atomically

ROOT = "/"
SPEAKER = "spk"  # suffix of the file with the speaker of each clip
LABELS = (SPEAKER, "emo")


@dataclass(frozen=True)
class Entry:
    """A clip in a list."""

    name: str
    line: str  # of the tsv
    transcript: str | None
    part: str
    labels: Mapping[str, str] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="IN", type=Path, help="the folder that av-ssl crop was given")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder that av-ssl crop has filled")
    add_corpus_arguments(parser)
    drawn = "below 1 a share, else a number of clips (of speakers, for corpora divided by speaker)"
    parser.add_argument(
        "--valid",
        type=share_or_number,
        metavar="N",
        help=f"validation clips: {drawn}; folder: 0.05, lrs3: 1200",
    )
    parser.add_argument("--test", type=share_or_number, metavar="N", help="likewise for test clips")
    parser.add_argument(
        "--valid-ids",
        type=Path,
        metavar="FILE",
        help="validation clips are those that FILE lists, one id a line",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument(
        "--labelled",
        type=positive,
        metavar="N",
        help="also write OUT/labelled_N, whose training list is N transcribed clips",
    )


def run(args: argparse.Namespace) -> int:
    """Write the lists and say what is in them."""
    corpus = chosen_clips(args)
    entries = _entries(corpus, args.out)
    clips = {name: corpus[name] for name in entries}
    valid_ids = _valid_ids(args, corpus)
    splits = assign_splits(clips, _draw(args, clips), args.seed, valid_ids)
    lists = {split: [entries[name] for name in names] for split, names in splits.items()}
    _write_lists(args.out, lists)
    for folder, part in CORPORA[args.corpus].subsets.items():
        train = [entry for entry in lists["train"] if entry.part == part]
        if 0 < len(train) < len(lists["train"]):
            _write_subset(args.out, args.out / folder, {**lists, "train": train})
    if args.labelled:
        train = _draw_labelled(lists["train"], args.labelled, args.seed)
        _write_subset(args.out, labelled_folder(args.out, args.labelled), {**lists, "train": train})
    return 0


def _entries(corpus: Mapping[str, CorpusClip], out: Path) -> dict[str, Entry]:
    entries = {}
    folder = out.resolve()
    for name, video, audio, frames, samples in read_clips(out):
        if name not in corpus:
            continue  # cropped in an earlier run, with another --ids
        clip = corpus[name]
        line = "\t".join((name, str(folder / video), str(folder / audio), str(frames), str(samples)))
        labels = {**({SPEAKER: clip.speaker} if clip.speaker else {}), **clip.labels}
        entries[name] = Entry(name, line, clip.transcript, clip.part, labels)
    if not entries:
        raise DataError(
            f"{out / 'clips.tsv'}: lists no clip of the corpus; give --corpus and --ids as to av-ssl crop"
        )
    return entries


def _draw(args: argparse.Namespace, clips: Mapping[str, CorpusClip]) -> Draw:
    default = CORPORA[args.corpus].draw
    draw = capped(default, clips)
    valid = draw.valid if args.valid is None else args.valid
    return Draw(valid, draw.test if args.test is None else args.test, draw.by_speaker)


def _valid_ids(args: argparse.Namespace, corpus: Mapping[str, CorpusClip]) -> Mapping[str, int] | None:
    if args.valid_ids is None:
        return None
    ids = read_ids(args.valid_ids, CORPORA[args.corpus])
    require_known(args.valid_ids, ids, corpus)
    return ids


def _draw_labelled(train: Sequence[Entry], count: int, seed: int) -> list[Entry]:
    """`count` random clips with a transcript, in the order of the list."""
    labelled = [entry for entry in train if entry.transcript]
    if len(labelled) < count:
        raise DataError(f"--labelled {count}: only {len(labelled)} training clips have a transcript")
    chosen = {entry.name for entry in random.Random(seed).sample(labelled, count)}
    return [entry for entry in labelled if entry.name in chosen]


def _write_subset(out: Path, folder: Path, lists: Mapping[str, list[Entry]]) -> None:
    """Lists of a part of the training clips, with the tokenizer of the whole."""
    _write_lists(folder, lists)
    for name in TOKENIZER_FILES:
        if (out / name).is_file():
            write_atomically(folder / name, (out / name).read_bytes())


def _write_lists(folder: Path, lists: Mapping[str, list[Entry]]) -> None:
    for split in SPLITS:
        entries = lists[split]
        _write_lines(folder / f"{split}.tsv", [ROOT, *(entry.line for entry in entries)])
        _write_column(folder / f"{split}.wrd", [entry.transcript for entry in entries])
        for kind in LABELS:
            _write_column(folder / f"{split}.{kind}", [entry.labels.get(kind) for entry in entries])
        print(f"{folder / split}.tsv: {len(entries)} clips, {_labels(entries)}")


def _write_column(path: Path, values: Sequence[str | None]) -> None:
    known = [value for value in values if value]
    if values and len(known) == len(values):
        _write_lines(path, known)
    else:
        path.unlink(missing_ok=True)  # one of an earlier run would not fit the list


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _labels(entries: Sequence[Entry]) -> str:
    without = [entry.name for entry in entries if not entry.transcript]
    if len(without) == len(entries):
        return "no transcripts"
    if without:
        return f"{len(without)} without transcript (e.g. {without[0]}), so no .wrd"
    return "all with transcripts"
