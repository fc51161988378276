"""`av-ssl verify CHECKPOINT MANIFEST TRIALS`: equal error rate and minDCF of a speaker verification list.

The score of a trial is the cosine of the two clips' embeddings, with --cohort also its adaptive s-norm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.classification.classifier import EMBEDDING_LAYERS
from av_ssl.classification.verification import (
    ClipRunner,
    EmbeddingCache,
    TrialList,
    adaptive_s_norm,
    cosine_scores,
    key_parts,
    load_classifier,
    read_trials,
    state,
    trial_report,
    utterance_key,
)
from av_ssl.cli.arguments import at_least_two
from av_ssl.cli.classify import add_scoring_arguments, noise_of
from av_ssl.data.labels import LabelFile
from av_ssl.errors import DataError
from av_ssl.io import ProgressBar, digest, write_atomically
from av_ssl.layout import Clip, read_manifest

SHOWN = 3

Embeddings = dict[str, NDArray[np.float32]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_scoring_arguments(parser)
    parser.add_argument(
        "trials", metavar="TRIALS", type=Path, help="list of 'LABEL UTTERANCE UTTERANCE', 1 for one speaker"
    )
    parser.add_argument(
        "--layer",
        choices=EMBEDDING_LAYERS,
        default="auto",
        help="whose output is compared; auto: the aggregator's if there is one, else the encoder's",
    )
    parser.add_argument(
        "--cohort",
        metavar="MANIFEST",
        type=Path,
        help="also score with adaptive s-norm against the speakers of MANIFEST (by the .spk beside it; "
        "without one, against its clips)",
    )
    parser.add_argument("--top", type=at_least_two, default=300, help="nearest of the cohort (default: 300)")
    parser.add_argument(
        "--subtract-mean", action="store_true", help="subtract the cohort's mean embedding before scoring"
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="folder where embeddings are kept (default: embeddings beside CHECKPOINT)",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write 'UTTERANCE UTTERANCE SCORE LABEL'")
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave out trials whose clips are not in MANIFEST"
    )


def run(args: argparse.Namespace) -> int:
    """Embed what is not in the cache, score, report; 0 when done."""
    if args.subtract_mean and args.cohort is None:
        raise DataError("--subtract-mean: the mean is that of a cohort; name one with --cohort")
    listed = read_manifest(args.manifest)
    parts = key_parts(args.manifest, listed)
    clips = {utterance_key(clip.id, parts): clip for clip in listed}
    trials = _known_trials(args, read_trials(args.trials, parts), clips)
    embedder = _Embedder(args)
    used = sorted({trials.utterances[k] for k in {*trials.first.tolist(), *trials.second.tolist()}})
    by_id = embedder.embed(args.manifest.stem, [clips[key] for key in used])
    embeddings = np.stack([by_id[clips[key].id] for key in used])
    rows = {key: row for row, key in enumerate(used)}
    first, second = (
        np.array([rows[trials.utterances[k]] for k in side]) for side in (trials.first, trials.second)
    )
    cohort = None if args.cohort is None else _cohort(args.cohort, embedder)
    if args.subtract_mean and cohort is not None:
        mean = cohort.mean(0)
        embeddings, cohort = embeddings - mean, cohort - mean
    scores = cosine_scores(embeddings, first, second)
    print(f"cosine: {trial_report(scores, trials.targets)}")
    if cohort is not None:
        scores = adaptive_s_norm(scores, embeddings, first, second, cohort, args.top)
        print(f"s-norm ({len(cohort)} in the cohort, top {args.top}): {trial_report(scores, trials.targets)}")
    if args.out is not None:
        sides = zip(first, second, scores, trials.targets, strict=True)
        lines = [f"{used[a]} {used[b]} {score:.6f} {int(target)}\n" for a, b, score, target in sides]
        write_atomically(args.out, "".join(lines).encode())
    return 0


def _known_trials(args: argparse.Namespace, trials: TrialList, clips: dict[str, Clip]) -> TrialList:
    """The trials whose clips are in the manifest.

    Raises DataError when others are not to be left out, or those left are not of both kinds.
    """
    missing = [key for key in trials.utterances if key not in clips]
    if missing:
        trials = _without(args, trials, clips, missing)
    targets = int(trials.targets.sum())
    if targets in (0, len(trials)):
        raise DataError(
            f"{args.trials}: {targets} of {len(trials)} trials are of one speaker; error rates need both "
            "kinds of trial"
        )
    return trials


def _without(
    args: argparse.Namespace, trials: TrialList, clips: dict[str, Clip], missing: list[str]
) -> TrialList:
    text = (
        f"{args.trials}: {len(missing)} of its {len(trials.utterances)} utterances are not in {args.manifest}"
    )
    if not args.allow_missing:
        raise DataError(
            f"{text}, e.g. {', '.join(missing[:SHOWN])} (which has e.g. {next(iter(clips))}); add them, or "
            "leave their trials out with --allow-missing"
        )
    kept = trials.among(dict.fromkeys(clips, 0))
    print(f"{text}: {len(trials) - len(kept)} of {len(trials)} trials are left out")
    if not len(kept):
        raise DataError(f"{args.trials}: no trial is left")
    return kept


class _Embedder:
    """Embeds clips, the model loaded once and only if something is not in the cache."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.runner: ClipRunner | None = None
        settings = {
            "checkpoint": digest(args.checkpoint),
            "layer": args.layer,
            "noise": [] if args.noise is None else [digest(args.noise), args.snr],
        }
        self.cache = EmbeddingCache(args.cache or args.checkpoint.parent / "embeddings", settings)

    def embed(self, name: str, clips: list[Clip]) -> Embeddings:
        described = [
            f"{clip.id} {state(clip.audio)} {state(clip.video)} {clip.frames} {clip.samples}"
            for clip in clips
        ]
        return self.cache.get(name, described, lambda: self._compute(clips))

    def _compute(self, clips: list[Clip]) -> Embeddings:
        args = self.args
        if self.runner is None:
            model = load_classifier(args.checkpoint, args.device)
            self.runner = ClipRunner(model, noise_of(args), args.workers)
        with ProgressBar("clip") as bar:
            return self.runner.embeddings(clips, args.layer, bar.update)


def _cohort(manifest: Path, embedder: _Embedder) -> NDArray[np.float32]:
    """One embedding a speaker, the mean over their clips; one a clip where nobody says who speaks.

    Raises DataError when there is but one.
    """
    clips = read_manifest(manifest)
    names = manifest.with_suffix(".spk")
    of_clips = None if not names.is_file() else LabelFile(names, clips)
    speakers = [str(k) if of_clips is None else of_clips.line(k) for k in range(len(clips))]
    found, rows = np.unique(speakers, return_inverse=True)
    if len(found) < 2:
        raise DataError(
            f"--cohort {manifest}: has {len(found)} speaker{'' if of_clips else ' (clip)'}; scores are "
            "normalised by those of at least two"
        )
    by_id = embedder.embed(manifest.stem, clips)
    embeddings = np.stack([by_id[clip.id] for clip in clips])
    if of_clips is None:
        return embeddings
    return np.stack([embeddings[rows == k].mean(0) for k in range(len(found))])
