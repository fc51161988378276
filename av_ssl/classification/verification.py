"""Speaker verification: trial lists, scores of embedding pairs, error rates.

A trial list has VoxCeleb's format: ``LABEL UTTERANCE UTTERANCE`` a line, label 1 for the same speaker.  A
trial's score is the cosine of two embeddings, optionally normalised against a cohort of other speakers.
"""

from __future__ import annotations

import hashlib
import json
import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av_ssl.data.labels import LabelFile
from av_ssl.errors import DataError
from av_ssl.io import atomic_file, read_text, zipped_arrays
from av_ssl.manifest import Clip, read_manifest
from av_ssl.media.sources import AUDIO_SUFFIXES, VIDEO_SUFFIXES

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
EmbeddingRows = NDArray[np.float32]
Embeddings = dict[str, NDArray[np.float32]]
"""Vectors ``[D]`` by clip id."""
Embed = Callable[[str, Sequence[Clip]], Embeddings]
"""Embeds clips; the first argument names them, e.g. in a file of kept embeddings."""

# -- trial lists ---------------------------------------------------------------------------------------------

PARTS = 3
"""Components of a path that identify an utterance of VoxCeleb: speaker, video, number."""
PUBLISHED = {
    "veri_test.txt": (18_860, 18_860),
    "veri_test2.txt": (18_802, 18_809),
    "list_test_all.txt": (290_743, 290_737),
    "list_test_hard.txt": (276_270, 276_266),
    "list_test_hard2.txt": (275_488, 275_406),
}
"""Target and non-target trials of VoxCeleb1's published lists (O, O cleaned, E, H, H cleaned)."""


@dataclass(frozen=True)
class TrialList:
    """P trials between ``utterances`` (keys): positions of both sides, and True for the same speaker."""

    utterances: list[str]
    first: Rows
    second: Rows
    targets: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.targets)

    def among(self, known: Collection[str]) -> TrialList:
        """The trials whose two utterances are in ``known``, and their utterances in alphabetical order."""
        there = np.array([key in known for key in self.utterances], np.bool_)
        kept = there[self.first] & there[self.second]
        first, second = self.first[kept], self.second[kept]
        used = sorted(np.union1d(first, second).tolist(), key=self.utterances.__getitem__)
        moved = np.zeros(len(self.utterances), np.int64)
        moved[used] = np.arange(len(used))
        names = [self.utterances[row] for row in used]
        return TrialList(names, moved[first], moved[second], self.targets[kept])


def utterance_key(name: str, parts: int = PARTS) -> str:
    """Key of an utterance, the same for a path in a trial list and an id in a manifest.

    It is the last components of the path, without suffix: speaker, video, number in VoxCeleb.

    >>> utterance_key("test/wav/id10270/5r0dWxy17C8/00001.wav")
    'id10270/5r0dWxy17C8/00001'
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.suffix.lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES:
        path = path.with_suffix("")
    return "/".join([part for part in path.parts if part != "/"][-parts:])


def key_parts(manifest: Path, clips: Sequence[Clip]) -> int:
    """Number of path components that distinguish the clips of a manifest: three, or as many as needed.

    Ids that differ only in their suffix, or not at all, are refused.
    """
    seen: dict[str, Clip] = {}
    for clip in clips:
        key = utterance_key(clip.id, len(clip.id))  # all components
        other = seen.setdefault(key, clip)
        if other is not clip:
            raise DataError(
                f"{manifest}: {other.id!r} on line {other.line} ({other.audio or other.video}) and "
                f"{clip.id!r} on line {clip.line} ({clip.audio or clip.video}) would both be {key!r} "
                "in a trial list; rename one"
            )
    parts = PARTS
    while len({utterance_key(key, parts) for key in seen}) < len(seen):
        parts += 1
    return parts


def read_trials(path: Path, parts: int = PARTS) -> TrialList:
    """Read a trial list, keeping the last ``parts`` components of each path.

    Raises:
        DataError: it is missing, empty, malformed, or named like a list of VoxCeleb1 of another length.
    """
    lines = read_text(path, "give a trial list, 'LABEL UTTERANCE UTTERANCE' a line").split("\n")
    positions: dict[str, int] = {}
    rows: list[tuple[int, int, bool]] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} is not a trial; write '1 UTTERANCE UTTERANCE' for the "
                "same speaker, 0 for two speakers"
            )
        first, second = (
            positions.setdefault(utterance_key(name, parts), len(positions)) for name in fields[1:]
        )
        rows.append((first, second, fields[0] == "1"))
    if not rows:
        raise DataError(f"{path}: has no trials; write 'LABEL UTTERANCE UTTERANCE' a line")
    first_side, second_side, targets = zip(*rows, strict=True)
    counts = sum(targets), len(targets) - sum(targets)
    published = PUBLISHED.get(path.name, counts)
    if counts != published:
        raise DataError(
            f"{path}: has {counts[0]} target and {counts[1]} non-target trials, VoxCeleb1's list of this "
            f"name {published[0]} and {published[1]}; download it again, or rename a list of your own"
        )
    return TrialList(
        list(positions), np.array(first_side), np.array(second_side), np.array(targets, np.bool_)
    )


Pair = tuple[str, str]


def draw_trials(speakers: Mapping[str, list[str]], number: int, seed: int) -> list[tuple[bool, str, str]]:
    """Draw pairs of one speaker (True) and as many of two speakers, in random order; ``number`` at most."""
    rng = random.Random(seed)
    half = number // 2
    same = draw_within(list(speakers.values()), half, rng)
    different = draw_across(speakers, min(half, len(same)) or half, rng)
    trials = [(True, a, b) for a, b in same] + [(False, a, b) for a, b in different]
    rng.shuffle(trials)
    return trials


def draw_within(speakers: Sequence[list[str]], count: int, rng: random.Random) -> list[Pair]:
    """Draw ``count`` pairs of utterances of one speaker, or all if there are no more.

    VoxCeleb2's training clips have 10^8 such pairs, so pairs are numbered and only drawn ones are made.
    """
    ends = list(accumulate(len(clips) * (len(clips) - 1) // 2 for clips in speakers))
    total = ends[-1] if ends else 0
    drawn = []
    for number in rng.sample(range(total), min(count, total)):
        speaker = bisect_right(ends, number)
        clips, rest = speakers[speaker], number - (ends[speaker - 1] if speaker else 0)
        first = 0
        while rest >= len(clips) - 1 - first:  # the pairs of this clip with later ones
            rest -= len(clips) - 1 - first
            first += 1
        drawn.append((clips[first], clips[first + 1 + rest]))
    return drawn


def draw_across(by_speaker: Mapping[str, list[str]], count: int, rng: random.Random) -> list[Pair]:
    """Draw up to ``count`` different pairs of utterances; all pairs of two speakers are equally likely."""
    speakers = sorted(by_speaker)
    found: dict[Pair, None] = {}
    for _ in range(10 * count if len(speakers) > 1 else 0):  # few clips have few pairs, which soon repeat
        first, second = rng.sample(speakers, 2)
        a, b = sorted((rng.choice(by_speaker[first]), rng.choice(by_speaker[second])))
        found[a, b] = None
        if len(found) == count:
            break
    return list(found)


# -- embeddings ----------------------------------------------------------------------------------------------


class EmbeddingCache:
    """Embeddings on disk, in ``NAME.HASH.npz`` files; the hash covers all that they depend on.

    Args:
        folder: created when needed.
        settings: what embeddings depend on besides the clips, such as the digest of the checkpoint.
        compute: embeds clips that are not in the cache.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], compute: Callable[[Sequence[Clip]], Embeddings]
    ) -> None:
        self.folder, self.settings, self.compute = folder, dict(settings), compute

    def __call__(self, name: str, clips: Sequence[Clip]) -> Embeddings:
        """Return the embeddings of the clips, from the file or computed and kept."""
        described = [
            f"{clip.id} {file_state(clip.audio)} {file_state(clip.video)} {clip.frames} {clip.samples}"
            for clip in clips
        ]
        key = hashlib.sha256(json.dumps([self.settings, described], sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{name}.{key[:16]}.npz"
        kept = read_embeddings(path)
        if kept is None:
            kept = self.compute(clips)
            with atomic_file(path) as file:
                np.savez(file, ids=np.array(list(kept)), embeddings=np.stack(list(kept.values())))
        return kept


def file_state(path: Path | None) -> str:
    """Path, bytes and time of the last change (ns) of a file, which may be recorded again."""
    if path is None:
        return "-"
    try:
        status = path.stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def read_embeddings(path: Path) -> Embeddings | None:
    """Read a file of the cache; None if it is missing or damaged."""
    try:
        arrays = zipped_arrays(path)
        return dict(zip(arrays["ids"].tolist(), arrays["embeddings"], strict=True))
    except (OSError, ValueError, KeyError):
        return None


def cohort_embeddings(manifest: Path, embed: Embed) -> EmbeddingRows:
    """Mean embedding of each speaker of a manifest, or without a ``.spk`` file the embedding of each clip."""
    clips = read_manifest(manifest)
    names = manifest.with_suffix(".spk")
    labels = LabelFile(names, clips) if names.is_file() else None
    speakers = [str(k) if labels is None else labels.line(k) for k in range(len(clips))]
    found, rows = np.unique(speakers, return_inverse=True)
    if len(found) < 2:
        raise DataError(
            f"--cohort {manifest}: has {len(found)} {'speaker' if labels else 'clip'}; score normalisation "
            "needs at least two"
        )
    by_id = embed(manifest.stem, clips)
    embeddings = np.stack([by_id[clip.id] for clip in clips])
    return np.stack([embeddings[rows == row].mean(0) for row in range(len(found))]) if labels else embeddings


# -- scores --------------------------------------------------------------------------------------------------

SMALLEST_NORM = 1e-6
SMALLEST_DEVIATION = 1e-6


def unit_length(embeddings: EmbeddingRows) -> EmbeddingRows:
    """Rows ``[N, D]`` divided by their norm."""
    norms = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.maximum(norms, SMALLEST_NORM)


def cosine_scores(embeddings: EmbeddingRows, first: Rows, second: Rows) -> Floats:
    """Cosines of the rows ``first [P]`` and ``second [P]`` of ``embeddings [N, D]``."""
    unit = unit_length(embeddings)
    return np.einsum("pd,pd->p", unit[first], unit[second], dtype=np.float64)


def adaptive_s_norm(
    scores: Floats,
    embeddings: EmbeddingRows,
    first: Rows,
    second: Rows,
    cohort: EmbeddingRows,
    top: int = 300,
) -> Floats:
    """Adaptive s-norm (Matějka et al., 2017): ``s' = ((s - m_1) / d_1 + (s - m_2) / d_2) / 2``.

    m and d are mean and deviation of the ``top`` highest cosines between a side and the cohort.

    Args:
        scores, first, second: ``[P]`` of the trials, and the rows of their two sides.
        embeddings: ``[N, D]`` of the utterances.
        cohort: ``[M, D]``, preferably one embedding a speaker, of speakers that are in no trial.
        top: 300 is our choice; values from 100 to 400 are in use.
    """
    if len(cohort) < 2:
        raise ValueError(f"the cohort has {len(cohort)} embeddings; score normalisation needs at least 2")
    used, positions = np.unique(np.concatenate([first, second]), return_inverse=True)
    nearest = min(top, len(cohort))
    unit_cohort = unit_length(cohort)
    statistics = np.empty((len(used), 2))
    for start in range(0, len(used), 1024):  # a large cohort must fit into memory
        rows = slice(start, start + 1024)
        cosines = unit_length(embeddings[used[rows]]) @ unit_cohort.T
        highest = np.partition(cosines, len(cohort) - nearest, axis=1)[:, -nearest:].astype(np.float64)
        statistics[rows] = np.stack([highest.mean(1), highest.std(1).clip(SMALLEST_DEVIATION)], axis=1)
    means, deviations = statistics[positions].T.reshape(2, 2, len(scores))
    return np.asarray(((scores - means) / deviations).mean(0), np.float64)


# -- error rates ---------------------------------------------------------------------------------------------


def error_curve(scores: ArrayLike, targets: ArrayLike) -> tuple[Floats, Floats]:
    """Compute both error rates at every threshold; equal scores are accepted together.

    Args:
        scores: ``[N]``, higher for the same speaker.
        targets: ``[N]``, True for the same speaker.

    Returns:
        Shares ``[Q]`` of target trials that are rejected and of non-target trials that are accepted, as the
        threshold falls, from "reject all trials" on.
    """
    score, target = np.asarray(scores, np.float64), np.asarray(targets, np.bool_)
    if score.shape != target.shape or score.ndim != 1:
        raise ValueError(f"{score.shape} scores for {target.shape} trials; give one for each")
    if not np.isfinite(score).all():
        raise DataError(f"{(~np.isfinite(score)).sum()} of {len(score)} scores are not finite")
    if target.all() or not target.any():
        raise DataError(
            f"{target.sum()} of {len(target)} trials are of one speaker; error rates need both kinds of trial"
        )
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # of equal scores
    accepted_targets = np.append(0, np.cumsum(target[order])[last])
    accepted_others = np.append(0, np.cumsum(~target[order])[last])
    return 1 - accepted_targets / target.sum(), accepted_others / (~target).sum()


def equal_error_rate(scores: ArrayLike, targets: ArrayLike) -> float:
    """Error rate where misses and false alarms are equally frequent, interpolated linearly.

    Other tools take the nearest point of the curve, which differs on short lists.

    >>> round(equal_error_rate([0.9, 0.8, 0.8, 0.4, 0.3], [1, 1, 0, 1, 0]), 6)
    0.4
    """
    misses, false_alarms = error_curve(scores, targets)
    difference = misses - false_alarms  # from 1 to -1
    after = int(np.argmax(difference <= 0))
    before = after - 1
    share = difference[before] / (difference[before] - difference[after])
    return float(false_alarms[before] + share * (false_alarms[after] - false_alarms[before]))


def minimum_detection_cost(scores: ArrayLike, targets: ArrayLike, target_prior: float = 0.01) -> float:
    """minDCF: lowest expected cost over all thresholds, divided by that of the better constant decision.

    Misses and false alarms cost the same.

    >>> round(minimum_detection_cost([0.9, 0.8, 0.8, 0.4, 0.3], [1, 1, 0, 1, 0]), 5)
    0.66667
    """
    if not 0 < target_prior < 1:
        raise ValueError(f"target_prior is {target_prior}; it is a probability between 0 and 1")
    misses, false_alarms = error_curve(scores, targets)
    cost = target_prior * misses + (1 - target_prior) * false_alarms
    return float(cost.min() / min(target_prior, 1 - target_prior))


def trial_report(scores: ArrayLike, targets: ArrayLike) -> str:
    """Format counts, EER in percent, and minDCF at target priors of 0.01 and 0.05."""
    target = np.asarray(targets, np.bool_)
    costs = [minimum_detection_cost(scores, targets, prior) for prior in (0.01, 0.05)]
    return (
        f"{len(target)} trials ({target.sum()} target, {(~target).sum()} non-target): "
        f"EER {100 * equal_error_rate(scores, targets):.3f} %, "
        f"minDCF(0.01) {costs[0]:.4f}, minDCF(0.05) {costs[1]:.4f}"
    )
