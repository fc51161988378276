"""Entry point of the `av-ssl` command."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from av_ssl.errors import DataError

# Name: module, one line of help. A module is imported only when its command is used, so that e.g. cropping
# needs no torch.
COMMANDS = {
    "crop": ("av_ssl.cli.crop", "crop the speaker's mouth out of every video of a folder"),
    "manifest": ("av_ssl.cli.manifest", "write the lists of training, validation and test clips"),
    "vocabulary": ("av_ssl.cli.vocabulary", "train the sentencepiece model and write the dictionary"),
    "pieces": ("av_ssl.cli.pieces", "write a text in the tokenizer's pieces, to train a language model on"),
    "musan": ("av_ssl.cli.musan", "make noise, music, babble and speech lists of the MUSAN corpus"),
    "noise": ("av_ssl.cli.noise", "make babble noise, or lists of your own noise recordings"),
    "targets": ("av_ssl.cli.targets", "cluster MFCC or a model's features to targets for pre-training"),
    "targets teacher": ("av_ssl.cli.targets_teacher", "dump and cluster what a speech model makes of clips"),
    "features": ("av_ssl.cli.features", "store what the layers of a model make of clips"),
    "probe": ("av_ssl.cli.probe", "say how well phones and visemes can be read off each layer"),
    "plot": ("av_ssl.cli.plot", "draw frames of layers, similarities of layers, error rates in noise"),
    "transcribe": ("av_ssl.cli.transcribe", "transcribe clips with a fine-tuned recogniser"),
    "pseudo-labels": (
        "av_ssl.cli.pseudo_labels",
        "filter transcripts, and join them with labelled clips for self-training",
    ),
    "classify": ("av_ssl.cli.classify", "say how well a classifier tells the classes of clips apart"),
    "trials": ("av_ssl.cli.trials", "draw a speaker verification list over the clips of a manifest"),
    "verify": ("av_ssl.cli.verify", "score a speaker verification list: equal error rate, minDCF"),
    "check": ("av_ssl.cli.check", "report every problem of a finished data folder"),
    "plan": ("av_ssl.cli.plan", "say what a recipe costs on a data folder: updates, hours, memory, disk"),
    "convert": ("av_ssl.cli.convert", "convert a model between fairseq's checkpoints and safetensors"),
    "average": ("av_ssl.cli.average", "average the weights of a run's last checkpoints"),
    "doctor": ("av_ssl.cli.doctor", "say what works on this machine"),
}
EXTRAS = {
    "av": "preprocess",
    "cv2": "preprocess",
    "tqdm": "preprocess",
    "sentencepiece": "preprocess",
    "matplotlib": "plot",
    "sklearn": "clusters",
}
INTERRUPTED = 130  # exit status of a command ended by Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit status: 0 done, 1 an error (on stderr), 2 wrong arguments."""
    words = list(sys.argv[1:] if argv is None else argv)
    if " ".join(words[:2]) in COMMANDS:
        words[:2] = [" ".join(words[:2])]
    name = words[0] if words and words[0] in COMMANDS else None
    try:
        module = importlib.import_module(COMMANDS[name][0]) if name else None
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(
            f"av-ssl {name}: {error.name} is not installed; pip install 'av_ssl[{EXTRAS[error.name]}]'",
            file=sys.stderr,
        )
        return 1
    parser = argparse.ArgumentParser(prog="av-ssl", description="Data preparation and tools of av_ssl.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, (_, text) in COMMANDS.items():
        subparser = commands.add_parser(command, help=text, description=text[0].upper() + text[1:] + ".")
        if module is not None and command == name:
            module.add_arguments(subparser)
    args = parser.parse_args(words)
    assert module is not None  # argparse has ended the program without a command
    try:
        return int(module.run(args))
    except DataError as error:
        print(f"av-ssl {name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"av-ssl {name}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
