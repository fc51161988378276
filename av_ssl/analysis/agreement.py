"""Agreement of cluster labels with what is said and who speaks, as HuBERT has it (Hsu et al., 2021).

Labels for pre-training should tell phones or words, and should not tell speakers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.analysis.alignments import read_alignment
from av_ssl.analysis.features import Floats, frame_times
from av_ssl.data.labels import LabelFile
from av_ssl.errors import DataError
from av_ssl.manifest import Clip


def agreement(clusters: NDArray[np.int64], classes: NDArray[np.str_]) -> tuple[float, float, float]:
    """Agreement of the clusters ``[N]`` and classes ``[N]`` of frames.

    Returns:
        Purity: share of the frames whose class is the most frequent one of their cluster. Cluster purity:
        share whose cluster is the most frequent one of their class. Their mutual information as a share of
        the entropy of the classes: 1 if the cluster tells the class, 0 if it tells nothing or there is one
        class.
    """
    counts = np.zeros((clusters.max() + 1, len(set(classes.tolist()))))
    np.add.at(counts, (clusters, np.unique(classes, return_inverse=True)[1]), 1)
    joint = counts / len(clusters)
    of_cluster, of_class = joint.sum(1), joint.sum(0)
    entropy = _entropy(of_class)
    information = _entropy(of_cluster) + entropy - _entropy(joint.ravel())
    return joint.max(1).sum(), joint.max(0).sum(), information / entropy if entropy else 0.0


def _entropy(shares: Floats) -> float:
    shares = shares[shares > 0]
    return -float((shares * np.log(shares)).sum())


def agreement_table(path: Path, clips: Sequence[Clip], rate: float, alignments: Path) -> str:
    """A Markdown table of the agreement of a label file with phones or words, and with speakers.

    Args:
        path: ``{split}.km``, a line of cluster ids a clip.
        clips: of the split's manifest.
        rate: labels a second.
        alignments: folder with ``{id}.json`` or ``{id}.align``, see :mod:`av_ssl.analysis.alignments`. Clips
            without one are left out.

    Raises:
        DataError: no clip has an alignment, an alignment is malformed, or some have phones and others words.
    """
    file, clusters, labels, speakers = LabelFile(path, clips), [], [], []
    kinds, aligned = set[str](), 0
    for number, clip in enumerate(clips):
        if not any((alignments / f"{clip.id}{suffix}").exists() for suffix in (".json", ".align")):
            continue
        alignment, ids = read_alignment(alignments, clip.id), file.line(number).split()
        found = alignment.labels_at(frame_times(len(ids), rate))
        said = [(int(one), label) for one, label in zip(ids, found, strict=True) if label]
        clusters += [one for one, _ in said]
        labels += [label for _, label in said]
        speakers += [alignment.speaker or clip.id] * len(said)
        kinds.add(alignment.kind)
        aligned += 1
    if len(kinds) != 1 or not clusters:
        holds = "alignments of phones and of words" if len(kinds) > 1 else "no label of any of these clips"
        raise DataError(f"{alignments}: holds {holds}; needed is {{id}}.json or {{id}}.align")
    lines = [
        f"{path}: {len(clusters)} labels in which something is said, {aligned} of {len(clips)} clips",
        "",
        "| agreement with | classes | purity | cluster purity | normalised mutual information |",
        "|---|---|---|---|---|",
    ]
    for name, classes in ((kinds.pop(), labels), ("speaker", speakers)):
        values = " | ".join(f"{value:.3f}" for value in agreement(np.array(clusters), np.array(classes)))
        lines.append(f"| {name} | {len(set(classes))} | {values} |")
    return "\n".join(lines)
