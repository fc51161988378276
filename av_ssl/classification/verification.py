"""Equal error rate and detection cost of a speaker verification trial list.

Both are read off the same curve: trials are sorted by score, those with equal scores enter together, and
"reject everything" is its first point.  Other tools differ in the details (the nearest point in place of the
crossing, ties in the order of the list, a cost that is not normalised), which shows on short lists.

Scores of embedding pairs, and adaptive score normalisation against a cohort of other speakers.

Trial lists in VoxCeleb's format: `LABEL UTTERANCE UTTERANCE` a line, label 1 for the same speaker.

Embeddings on disk, so that the same clips are not embedded twice for two trial lists.

A trained classifier on all clips of a manifest: embeddings, or classes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from av_ssl.checkpoints.loading import load
from av_ssl.classification.classifier import AVClassifier
from av_ssl.data.classes import ClassificationDataset, Segmentation
from av_ssl.data.clip_reader import ClipReader, CropAndFlip
from av_ssl.data.noise import NoiseMixer
from av_ssl.errors import DataError
from av_ssl.io import atomic_file
from av_ssl.layout import Clip, with_lengths
from av_ssl.media.sources import AUDIO_SUFFIXES, VIDEO_SUFFIXES

Floats = NDArray[np.float64]


class ErrorCurve(NamedTuple):
    """Share of target trials rejected and of non-target trials accepted, `[P]` each, as the threshold
    falls."""

    misses: Floats
    false_alarms: Floats


def error_curve(scores: ArrayLike, targets: ArrayLike) -> ErrorCurve:
    """Both error rates at every threshold that the scores allow.

    Args:
        scores: `[N]`, higher for the same speaker.
        targets: `[N]`, true where both sides are one speaker.

    Raises ValueError when scores and targets differ in number, a score is no finite number, or one kind of
    trial is missing.
    """
    score, target = np.asarray(scores, np.float64), np.asarray(targets, np.bool_)
    if score.shape != target.shape or score.ndim != 1:
        raise ValueError(f"{score.shape} scores for {target.shape} trials; give one for each")
    if not np.isfinite(score).all():
        raise ValueError(f"{(~np.isfinite(score)).sum()} of {len(score)} scores are not finite")
    if target.all() or not target.any():
        raise ValueError(
            f"{target.sum()} of {len(target)} trials are of one speaker; error rates need both kinds of trial"
        )
    order = np.argsort(-score, kind="stable")
    # Equal scores are accepted together: the curve has a point behind the last of them.
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    accepted_targets = np.append(0, np.cumsum(target[order])[last])
    accepted_others = np.append(0, np.cumsum(~target[order])[last])
    return ErrorCurve(1 - accepted_targets / target.sum(), accepted_others / (~target).sum())


def equal_error_rate(scores: ArrayLike, targets: ArrayLike) -> float:
    """The error rate where misses and false alarms are equally frequent, interpolated linearly.

    Raises ValueError as `error_curve` does.

    >>> round(equal_error_rate([0.9, 0.8, 0.8, 0.4, 0.3], [1, 1, 0, 1, 0]), 6)
    0.4
    """
    misses, false_alarms = error_curve(scores, targets)
    difference = misses - false_alarms  # from 1 to -1
    after = int(np.argmax(difference <= 0))
    before = after - 1
    share = difference[before] / (difference[before] - difference[after])
    return float(false_alarms[before] + share * (false_alarms[after] - false_alarms[before]))


def minimum_detection_cost(
    scores: ArrayLike,
    targets: ArrayLike,
    target_prior: float = 0.01,
    miss_cost: float = 1.0,
    false_alarm_cost: float = 1.0,
) -> float:
    """minDCF: the lowest expected cost over all thresholds, divided by that of the better constant answer.

    Raises ValueError as `error_curve` does, or when the prior is not between 0 and 1.

    >>> round(minimum_detection_cost([0.9, 0.8, 0.8, 0.4, 0.3], [1, 1, 0, 1, 0]), 5)
    0.66667
    """
    if not 0 < target_prior < 1:
        raise ValueError(f"target_prior is {target_prior}; it is a probability between 0 and 1")
    misses, false_alarms = error_curve(scores, targets)
    reject_all, accept_all = miss_cost * target_prior, false_alarm_cost * (1 - target_prior)
    cost = reject_all * misses + accept_all * false_alarms
    return float(cost.min() / min(reject_all, accept_all))


def trial_report(scores: Sequence[float] | Floats, targets: Sequence[bool] | NDArray[np.bool_]) -> str:
    """What is reported of a list: counts, EER in percent, minDCF at target priors of 0.01 and 0.05."""
    target = np.asarray(targets, np.bool_)
    costs = [minimum_detection_cost(scores, targets, prior) for prior in (0.01, 0.05)]
    return (
        f"{len(target)} trials ({target.sum()} target, {(~target).sum()} non-target): "
        f"EER {100 * equal_error_rate(scores, targets):.3f} %, "
        f"minDCF(0.01) {costs[0]:.4f}, minDCF(0.05) {costs[1]:.4f}"
    )


EmbeddingRows = NDArray[np.float32]

SMALLEST_NORM = 1e-6
SMALLEST_DEVIATION = 1e-6


def unit_length(embeddings: EmbeddingRows) -> EmbeddingRows:
    """Rows `[N, D]` divided by their norm."""
    norms = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.maximum(norms, SMALLEST_NORM)


def cosine_scores(embeddings: EmbeddingRows, first: NDArray[np.int64], second: NDArray[np.int64]) -> Floats:
    """Cosine of the rows `first` `[P]` and `second` `[P]` of `embeddings` `[N, D]`."""
    unit = unit_length(embeddings)
    return np.einsum("pd,pd->p", unit[first], unit[second], dtype=np.float64)


def adaptive_s_norm(
    scores: Floats,
    embeddings: EmbeddingRows,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    cohort: EmbeddingRows,
    top: int = 300,
) -> Floats:
    """Adaptive s-norm (Matějka et al., 2017): each score as both sides see it against their nearest cohort.

    `s' = ((s - m_1) / d_1 + (s - m_2) / d_2) / 2`, m and d being mean and deviation of the `top` highest
    cosines between a side and the cohort.

    Args:
        scores: `[P]` of the trials.
        embeddings: `[N, D]` of the utterances.
        first, second: `[P]`, rows of the two sides.
        cohort: `[M, D]`, best one embedding a speaker, of speakers that are in no trial.
        top: 300 is our choice; values from 100 to 400 are in use.

    Raises ValueError when the cohort has fewer than two embeddings.
    """
    if len(cohort) < 2:
        raise ValueError(f"the cohort has {len(cohort)} embeddings; score normalisation needs at least 2")
    used, positions = np.unique(np.concatenate([first, second]), return_inverse=True)
    nearest = min(top, len(cohort))
    unit_cohort = unit_length(cohort)
    statistics = np.empty((len(used), 2))
    for start in range(0, len(used), 1024):  # so that a large cohort fits into memory
        rows = slice(start, start + 1024)
        cosines = unit_length(embeddings[used[rows]]) @ unit_cohort.T
        highest = np.partition(cosines, len(cohort) - nearest, axis=1)[:, -nearest:].astype(np.float64)
        statistics[rows] = np.stack([highest.mean(1), highest.std(1).clip(SMALLEST_DEVIATION)], axis=1)
    means, deviations = statistics[positions].T.reshape(2, 2, len(scores))
    return np.asarray(((scores - means) / deviations).mean(0), np.float64)


PARTS = 3
"""Components of a path that name an utterance of VoxCeleb: speaker, video, number.  Corpora whose last three
are not unique have more."""
PUBLISHED = {
    "veri_test.txt": (18_860, 18_860),
    "veri_test2.txt": (18_802, 18_809),
    "list_test_all.txt": (290_743, 290_737),
    "list_test_hard.txt": (276_270, 276_266),
    "list_test_hard2.txt": (275_488, 275_406),
}
"""Target and non-target trials of VoxCeleb1's lists as published (O, O cleaned, E, H, H cleaned)."""


@dataclass(frozen=True)
class TrialList:
    """Trials between `utterances` (their keys, see `utterance_key`)."""

    utterances: list[str]
    first: NDArray[np.int64]
    """`[P]`, position in `utterances`."""
    second: NDArray[np.int64]
    targets: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.targets)

    def among(self, known: Mapping[str, int]) -> TrialList:
        """The trials whose two utterances are keys of `known`; `utterances` stay as they are."""
        there = np.array([key in known for key in self.utterances], np.bool_)
        kept = there[self.first] & there[self.second]
        return TrialList(self.utterances, self.first[kept], self.second[kept], self.targets[kept])


def utterance_key(name: str, parts: int = PARTS) -> str:
    """What names an utterance in a trial list and in a manifest alike.

    The last components of a path, without suffix: speaker, video, number in VoxCeleb.

    >>> utterance_key("test/wav/id10270/5r0dWxy17C8/00001.wav")
    'id10270/5r0dWxy17C8/00001'
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.suffix.lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES:
        path = path.with_suffix("")
    return "/".join([part for part in path.parts if part != "/"][-parts:])


def key_parts(manifest: Path, clips: Sequence[Clip]) -> int:
    """How many components of their ids tell the clips of a manifest apart: three, or as many as it takes.

    Raises DataError, which names both, when two have one id but for suffixes.
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
    """Read a trial list; `parts` of each path are kept, see `key_parts`.

    Raises DataError naming the line when the file is missing or malformed, or when a list that goes by the
    name of one of VoxCeleb1's has not its number of trials.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); needed is a trial list, 'LABEL UTTERANCE UTTERANCE' a line"
        ) from error
    positions: dict[str, int] = {}
    rows: list[tuple[int, int, bool]] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} is no trial; needed is '1 UTTERANCE UTTERANCE' "
                "for the same speaker, 0 for two"
            )
        first, second = (
            positions.setdefault(utterance_key(name, parts), len(positions)) for name in fields[1:]
        )
        rows.append((first, second, fields[0] == "1"))
    if not rows:
        raise DataError(f"{path}: holds no trial; needed is 'LABEL UTTERANCE UTTERANCE' a line")
    first_side, second_side, targets = zip(*rows, strict=True)
    trials = TrialList(
        list(positions), np.array(first_side), np.array(second_side), np.array(targets, np.bool_)
    )
    _check_count(path, trials)
    return trials


def _check_count(path: Path, trials: TrialList) -> None:
    found = int(trials.targets.sum()), int((~trials.targets).sum())
    if PUBLISHED.get(path.name, found) != found:
        raise DataError(
            f"{path}: has {found[0]} target and {found[1]} non-target trials, VoxCeleb1's list of this name "
            f"{PUBLISHED[path.name][0]} and {PUBLISHED[path.name][1]}; get it again, or rename a list that "
            "is meant to be another"
        )


Embeddings = dict[str, NDArray[np.float32]]


class EmbeddingCache:
    """A folder of `NAME.HASH.npz` files; the hash is of all that the embeddings depend on.

    Args:
        folder: made when it is needed.
        settings: what they depend on besides the clips, such as the digest of the checkpoint.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, dict(settings)

    def get(self, name: str, clips: Sequence[str], compute: Callable[[], Embeddings]) -> Embeddings:
        """The embeddings of the clips (whatever identifies them) from the file, or computed and kept."""
        key = hashlib.sha256(json.dumps([self.settings, list(clips)], sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{name}.{key[:16]}.npz"
        kept = read_embeddings(path)
        if kept is None:
            kept = compute()
            write_embeddings(path, kept)
        return kept


def state(path: Path | None) -> str:
    """A file as it is now: path, bytes, time of its last change (ns); a recording may be made anew."""
    if path is None:
        return "-"
    try:
        status = path.stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def read_embeddings(path: Path) -> Embeddings | None:
    """What `write_embeddings` wrote; None when the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(zip(file["ids"].tolist(), file["embeddings"], strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write `ids` `[N]` and `embeddings` float32 `[N, D]`; raises MediaError when that cannot be done."""
    with atomic_file(path) as file:
        np.savez(file, ids=np.array(list(embeddings)), embeddings=np.stack(list(embeddings.values())))


BATCH_FRAMES = 4000
"""Frames of a batch (160 s), padding included; a longer clip is a batch of its own."""

Progress = Callable[[int, int], None]


def load_classifier(path: Path, device: str) -> AVClassifier:
    """Read a classifier or student, in eval mode.

    Raises DataError when the file holds none, or the machine lacks the device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DataError("--device cuda: torch finds no GPU here; take --device cpu")
    model = load(path)
    if not isinstance(model, AVClassifier):
        raise DataError(f"{path}: holds {type(model).__name__}; needed is an av_classifier or lupi_student")
    return model.to(device)


class ClipRunner:
    """Runs a classifier over whole clips, as it was trained to hear and see.

    Args:
        model: on its device.
        noise: added to the audio; None for none.
        workers: processes that read clips; 0 for this one.
    """

    def __init__(self, model: AVClassifier, noise: NoiseMixer | None = None, workers: int = 0) -> None:
        self.model, self.workers = model, workers
        cfg: dict[str, Any] = dict(model.task_cfg)
        self.reader = ClipReader(
            CropAndFlip(int(cfg["image_crop_size"])),
            modalities=model.encoder.streams,
            audio_input=str(cfg["audio_input"]),
            normalize=bool(cfg["normalize"]),
            noise=noise,
        )
        self.segmentation = Segmentation.of(int(cfg["segment_frames"]), int(cfg["segment_hop"]))
        self.device = next(model.parameters()).device

    def embeddings(
        self, clips: list[Clip], layer: str = "auto", progress: Progress = lambda done, total: None
    ) -> dict[str, NDArray[np.float32]]:
        """Embeddings `[D]` by clip id; see `AVClassifier.embed`.

        Raises DataError when a clip cannot be read or lacks a stream.
        """
        return self._by_clip(clips, lambda **net_input: self.model.embed(layer=layer, **net_input), progress)

    def predictions(
        self, clips: list[Clip], progress: Progress = lambda done, total: None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits `[C]` by clip id; raises DataError as `embeddings` does, or when the model has no header."""
        if self.model.header is None:
            raise DataError("this student has no header yet: train it with model.phase=head")
        return self._by_clip(clips, lambda **net_input: self.model(**net_input)["logits"], progress)

    def _by_clip(
        self, clips: list[Clip], compute: Callable[..., Tensor], progress: Progress
    ) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        progress(0, len(clips))
        for batch in self._batches(clips):
            with torch.inference_mode():
                rows = compute(**batch["net_input"]).float().cpu().numpy()
            found.update(zip(batch["utt_id"], rows, strict=True))
            progress(len(found), len(clips))
        missing = [clip for clip in clips if clip.id not in found]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(clips)} clips cannot be read, e.g. {missing[0].id} (line "
                f"{missing[0].line} of its manifest); mend or remove them"
            )
        return found

    def _batches(self, clips: list[Clip]) -> Iterator[dict[str, Any]]:
        dataset = ClassificationDataset(
            clips=with_lengths(clips),
            reader=self.reader,
            classes=None,
            segmentation=self.segmentation,
            train=False,
            shuffle=False,
        )
        loader: Iterable[dict[str, Any]] = DataLoader(
            dataset,
            batch_sampler=frame_batches(dataset),
            collate_fn=dataset.collater,
            num_workers=self.workers,
        )
        for batch in loader:
            if batch:
                yield {**batch, "net_input": moved(batch["net_input"], self.device)}


def frame_batches(dataset: ClassificationDataset) -> list[list[int]]:
    """Indices of clips, longest first, in batches of up to `BATCH_FRAMES`."""
    batches: list[list[int]] = []
    longest = 0
    for index in dataset.ordered_indices():
        if not batches or longest * (len(batches[-1]) + 1) > BATCH_FRAMES:
            batches.append([])
            longest = dataset.size(int(index))
        batches[-1].append(int(index))
    return batches


def moved(value: Any, device: torch.device) -> Any:
    """Tensors of nested dicts on the device."""
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
