"""`av-ssl score`: accuracy of a classifier (`classify`), speaker verification (`trials`, `verify`)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from av_ssl.cli.arguments import at_least_two, check_paths, not_negative, positive
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar, digest, write_atomically
from av_ssl.manifest import Clip, read_manifest

if TYPE_CHECKING:
    from av_ssl.classification.verification import EmbeddingCache, Embeddings, TrialList
    from av_ssl.data.noise import NoiseMixer

# What imports torch is imported where it is needed: --help and a wrong path are then fast.

CLEAN = "clean"  # among the values of --snr
LEVEL = "0"  # dB, where --snr names none
TOP = 300  # of the cohort, where --top names no number
LARGEST_TABLE = 40  # classes up to which the confusion matrix is printed


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `classify` and `verify` share."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="of an av_classifier or a lupi_student"
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="the clips, e.g. DATA/test.tsv")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    parser.add_argument("--workers", type=positive, default=2, help="threads that read clips (default: 2)")
    parser.add_argument(
        "--noise", metavar="LIST", type=Path, help="add noise from the files that LIST names to every clip"
    )


def check_noise(args: argparse.Namespace) -> None:
    """Raise DataError for a level without noise: the scores would be taken for those of noise."""
    if args.snr is not None and args.noise is None:
        raise DataError("--snr: needs the noise itself; name --noise LIST")


def noise_of(noise: Path | None, snr: str) -> NoiseMixer | None:
    """The noise of `--noise`, the same for a clip in every run."""
    from av_ssl.data.noise import NoiseMixer, parse_snr

    return None if noise is None else NoiseMixer(noise, probability=1.0, snr=parse_snr(snr))


# -- classify ------------------------------------------------------------------------------------------------


def add_classify_arguments(parser: argparse.ArgumentParser) -> None:
    add_scoring_arguments(parser)
    parser.add_argument(
        "labels", metavar="LABELS", type=Path, help="one class name a line, e.g. DATA/test.emo"
    )
    parser.add_argument(
        "--snr",
        nargs="+",
        help="signal-to-noise ratio in dB; several are scored one after the other, clean is without noise "
        "(default with --noise: 0)",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write 'ID TRUTH FOUND', separated by tabs")


def run_classify(args: argparse.Namespace) -> int:
    """Classify clips; print accuracy, mean recall, F1 and the confusion matrix, for each noise level."""
    check_paths(args.checkpoint, args.manifest, args.labels)
    check_noise(args)
    levels: list[str] = args.snr or [LEVEL]
    if len(levels) > 1 and (args.noise is None or args.out is not None):
        raise DataError("--snr: several levels need --noise, and --out takes the results of one: name one")
    for level in levels:
        title = f"{level}: " if level == CLEAN else f"{level}dB: "
        classify(args, level, title if len(levels) > 1 else "")
    return 0


def classify(args: argparse.Namespace, level: str, title: str) -> None:
    """Classify clips at one noise level, and print the scores after its title."""
    from av_ssl.classification.criterion import class_scores, confusion_matrix, confusion_table, score_line
    from av_ssl.data.classes import ClassList
    from av_ssl.inference import Classifier

    noise = noise_of(None if level == CLEAN else args.noise, level)
    classifier = Classifier.open(args.checkpoint, args.device, noise, args.workers)
    names = classifier.class_names
    if not names:
        raise DataError(f"{args.checkpoint}: holds no list of classes; it was trained without labels")
    classes = ClassList(names, str(args.checkpoint))
    clips = read_manifest(args.manifest)
    truth = classes.read(args.labels, clips, training=True)
    with ProgressBar("clip") as bar:
        logits = classifier.logits(clips, progress=bar.update)
    found = np.array([logits[clip.id].argmax() for clip in clips])
    confusion = confusion_matrix(truth, found, len(classes))
    print(f"{title}{score_line(class_scores(confusion), int(confusion.sum()))}")
    if len(classes) <= LARGEST_TABLE:
        print(confusion_table(confusion, names))
    if args.out is not None:
        shown = [*names, "?"]  # the last is that of -1, an unknown class
        rows = zip(clips, truth, found, strict=True)
        lines = [f"{clip.id}\t{shown[true]}\t{names[guess]}\n" for clip, true, guess in rows]
        write_atomically(args.out, "".join(lines).encode())


# -- trials --------------------------------------------------------------------------------------------------


def add_trials_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifest", metavar="MANIFEST", type=Path, help="e.g. DATA/test.tsv, with DATA/test.spk"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the list: 'LABEL UTTERANCE UTTERANCE' a line")
    parser.add_argument(
        "--number",
        type=at_least_two,
        default=10000,
        help="trials, half of them of one speaker; fewer if there are not so many (default: 10000)",
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="of the random choice (default: 0)")


def run_trials(args: argparse.Namespace) -> int:
    """Write a trial list over the clips of a manifest, e.g. of clips with video, and print its counts."""
    check_paths(args.manifest)
    from av_ssl.classification.verification import draw_trials, key_parts, utterance_key
    from av_ssl.data.labels import LabelFile

    clips = read_manifest(args.manifest)
    labels = LabelFile(args.manifest.with_suffix(".spk"), clips)
    parts = key_parts(args.manifest, clips)
    speakers: dict[str, list[str]] = {}
    for number, clip in enumerate(clips):
        speakers.setdefault(labels.line(number), []).append(utterance_key(clip.id, parts))
    trials = draw_trials(speakers, args.number, args.seed)
    targets = sum(target for target, *_ in trials)
    if targets in (0, len(trials)):
        raise DataError(
            f"{args.manifest}: {len(speakers)} speakers in {len(clips)} clips give {targets} pairs of one "
            f"and {len(trials) - targets} of two; a list needs both"
        )
    lines = [f"{int(target)} {a} {b}\n" for target, a, b in trials]
    write_atomically(args.out, "".join(lines).encode())
    others = len(trials) - targets
    print(f"{args.out}: {targets} target and {others} non-target trials, {len(speakers)} speakers")
    return 0


# -- verify --------------------------------------------------------------------------------------------------


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    add_scoring_arguments(parser)
    parser.add_argument("--snr", help="signal-to-noise ratio in dB (default with --noise: 0)")
    parser.add_argument(
        "trials", metavar="TRIALS", type=Path, help="list of 'LABEL UTTERANCE UTTERANCE', 1 for one speaker"
    )
    parser.add_argument(
        "--layer",
        choices=("auto", "encoder", "aggregator", "header"),
        default="auto",
        help="layer whose output is compared; auto: the aggregator if there is one, else the encoder",
    )
    parser.add_argument(
        "--cohort",
        metavar="MANIFEST",
        type=Path,
        help="also score with adaptive s-norm against the speakers of MANIFEST (from the .spk file next to "
        "it; without one, against its clips)",
    )
    parser.add_argument(
        "--top", type=at_least_two, help=f"nearest of the cohort (default with --cohort: {TOP})"
    )
    parser.add_argument(
        "--subtract-mean", action="store_true", help="subtract the cohort's mean embedding before scoring"
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="folder that keeps embeddings (default: embeddings next to CHECKPOINT)",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write 'UTTERANCE UTTERANCE SCORE LABEL'")
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave out trials whose clips are not in MANIFEST"
    )


def run_verify(args: argparse.Namespace) -> int:
    """Score a trial list by cosines of embeddings; print equal error rate and minDCF."""
    check_noise(args)
    for option, given in (("--subtract-mean", args.subtract_mean), ("--top", args.top is not None)):
        if given and args.cohort is None:
            raise DataError(f"{option}: is about a cohort; give one with --cohort")
    check_paths(args.checkpoint, args.manifest, args.trials, args.cohort)
    from av_ssl.classification.verification import (
        adaptive_s_norm,
        cohort_embeddings,
        cosine_scores,
        key_parts,
        read_trials,
        trial_report,
        utterance_key,
    )

    listed = read_manifest(args.manifest)
    parts = key_parts(args.manifest, listed)
    clips = {utterance_key(clip.id, parts): clip for clip in listed}
    trials = known_trials(args, read_trials(args.trials, parts), clips)
    embed = embedding_cache(args)
    by_id = embed(args.manifest.stem, [clips[key] for key in trials.utterances])
    embeddings = np.stack([by_id[clips[key].id] for key in trials.utterances])
    cohort = None if args.cohort is None else cohort_embeddings(args.cohort, embed)
    if args.subtract_mean and cohort is not None:
        mean = cohort.mean(0)
        embeddings, cohort = embeddings - mean, cohort - mean
    scores = cosine_scores(embeddings, trials.first, trials.second)
    print(f"cosine: {trial_report(scores, trials.targets)}")
    if cohort is not None:
        top = args.top or TOP
        scores = adaptive_s_norm(scores, embeddings, trials.first, trials.second, cohort, top)
        print(f"s-norm ({len(cohort)} in the cohort, top {top}): {trial_report(scores, trials.targets)}")
    if args.out is not None:
        used = trials.utterances
        rows = zip(trials.first, trials.second, scores, trials.targets, strict=True)
        lines = [f"{used[a]} {used[b]} {score:.6f} {int(target)}\n" for a, b, score, target in rows]
        write_atomically(args.out, "".join(lines).encode())
    return 0


def known_trials(args: argparse.Namespace, trials: TrialList, clips: Mapping[str, Clip]) -> TrialList:
    """Select the trials whose clips are in the manifest; others need `--allow-missing`."""
    kept = trials.among(clips)
    missing = [key for key in trials.utterances if key not in clips]
    if missing:
        share = f"{len(missing)} of its {len(trials.utterances)} utterances"
        text = f"{args.trials}: {share} are not in {args.manifest}"
        if not args.allow_missing:
            raise DataError(
                f"{text}, e.g. {', '.join(missing[:3])} (which has e.g. {next(iter(clips))}); add them, "
                "or leave out their trials with --allow-missing"
            )
        print(f"{text}: {len(trials) - len(kept)} of {len(trials)} trials are left out")
    if not len(kept):
        raise DataError(f"{args.trials}: no trial is left")
    targets = int(kept.targets.sum())
    if targets in (0, len(kept)):
        raise DataError(
            f"{args.trials}: {targets} of {len(kept)} trials are of one speaker; error rates need both kinds "
            "of trial"
        )
    return kept


def embedding_cache(args: argparse.Namespace) -> EmbeddingCache:
    """The cache of a checkpoint's embeddings; its model is read when a clip is not in the cache."""
    from av_ssl.checkpoints.files import model_file
    from av_ssl.classification.verification import EmbeddingCache
    from av_ssl.inference import Classifier

    def compute(clips: Sequence[Clip]) -> Embeddings:
        classifier = Classifier.open(
            args.checkpoint, args.device, noise_of(args.noise, args.snr or LEVEL), args.workers
        )
        with ProgressBar("clip") as bar:
            return classifier.embeddings(clips, args.layer, bar.update)

    settings = {
        "checkpoint": digest(model_file(args.checkpoint)),
        "layer": args.layer,
        "noise": [] if args.noise is None else [digest(args.noise), args.snr or LEVEL],
    }
    return EmbeddingCache(args.cache or args.checkpoint.parent / "embeddings", settings, compute)
