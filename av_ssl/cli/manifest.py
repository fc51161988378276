"""`av-ssl manifest IN OUT`: clip lists and transcripts in AV-HuBERT's formats.

`SPLIT.tsv`: "/" on the first line, then id, video, audio, frames, samples, with tabs between. Paths are
absolute, since AV-HuBERT's own loader joins no root to the audio path.
`SPLIT.wrd`: the transcript of each clip, written only when every clip of the split has one.
`SPLIT.spk`, `SPLIT.emo`: speaker and emotion of each clip, of corpora that have them; the classes of the
training clips in `classes.spk.txt`, `classes.emo.txt`, one a line.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from av_ssl.cli.arguments import (
    SPEAKER,
    SPLITS,
    Entry,
    add_corpus_arguments,
    chosen_clips,
    fold_folder,
    labelled_folder,
    positive,
    share_or_number,
    write_lists,
    write_subset,
)
from av_ssl.corpora import CORPORA, CorpusClip
from av_ssl.corpora.corpus import Draw, Fold, assign_splits, capped, read_ids, require_known
from av_ssl.errors import DataError
from av_ssl.media.audio import SAMPLES_PER_FRAME, plain_wav_length
from av_ssl.media.crop_report import read_clips


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

    parser.add_argument(
        "--fold",
        metavar="NAME",
        action="append",
        default=[],
        help="also write OUT/fold_NAME, a published division by speaker: ravdess p6-1 to p6-6, p5-1 to p5-5, "
        "p1; crema_d p5-1 to p5-5; iemocap session-1 to session-5; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    """Write the lists and say what is in them."""
    corpus = chosen_clips(args)
    folds = {name: _fold(args.corpus, name) for name in args.fold}
    entries = _entries(args, corpus)
    clips = {name: corpus[name] for name in entries}
    valid_ids = _valid_ids(args, corpus)
    splits = assign_splits(clips, _draw(args, clips), args.seed, valid_ids)
    lists = {split: [entries[name] for name in names] for split, names in splits.items()}
    write_lists(args.out, lists)
    for folder, part in CORPORA[args.corpus].subsets.items():
        train = [entry for entry in lists["train"] if entry.part == part]
        if 0 < len(train) < len(lists["train"]):
            write_subset(args.out, args.out / folder, {**lists, "train": train})
    if args.labelled:
        train = _draw_labelled(lists["train"], args.labelled, args.seed)
        write_subset(args.out, labelled_folder(args.out, args.labelled), {**lists, "train": train})
    for name, fold in folds.items():
        parts = {
            split: [e for e in entries.values() if fold.split(clips[e.name]) == split] for split in SPLITS
        }
        write_subset(args.out, fold_folder(args.out, name), parts)
    return 0


def _fold(corpus: str, name: str) -> Fold:
    known = CORPORA[corpus].folds
    if name not in known:
        names = ", ".join(known) or "none"
        raise DataError(f"--fold {name}: {CORPORA[corpus].title} has {names}")
    return known[name]


def _entries(args: argparse.Namespace, corpus: Mapping[str, CorpusClip]) -> dict[str, Entry]:
    rows = _recordings(corpus) if CORPORA[args.corpus].audio_only else _crops(args.out)
    entries = {}
    for name, *columns in rows:
        if name not in corpus:
            continue  # cropped in an earlier run, with another --ids
        clip = corpus[name]
        labels = {**({SPEAKER: clip.speaker} if clip.speaker else {}), **clip.labels}
        entries[name] = Entry(name, "\t".join((name, *columns)), clip.transcript, clip.part, labels)
    if not entries:
        raise DataError(
            f"{args.out / 'clips.tsv'}: lists no clip of the corpus; "
            "give --corpus and --ids as to av-ssl crop"
        )
    return entries


def _crops(out: Path) -> Iterator[tuple[str, ...]]:
    """Columns of the clips that have been cropped."""
    folder = out.resolve()
    for name, video, audio, frames, samples in read_clips(out):
        yield name, str(folder / video), str(folder / audio), str(frames), str(samples)


def _recordings(corpus: Mapping[str, CorpusClip]) -> Iterator[tuple[str, ...]]:
    """Columns of clips without video: frames are those that one would have; lengths as the headers say."""
    for name, clip in corpus.items():
        assert clip.source.sound is not None
        sound = clip.source.sound.resolve()
        samples = plain_wav_length(sound)
        if samples is None:
            raise DataError(f"{sound}: is no wav file of 16 kHz, mono, 16 bits; get it again, or convert it")
        yield name, "", str(sound), str(samples // SAMPLES_PER_FRAME), str(samples)


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
