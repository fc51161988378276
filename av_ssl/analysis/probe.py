"""Linear probes: how well a linear classifier predicts labels of frames from features.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016 (arXiv 1610.01644).
Here: multinomial logistic regression, trained on frames of some speakers and tested on those of others; how
strongly it is regularised, and how many speakers are left out at a time, is our choice [ours].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from av_ssl.analysis.alignments import labelled_frames, shared_clips, titles
from av_ssl.analysis.features import FeatureFolder, Floats
from av_ssl.errors import DataError

INVERSE_REGULARISATION = 0.1
"""scikit-learn's C: factor of the summed log loss beside half the squared norm of the weights."""
ITERATIONS = 300
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ProbeScore:
    """What a probe got right.

    Attributes:
        accuracy: share of the frames of all folds.
        folds: the same in each fold.
        majority: share that always naming the most frequent class of the training frames gets right.
    """

    accuracy: float
    folds: tuple[float, ...]
    majority: float


def probe(
    features: Floats,
    labels: Sequence[str] | NDArray[np.str_],
    groups: Sequence[str] | NDArray[np.str_],
    folds: int = 4,
    seed: int = 0,
) -> ProbeScore:
    """Cross-validated accuracy of a linear probe.

    Args:
        features: `[N, C]`; each channel is standardised by the training frames.
        labels: class of each frame `[N]`.
        groups: speaker of each frame `[N]`: none is in training and in test.
        folds: parts that the groups are drawn into; each is tested on once, by a probe of the others.
        seed: of that draw.

    Raises:
        DataError: there are fewer groups than folds, less than two folds, or frames of one class only.
    """
    labels, features = np.asarray(labels), np.asarray(features, np.float64)
    right, chance, sizes = [], [], []
    for train, test in group_folds(groups, folds, seed):
        found = fitted_labels(features[train], labels[train], features[test])
        names, counts = np.unique(labels[train], return_counts=True)
        right.append(int((found == labels[test]).sum()))
        chance.append(int((labels[test] == names[counts.argmax()]).sum()))
        sizes.append(len(test))
    by_fold = tuple(hits / size for hits, size in zip(right, sizes, strict=True))
    return ProbeScore(sum(right) / sum(sizes), by_fold, sum(chance) / sum(sizes))


def group_folds(
    groups: Sequence[str] | NDArray[np.str_], folds: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """Rows to train on and to test on, for each fold; whole groups, in a drawn order, take turns."""
    names, of_row = np.unique(np.asarray(groups), return_inverse=True)
    if not 2 <= folds <= len(names):
        raise DataError(
            f"{folds} folds of {len(names)} speakers (or clips, where no speaker is known): take at least 2, "
            "and at most as many as there are speakers"
        )
    fold_of = np.random.default_rng(seed).permutation(len(names)) % folds
    for fold in range(folds):
        tested = fold_of[of_row] == fold
        yield np.flatnonzero(~tested), np.flatnonzero(tested)


def fitted_labels(x: Floats, labels: NDArray[np.str_], unseen: Floats) -> NDArray[np.str_]:
    """Labels of `unseen` `[M, C]` by a logistic regression of features `x` `[N, C]` and their labels."""
    if len(np.unique(labels)) < 2:
        raise DataError(f"all {len(labels)} training frames are of one class, {labels[0]}")
    regression = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=ITERATIONS, tol=1e-3)
    classifier = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is as good as it gets by then
        classifier.fit(x, labels)
    return np.asarray(classifier.predict(unseen))


def probe_folders(
    paths: Sequence[Path],
    alignments: Path,
    visemes: Mapping[str, tuple[str, ...]] | None = None,
    subset: Sequence[str] | None = None,
    folds: int = 4,
    frames: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, int, list[str]]:
    """Probe every layer of feature folders, on the clips that all of them have.

    Args:
        paths: folders of ``av-ssl features``.
        alignments: folder with ``{id}.json`` of each clip, see :mod:`av_ssl.analysis.alignments`.
        visemes: by phone; None: phones alone.
        subset: splits of the folders; None: all.
        folds: parts that the speakers are drawn into.
        frames: drawn at random; None: all.
        seed: of the draws.
        progress: called with the number of probes done and of all probes.

    Returns:
        Numbers of frames and clips, and a Markdown table of scores for each kind of label.
    """
    folders = [FeatureFolder(path, subset) for path in paths]
    clips = shared_clips(folders)
    scores: dict[str, dict[str, dict[int, ProbeScore]]] = {}
    done, total = 0, sum(len(folder.layers) for folder in folders) * (1 if visemes is None else 2)
    for name, folder in zip(titles(list(paths)), folders, strict=True):
        drawn = labelled_frames(folder, alignments, visemes, clips).drawn(frames, seed)
        for kind, labels in drawn.labels.items():
            for place, layer in enumerate(folder.layers):
                progress(done, total)
                score = probe(drawn.features[:, place], labels, drawn.speakers, folds, seed)
                scores.setdefault(kind, {}).setdefault(name, {})[layer] = score
                done += 1
    progress(done, total)
    tables = [probe_table(kind, len(set(drawn.labels[kind])), one) for kind, one in scores.items()]
    return len(drawn), len(clips), tables


def probe_table(kind: str, classes: int, scores: dict[str, dict[int, ProbeScore]]) -> str:
    """Markdown: a row a layer, a column a folder; a dash where a folder lacks the layer."""
    layers = sorted({layer for of_folder in scores.values() for layer in of_folder})
    majority = next(iter(next(iter(scores.values())).values())).majority
    lines = [f"| {kind} | " + " | ".join(scores) + " |", "|---|" + "---|" * len(scores)]
    for layer in layers:
        cells = [_cell(of_folder.get(layer)) for of_folder in scores.values()]
        lines.append(f"| layer {layer} | " + " | ".join(cells) + " |")
    lines.append(f"\n{classes} classes; always the most frequent one: {100 * majority:.1f}")
    return "\n".join(lines)


def _cell(score: ProbeScore | None) -> str:
    if score is None:
        return "-"
    low, high = min(score.folds), max(score.folds)
    return f"{100 * score.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
