"""Arguments that choose the clips of a corpus, shared by the commands that read it."""

from __future__ import annotations

import argparse
from pathlib import Path

from av_ssl.corpora import CORPORA, FOLDER, CorpusClip, read_corpus
from av_ssl.corpora.id_list import read_ids
from av_ssl.errors import DataError


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --corpus and --ids."""
    parser.add_argument(
        "--corpus",
        choices=sorted(CORPORA),
        default=FOLDER,
        help="what IN is; folder: any videos, ID.txt beside ID.mp4 is its transcript (default: folder)",
    )
    parser.add_argument(
        "--ids", metavar="FILE", type=Path, help="take only the clips that FILE lists, one id a line"
    )


def chosen_clips(args: argparse.Namespace) -> dict[str, CorpusClip]:
    """Clips of the corpus in `args.source` by id, without `args.out`; only those of --ids where given."""
    clips = read_corpus(args.corpus, args.source, skip=args.out)
    if args.ids is None:
        return clips
    ids = read_ids(args.ids, CORPORA[args.corpus])
    chosen = {name: clip for name, clip in clips.items() if name in ids}
    if not chosen:
        raise DataError(
            f"{args.ids}: none of its {len(ids)} ids (line 1: {next(iter(ids))}) is a clip of {args.source}, "
            f"which has e.g. {next(iter(clips))}; write the ids like that"
        )
    if len(chosen) < len(ids):
        print(f"{args.ids}: {len(ids) - len(chosen)} of {len(ids)} ids are not in {args.source}")
    return chosen
