"""One pre-training: what it predicts, and what has to be made before it."""

from __future__ import annotations

from dataclasses import dataclass

MFCC_RATE = 100
MODEL_RATE = 25


@dataclass(frozen=True)
class Labels:
    """Cluster labels, made by `av-ssl targets`.

    Args:
        name: folder of the labels.
        stage: the training whose model is clustered; None: MFCC.
        layer: layer of its Transformer, from 1.
    """

    name: str
    stage: Stage | None = None
    layer: int = 0

    @property
    def rate(self) -> int:
        """Labels a second."""
        return MODEL_RATE if self.stage else MFCC_RATE


@dataclass(frozen=True)
class Teacher:
    """A speech model that is trained on the corpus's sound, and what it makes of the clips.

    Args:
        kind: of model, see speech_teacher.py.
        labels: that it is trained with.
    """

    kind: str
    labels: Labels


@dataclass(frozen=True)
class Stage:
    """One pre-training.

    Args:
        name: of its checkpoint folder and log.
        config: YAML file of conf/, without suffix.
        labels: what it predicts, if these are clusters.
        overrides: for the command line; hydra wants a plus sign before keys that the YAML does not name.
        noise: whether the student's audio is noisy at times.
        teachers: what it predicts, if these are outputs of speech models.
    """

    name: str
    config: str
    labels: Labels | None = None
    overrides: tuple[str, ...] = ()
    noise: bool = True
    teachers: tuple[Teacher, ...] = ()


def label_stages(stage: Stage) -> list[Stage]:
    """The trainings whose models the labels of a stage come from, first to last, without itself."""
    earlier = stage.labels.stage if stage.labels else None
    return [*label_stages(earlier), earlier] if earlier else []


def label_sets(stage: Stage) -> list[Labels]:
    """The labels that a stage, its :func:`label_stages` and its teachers need, first to last."""
    needed = [one.labels for one in [*label_stages(stage), stage]]
    return list(dict.fromkeys(one for one in (*needed, *(of.labels for of in stage.teachers)) if one))
