"""`av-ssl data pseudo-labels DATA HYPOTHESES`: a data folder of labelled and pseudo-labelled clips.

av-ssl transcribe asr.pt UNLABELLED --subset train --out HYPOTHESES
av-ssl data pseudo-labels UNLABELLED HYPOTHESES --labelled LABELLED --keep 0.8 --out BOTH
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from av_ssl.cli.arguments import positive
from av_ssl.transcription.pseudo_labels import REPORT, LabelledFolder, Rules, write_pseudo_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    rules = Rules()
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
    parser.add_argument(
        "--min-confidence", metavar="C", type=_share, default=rules.min_confidence, help="0 to 1 (default: 0)"
    )
    parser.add_argument(
        "--keep",
        metavar="SHARE",
        type=_share,
        default=rules.keep,
        help="of the clips that meet all other conditions, the most confident ones (default: 1, all)",
    )
    parser.add_argument(
        "--min-frames", metavar="N", type=positive, default=rules.min_frames,
        help=f"of a clip, 25 a second (default: {rules.min_frames})",
    )  # fmt: skip
    parser.add_argument(
        "--max-frames", metavar="N", type=positive, default=rules.max_frames,
        help=f"(default: {rules.max_frames})",
    )  # fmt: skip
    parser.add_argument(
        "--references",
        metavar="FILE",
        type=Path,
        help="true transcripts, only to measure errors (default: DATA/{subset}.wrd, if it exists)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder and print its numbers."""
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
    _print(args.out.absolute(), numbers)
    return 0


def _print(out: Path, numbers: dict[str, Any]) -> None:
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
    print(f"  report: {out / REPORT}")


def _rate(measured: dict[str, Any]) -> str:
    return "unknown" if measured["wer"] is None else f"{measured['wer']:.1f} %"


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {value:g}")
    return value
