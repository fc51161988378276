"""What is compared for LUPI: students of sound that a teacher of sound and video helps, or not.

Recipes are those of examples/lupi/conf/toy; a new method is one more entry here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SEGMENTED = ("+task.segment_frames=10", "+model.aggregate_dim=64")
"""The sequential setting: crops of 25 frames are cut into three segments, test clips into some five."""


@dataclass(frozen=True)
class Training:
    """One training.

    Args:
        name: of its checkpoint folder and log.
        recipe: YAML file of the folder of recipes, without suffix.
        overrides: for the command line; hydra wants a plus sign before keys that the YAML does not name.
        teacher: whose embeddings or soft labels are learned.
        student: whose encoder it goes on with.
        mispaired: on clips with the pictures of others.
        updates_of: recipes whose updates, added up, it has in place of its own.
    """

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    teacher: Training | None = None
    student: Training | None = None
    mispaired: bool = False
    updates_of: tuple[str, ...] = ()

    @property
    def earlier(self) -> tuple[Training, ...]:
        """Those whose checkpoints it reads."""
        return tuple(one for one in (self.teacher, self.student) if one is not None)

    @property
    def round(self) -> int:
        """Trainings of one round can run side by side, from 0."""
        return max((one.round + 1 for one in self.earlier), default=0)


@dataclass(frozen=True)
class LupiMethod:
    """A classifier: how it is trained, and what it is compared with.

    Args:
        name: on the command line, and of files.
        title: in tables.
        training: the last one, whose checkpoint is scored.
        baseline: None: nothing.
    """

    name: str
    title: str
    training: Training
    baseline: LupiMethod | None = None


@dataclass(frozen=True)
class Task:
    """What is recognised.

    Args:
        name: of folders.
        label: suffix of the label files.
        title: above its table.
        score: what the table shows, in words.
        pattern: regular expression that finds it in the output of `av-ssl`, in percent.
        higher_is_better: whether it is a rate of success, not of errors.
        methods: rows of the table, first to last.
    """

    name: str
    label: str
    title: str
    score: str
    pattern: str
    higher_is_better: bool
    methods: tuple[LupiMethod, ...]


def rows(common: tuple[str, ...], embedding: tuple[str, ...], with_header: bool) -> tuple[LupiMethod, ...]:
    """The methods of one task.

    Args:
        common: overrides of all trainings.
        embedding: overrides of those that learn embeddings.
        with_header: whether students of embeddings get a header, in a second stage.
    """
    audio = LupiMethod("audio_only", "audio only", Training("audio_only", "audio_only", common))
    students = ("student_embed", "student_head") if with_header else ("student_embed",)
    longer = Training("audio_only_longer", "audio_only", common, updates_of=students)
    teacher = Training("teacher", "teacher", common)
    sequential = Training("teacher_sequential", "teacher", (*common, *SEGMENTED))
    mispaired = Training("teacher_mispaired", "teacher", common, mispaired=True)

    def taught(
        name: str,
        title: str,
        by: Training,
        segments: tuple[str, ...] = (),
        streams: tuple[str, ...] = (),
    ) -> LupiMethod:
        overrides = (*common, *embedding, *segments, *streams)
        last = Training(f"{name}_embed", "student_embed", overrides, by, mispaired=by.mispaired)
        if with_header:
            last = Training(f"{name}_head", "student_head", (*common, *segments), student=last)
        return LupiMethod(name, title, last, audio)

    video = Training("teacher_video", "teacher", (*common, "+task.modalities=video"))
    soft = Training("soft_labels", "soft_labels", common, teacher)
    return (
        LupiMethod("teacher", "teacher: audio and video", teacher),
        LupiMethod("teacher_video", "video alone", video),
        audio,
        LupiMethod("audio_only_longer", "audio only, the updates of LUPI's students", longer, audio),
        LupiMethod("soft_labels", "soft labels", soft, audio),
        taught("embeddings", "LUPI: embeddings", teacher),
        taught("sequential", "LUPI: embeddings of segments and clips", sequential, SEGMENTED),
        taught("mispaired", "control: the teacher saw other clips", mispaired),
        taught("heard", "control: the teacher saw nothing", audio.training, (), ("+task.modalities=audio",)),
    )


EMOTION = Task(
    "emotion",
    "emo",
    "Emotions of unheard speakers",
    "unweighted average recall in %, five classes",
    r"unweighted average recall ([0-9.]+) %",
    True,
    rows((), (), with_header=True),
)
SPEAKER = Task(
    "speaker",
    "spk",
    "Verification of unheard speakers",
    "equal error rate in %",
    r"EER ([0-9.]+) %",
    False,
    rows(("+task.label=spk",), ("+criterion.distance=nmse", "+model.target_norm=none"), with_header=False),
)
TASKS = (EMOTION, SPEAKER)
NAMES = tuple(method.name for method in EMOTION.methods)


def all_trainings(methods: Iterable[LupiMethod]) -> list[Training]:
    """Every training that the methods need, once, in an order in which each finds its teacher and student."""

    def with_earlier(training: Training) -> list[Training]:
        return [*(one for before in training.earlier for one in with_earlier(before)), training]

    return list(dict.fromkeys(one for method in methods for one in with_earlier(method.training)))
