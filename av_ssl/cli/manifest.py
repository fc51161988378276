"""`av-ssl manifest IN OUT`: clip lists and transcripts in AV-HuBERT's formats.

`SPLIT.tsv`: the absolute folder OUT on the first line, then id, video, audio, frames, samples, with tabs
between.
`SPLIT.wrd`: the transcript of each clip, written only when every clip of the split has one.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from av_ssl.cli.arguments import fraction, positive
from av_ssl.cli.data_folder import SPLITS, TOKENIZER_FILES, labelled_folder
from av_ssl.cli.splits import assign_splits
from av_ssl.cli.transcripts import read_transcript
from av_ssl.errors import DataError
from av_ssl.media.crop_report import read_clips
from av_ssl.media.files import write_atomically


@dataclass(frozen=True)
class Entry:
    """A clip in a list."""

    name: str
    line: str  # of the tsv
    transcript: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source", metavar="IN", type=Path, help="folder with the videos; ID.txt beside a video is its text"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder that av-ssl crop has filled")
    parser.add_argument(
        "--valid", type=fraction, default=0.05, help="share of validation clips (default: 0.05)"
    )
    parser.add_argument("--test", type=fraction, default=0.05, help="share of test clips (default: 0.05)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
    parser.add_argument(
        "--labelled",
        type=positive,
        metavar="N",
        help="also write OUT/labelled_N, whose training list is N transcribed clips",
    )


def run(args: argparse.Namespace) -> int:
    """Write the lists and say what is in them."""
    if not args.source.is_dir():
        raise DataError(f"{args.source}: is not a folder; name the one that av-ssl crop was given")
    entries = _entries(args.source, args.out)
    splits = assign_splits(list(entries), {"valid": args.valid, "test": args.test}, args.seed)
    lists = {split: [entries[name] for name in names] for split, names in splits.items()}
    _write_lists(args.out, args.out, lists)
    if args.labelled:
        folder = labelled_folder(args.out, args.labelled)
        lists["train"] = _draw_labelled(lists["train"], args.labelled, args.seed)
        _write_lists(folder, args.out, lists)
        for name in TOKENIZER_FILES:
            if (args.out / name).is_file():
                write_atomically(folder / name, (args.out / name).read_bytes())
    return 0


def _entries(source: Path, out: Path) -> dict[str, Entry]:
    entries = {}
    for name, video, audio, frames, samples in read_clips(out):
        line = "\t".join((name, video, audio, str(frames), str(samples)))
        entries[name] = Entry(name, line, read_transcript(source / f"{name}.txt"))
    return entries


def _draw_labelled(train: Sequence[Entry], count: int, seed: int) -> list[Entry]:
    """`count` random clips with a transcript, in the order of the list."""
    labelled = [entry for entry in train if entry.transcript]
    if len(labelled) < count:
        raise DataError(f"--labelled {count}: only {len(labelled)} training clips have a transcript")
    chosen = {entry.name for entry in random.Random(seed).sample(labelled, count)}
    return [entry for entry in labelled if entry.name in chosen]


def _write_lists(folder: Path, root: Path, lists: dict[str, list[Entry]]) -> None:
    for split in SPLITS:
        entries = lists[split]
        lines = [str(root.resolve()), *(entry.line for entry in entries)]
        write_atomically(folder / f"{split}.tsv", ("\n".join(lines) + "\n").encode())
        transcripts = [entry.transcript for entry in entries if entry.transcript]
        words = folder / f"{split}.wrd"
        if entries and len(transcripts) == len(entries):
            write_atomically(words, ("\n".join(transcripts) + "\n").encode())
        else:
            words.unlink(missing_ok=True)  # one of an earlier run would not fit the list
        print(f"{folder / split}.tsv: {len(entries)} clips, {_labels(entries)}")


def _labels(entries: Sequence[Entry]) -> str:
    without = [entry.name for entry in entries if not entry.transcript]
    if len(without) == len(entries):
        return "no transcripts"
    if without:
        return f"{len(without)} without transcript (e.g. {without[0]}), so no .wrd"
    return "all with transcripts"
