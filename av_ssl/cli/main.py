"""Entry point of the ``av-ssl`` command.

A command of ``COMMANDS``, say ``data pseudo-labels``, is two functions in the module of its first word,
``data``: ``add_pseudo_labels_arguments(parser)`` and ``run_pseudo_labels(args)``, which returns the exit
status.  Only the module of the command in use is imported, so that cropping, for example, needs no torch.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import select
import sys
from collections.abc import Callable, Sequence

from av_ssl import __version__
from av_ssl.errors import DataError

GROUPS = {
    "data": "prepare and check a data folder",
    "targets": "make targets for pre-training",
    "model": "convert and average checkpoints, plan a training",
    "analyse": "probe and plot features",
    "score": "evaluate classifiers and speaker verification",
}
COMMANDS = {
    "crop": "crop the speaker's mouth out of every video of a folder",
    "transcribe": "write what is said in recordings or clips, by a fine-tuned recogniser",
    "align": "find the times of the words of a known text in a recording",
    "demo": "recognise recordings on a page in the browser",
    "features": "store the outputs of a model's layers for clips",
    "options": "print the keys of a model, task, criterion, optimizer or section",
    "doctor": "report what works on this machine",
    "data manifest": "write the lists of training, validation and test clips",
    "data vocabulary": "train the tokenizer and write the dictionary",
    "data pieces": "tokenize a text to train a language model on",
    "data noise": "make babble noise, or lists of your own noise recordings",
    "data musan": "make noise, music, babble and speech lists of MUSAN",
    "data check": "report every problem of a finished data folder",
    "data pseudo-labels": "filter transcripts and join them with labelled clips",
    "targets clusters": "cluster MFCC or a model's features",
    "targets teacher": "store and cluster the features of a speech model",
    "model convert": "convert checkpoints: safetensors, a folder to share, ONNX",
    "model average": "average the weights of a run's last checkpoints",
    "model plan": "estimate updates, hours, memory and disk of a recipe",
    "analyse probe": "train linear probes for phones and visemes on each layer",
    "analyse embeddings": "compare the embeddings of LUPI's teacher and student",
    "analyse plot": "plot frames, similarity of layers, error rates in noise",
    "score classify": "report a classifier's accuracy and confusions",
    "score trials": "draw a speaker verification list from a manifest",
    "score verify": "score a verification list: equal error rate, minDCF",
}
OLD_SPELLINGS = {
    name.partition(" ")[2]: name for name in COMMANDS if " " in name and not name.startswith("targets ")
} | {"targets": "targets clusters"}
"""Spellings of version 0.1, which still work; they will go with version 0.3."""
EXTRAS = {
    "av": "preprocess",
    "cv2": "preprocess",
    "tqdm": "preprocess",
    "sentencepiece": "preprocess",
    "matplotlib": "plot",
    "sklearn": "clusters",
}
FAIRSEQ = ("fairseq", "hydra", "omegaconf")
FULL = (errno.ENOSPC, errno.EDQUOT)
INTERRUPTED = 130  # exit status of a command ended by Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after ``av-ssl``; None: those of the process.

    Returns:
        Exit status: 0 done, 1 an error (on stderr), 2 wrong arguments, 130 interrupted.
    """
    words = current_spelling(list(sys.argv[1:] if argv is None else argv))
    name = command_name(words)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a name or a terminal need not be UTF-8
    try:
        parser, run = build_parser(name)
        args = parser.parse_args(words)
        assert run is not None  # without a command, argparse has ended the program
        status = run(args)
        sys.stdout.flush()
        return status
    except ModuleNotFoundError as error:
        print(f"av-ssl {name}: error: {missing_package(error)}", file=sys.stderr)
        return 1
    except DataError as error:
        print(f"av-ssl {name}: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        if not reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        where = f"{error.filename or 'the output cannot be written'}: {error.strerror}"
        fix = "free space" if error.errno in FULL else "check the path"
        print(f"av-ssl {name}: error: {where}; {fix}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"av-ssl {name}: interrupted; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED


def current_spelling(words: list[str]) -> list[str]:
    """The words with an old spelling replaced, which prints the new one."""
    if not words or command_name(words) is not None or words[0] not in OLD_SPELLINGS:
        return words
    if words[0] in GROUPS and (len(words) == 1 or words[1].startswith("-")):  # `av-ssl targets --help`
        return words
    new = OLD_SPELLINGS[words[0]]
    print(f"av-ssl {words[0]}: is now spelled av-ssl {new}", file=sys.stderr)
    return [*new.split(), *words[1:]]


def command_name(words: Sequence[str]) -> str | None:
    """The command that the words begin with; None where they begin with none."""
    return next((name for name in COMMANDS if list(words[: 1 + name.count(" ")]) == name.split()), None)


def build_parser(
    name: str | None,
) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int] | None]:
    """The parser of all commands, with the arguments of the command ``name`` alone, and its function."""
    parser = argparse.ArgumentParser(
        prog="av-ssl",
        description="Audio-visual speech: prepare data, make targets, transcribe, analyse, evaluate.",
    )
    parser.add_argument("--version", action="version", version=f"av_ssl {__version__}")
    top = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    groups = {
        group: top.add_parser(group, help=text, description=f"{text[0].upper()}{text[1:]}.").add_subparsers(
            dest="subcommand", required=True, metavar="COMMAND"
        )
        for group, text in GROUPS.items()
    }
    run = None
    for command, text in COMMANDS.items():
        group, _, member = command.rpartition(" ")
        parent = groups[group] if group else top
        one = parent.add_parser(member, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if command == name:
            module = importlib.import_module(f"av_ssl.cli.{group or member}")
            function = member.replace("-", "_")
            getattr(module, f"add_{function}_arguments")(one)
            run = getattr(module, f"run_{function}")
    return parser, run


def reader_is_gone() -> bool:
    """Whether nobody reads stdout any more, as after ``| head``; a pipe of another kind may have broken."""
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), 0)  # errors are reported in any case
    return bool(stdout.poll(0))


def missing_package(error: ModuleNotFoundError) -> str:
    """How to install what cannot be imported; raises the error again for a module of another kind."""
    if error.name in FAIRSEQ:
        return f"{error.name} is not installed; run python -m av_ssl.compat.install_fairseq"
    if error.name not in EXTRAS:
        raise error
    return f"{error.name} is not installed; pip install 'av_ssl[{EXTRAS[error.name]}]'"
