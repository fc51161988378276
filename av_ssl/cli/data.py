"""``av-ssl data``: lists, vocabulary, noise, checks and pseudo-labels of a data folder."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from av_ssl.cli.arguments import (
    add_corpus_arguments,
    amount,
    chosen_clips,
    not_negative,
    positive,
    share,
    share_or_number,
)
from av_ssl.corpora import CORPORA, read_corpus
from av_ssl.corpora.corpus import Draw, capped, read_ids, require_known
from av_ssl.corpora.lists import write_data_folder, write_named_lists
from av_ssl.corpora.musan import find_recordings
from av_ssl.corpora.vocabulary import write_vocabulary
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar
from av_ssl.jobs import available_cores
from av_ssl.layout import DICTIONARY, TOKENIZER
from av_ssl.media.noise_files import make_babble_lists, make_musan_lists, make_own_lists

# Only pieces, check and pseudo-labels need torch: they import what uses it when they run.

DECIDED_BY_LISTS = ("valid", "test", "valid_ids", "labelled", "fold")
"""Options that a folder of lists stands in for."""

BABBLE_SECONDS = 10.0  # default length of a babble recording


def add_manifest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", type=Path, help="the folder that av-ssl crop was given")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder that av-ssl crop has filled")
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
        help="validation clips: those that FILE lists, one id a line",
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="of the random choices (default: 0)")
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
        "p1; crema_d p5-1 to p5-5; iemocap session-1 to session-5; may be repeated",
    )


def run_manifest(args: argparse.Namespace) -> int:
    """Write the lists and print what is in them."""
    corpus = CORPORA[args.corpus]
    if args.ids is not None and args.ids.is_dir():
        given = [name for name in DECIDED_BY_LISTS if getattr(args, name) not in (None, [])]
        if given:
            option = given[0].replace("_", "-")
            raise DataError(f"--{option}: {args.ids} is a folder of lists, which decide the splits; omit it")
        clips = read_corpus(args.corpus, args.source, skip=args.out)
        print("\n".join(write_named_lists(args.out, corpus, clips, args.ids)))
        return 0
    clips = chosen_clips(args)
    unknown = [name for name in args.fold if name not in corpus.folds]
    if unknown:
        names = ", ".join(corpus.folds) or "none"
        raise DataError(f"--fold {unknown[0]}: {corpus.title} has {names}")
    valid_ids = None
    if args.valid_ids is not None:
        valid_ids = read_ids(args.valid_ids, corpus, clips)
        require_known(args.valid_ids, valid_ids, clips)
    draw = capped(corpus.draw, clips)
    draw = Draw(
        draw.valid if args.valid is None else args.valid,
        draw.test if args.test is None else args.test,
        draw.by_speaker,
    )
    lines = write_data_folder(args.out, corpus, clips, draw, args.seed, valid_ids, args.labelled, args.fold)
    print("\n".join(lines))
    return 0


def add_vocabulary_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="folder with train.wrd (or labelled_N/train.wrd)"
    )
    parser.add_argument(
        "--size", type=positive, default=1000, help="pieces, the four special ones included (default: 1000)"
    )
    parser.add_argument(
        "--type",
        choices=("unigram", "word"),
        default="unigram",
        help="pieces of words; or every word of the text whatever --size says, for a closed vocabulary "
        "such as GRID's (default: unigram)",
    )


def run_vocabulary(args: argparse.Namespace) -> int:
    """Train the tokenizer and print its size."""
    pieces, text = write_vocabulary(args.out, args.size, args.type)
    print(f"{args.out / TOKENIZER}: {pieces} pieces from {text}")
    if args.type == "unigram" and pieces < args.size:
        print(f"  {args.size} were requested, but the text supports only {pieces}")
    return 0


def add_pieces_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help=f"folder with {TOKENIZER} and {DICTIONARY}")
    parser.add_argument("text", metavar="TEXT", type=Path, help="UTF-8 text, a sentence a line")
    parser.add_argument("out", metavar="OUT", type=Path, help="file for the pieces, a sentence a line")
    parser.add_argument("--tokenizer", type=Path, help=f"sentencepiece model (default: DATA/{TOKENIZER})")


def run_pieces(args: argparse.Namespace) -> int:
    """Tokenize a text and print how much of it the dictionary covers."""
    from av_ssl.data.text import TextEncoder, tokenize_file

    encoder = TextEncoder.load(args.data / DICTIONARY, args.tokenizer or args.data / TOKENIZER)
    count = tokenize_file(encoder, args.text, args.out)
    unknown = f"{count.unknown / count.pieces:.2%} of them unknown"
    print(f"{args.out}: {count.sentences} sentences, {count.pieces} pieces, {unknown}")
    return 0


def add_noise_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="folder with train.tsv; OUT/noise is written")
    parser.add_argument(
        "--babble-speakers", type=positive, default=6, help="voices in a recording (default: 6)"
    )
    parser.add_argument(
        "--number", type=positive, default=100, help="recordings, 80/10/10 over the lists (default: 100)"
    )
    parser.add_argument(
        "--minutes", type=amount, help="length of all recordings together (default: 10 s each)"
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="of the random choices (default: 0)")
    parser.add_argument(
        "--from",
        dest="folder",
        metavar="DIR",
        type=Path,
        help="list the recordings below DIR instead of babble",
    )


def run_noise(args: argparse.Namespace) -> int:
    """Write OUT/noise."""
    seconds = BABBLE_SECONDS if args.minutes is None else args.minutes * 60 / args.number
    with ProgressBar("recording") as bar:
        if args.folder:
            lists = make_own_lists(args.folder, args.out, args.seed, bar.update)
        else:
            lists = make_babble_lists(
                args.out, args.babble_speakers, args.number, seconds, args.seed, bar.update
            )
    _print_lists(args.out / "noise", lists)
    return 0


def add_musan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="MUSAN", type=Path, help="folder with music/, noise/ and speech/")
    parser.add_argument("out", metavar="OUT", type=Path, help="data folder; OUT/musan is written")
    parser.add_argument(
        "--babble-speakers", type=positive, default=30, help="voices in a babble recording (default: 30)"
    )
    parser.add_argument(
        "--babble-number", type=positive, default=10000, help="of recordings, 80/10/10 (default: 10000)"
    )
    parser.add_argument(
        "--speech-hours",
        type=amount,
        default=62.0,
        help="of clips of OUT/train.tsv as noise, 80/10/10 (default: 62; 0: none)",
    )
    parser.add_argument(
        "--lines",
        type=positive,
        default=20000,
        help="of each kind in all/train.tsv, a tenth of it in the others (default: 20000)",
    )
    parser.add_argument(
        "--workers", type=positive, default=available_cores(), help="processes (default: one a core)"
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="of the random choices (default: 0)")


def run_musan(args: argparse.Namespace) -> int:
    """Write OUT/musan."""
    recordings = find_recordings(args.source)
    with ProgressBar("recording") as bar:
        kinds = make_musan_lists(
            recordings,
            args.out,
            args.babble_speakers,
            args.babble_number,
            args.speech_hours,
            args.lines,
            args.seed,
            args.workers,
            bar.update,
        )
    for kind, lists in kinds.items():
        _print_lists(args.out / "musan" / kind, lists)
    return 0


def _print_lists(folder: Path, lists: Mapping[str, Sequence[Path]]) -> None:
    for split, paths in lists.items():
        print(f"{folder / split}.tsv: {len(paths)} recordings")


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="the folder that task.data will name")
    parser.add_argument("--label-dir", type=Path, help="folder with labels and dictionaries (default: DATA)")
    parser.add_argument("--noise", type=Path, help="folder with noise lists (default: DATA/noise if there)")
    parser.add_argument(
        "--image-crop-size", type=positive, default=88, help="as task.image_crop_size (default: 88)"
    )
    parser.add_argument("--lists-only", action="store_true", help="open no video and no recording")
    parser.add_argument(
        "--workers", type=positive, default=available_cores(), help="processes (default: one a core)"
    )


def run_check(args: argparse.Namespace) -> int:
    """Print every problem and a summary; 0 when there is none."""
    from av_ssl.data.check import check_folder

    with ProgressBar("file") as bar:
        remarks, problems = check_folder(
            args.data,
            args.label_dir or args.data,
            args.noise,
            None if args.lists_only else args.image_crop_size,
            args.workers,
            bar.update,
        )
    for line in [*problems, *remarks]:
        print(line)
    number = {0: "no problem", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
    print(f"{args.data}: {number}")
    return 1 if problems else 0


def add_pseudo_labels_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", type=Path, help="folder that was transcribed")
    parser.add_argument("hypotheses", metavar="HYPOTHESES", type=Path, help="--out of av-ssl transcribe")
    parser.add_argument("--subset", default="train", help="of DATA (default: train)")
    parser.add_argument(
        "--labelled",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="{train,valid,test}.tsv and .wrd, dict.wrd.txt, spm.model; its transcripts win over "
        "pseudo-labels, and its validation and test clips are not trained on",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, required=True, help="for training; new or empty"
    )
    parser.add_argument(
        "--tokenizer", metavar="FILE", type=Path, help="sentencepiece model (default: LABELLED/spm.model)"
    )
    parser.add_argument("--min-confidence", metavar="C", type=share, default=0.0, help="0 to 1 (default: 0)")
    parser.add_argument(
        "--keep",
        metavar="SHARE",
        type=share,
        default=1.0,
        help="of the clips that meet all other conditions, the most confident ones (default: 1, all)",
    )
    parser.add_argument(
        "--min-frames", metavar="N", type=positive, default=10, help="of a clip, 25 a second (default: 10)"
    )
    parser.add_argument("--max-frames", metavar="N", type=positive, default=600, help="(default: 600)")
    parser.add_argument(
        "--references",
        metavar="FILE",
        type=Path,
        help="true transcripts, only to measure errors (default: DATA/{subset}.wrd, if it exists)",
    )


def run_pseudo_labels(args: argparse.Namespace) -> int:
    """Write a folder of labelled and pseudo-labelled clips and print its numbers."""
    from av_ssl.transcription.pseudo_labels import REPORT, LabelledFolder, Rules, write_pseudo_labels

    manifest = args.data.absolute() / f"{args.subset}.tsv"
    beside = manifest.with_suffix(".wrd")
    numbers = write_pseudo_labels(
        manifest,
        args.hypotheses.absolute() / f"{args.subset}.hyp.tsv",
        LabelledFolder(args.labelled.absolute(), args.tokenizer and args.tokenizer.absolute()),
        args.out.absolute(),
        Rules(args.min_confidence, args.keep, args.min_frames, args.max_frames),
        args.references or (beside if beside.is_file() else None),
    )
    _print_numbers(args.out.absolute(), numbers)
    print(f"  report: {args.out.absolute() / REPORT}")
    return 0


def _print_numbers(out: Path, numbers: dict[str, Any]) -> None:
    real, pseudo = numbers["labelled"], numbers["pseudo_labelled"]
    print(
        f"{out}: {real['clips']} labelled clips ({real['hours']:.2f} hours) and {pseudo['clips']} "
        f"pseudo-labelled ({pseudo['hours']:.2f} hours)"
    )
    for reason, dropped in numbers["dropped"].items():
        print(f"  dropped {dropped['clips']} ({dropped['hours']:.2f} hours): {reason}")
    if rates := numbers.get("word_error_rate"):
        print(
            f"  word error rate: {_rate(rates['all'])} of all transcripts, {_rate(rates['kept'])} of the kept"
        )
        for decile in rates["deciles"]:
            print(
                f"    confidence {decile['confidence_from']:.3f} to {decile['confidence_to']:.3f}: "
                f"{_rate(decile)} of {decile['clips']} clips"
            )


def _rate(measured: dict[str, Any]) -> str:
    return "unknown" if measured["wer"] is None else f"{measured['wer']:.1f} %"
