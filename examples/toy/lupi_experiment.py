"""The jobs of the comparison for LUPI, and where they leave what they make."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conditions import NOISE_DB
from experiment import FINETUNING_NOISE, PLUGIN
from jobs import Job
from lupi_methods import LupiMethod, Task, Training, all_trainings
from toy_corpus import HERE, REPOSITORY

RECIPES = REPOSITORY / "examples" / "lupi" / "conf" / "toy"
SCORED = ("clean", "noisy")
"""Test clips as they are, or in noise."""


@dataclass(frozen=True)
class LupiSize:
    """How much of everything.

    Args:
        train, test: clips.
        speakers: of the training; a fifth as many others are in the test.
        updates: of a training, by recipe.
        trials: of verification.
    """

    train: int
    test: int
    speakers: int
    updates: dict[str, int]
    trials: int


# Audio alone does worse again with twice as many updates, a student of embeddings does better.
FULL = LupiSize(
    500,
    200,
    50,
    {"teacher": 150, "audio_only": 150, "soft_labels": 150, "student_embed": 300, "student_head": 100},
    trials=4000,
)
QUICK = LupiSize(20, 10, 10, dict.fromkeys(FULL.updates, 4), trials=40)


class EmotionCorpus:
    """Talking faces with emotions in ``out/corpus``, data in ``out/data`` and, with pictures of other clips,
    ``out/mispaired``.

    Args:
        seed: of faces, voices, and which pictures go where.
    """

    def __init__(self, out: Path, size: LupiSize, seed: int) -> None:
        self.size, self.seed = size, seed
        self.videos, self.data, self.mispaired = out / "corpus", out / "data", out / "mispaired"
        self.trials = out / "trials.txt"

    def making(self) -> Job:
        size = self.size
        options = f"--train {size.train} --valid 10 --test {size.test} --speakers {size.speakers} --emotions"
        options += f" --difficulty 0.25 --frame-size 128 --seed {self.seed} --workers 2"
        script = str(HERE / "make_corpus.py")
        return Job("corpus", (sys.executable, script, str(self.videos), *options.split()), own_progress=True)

    def preprocessing(self) -> Job:
        options = f"--region face --size 48 --stride 3 --vocab-type word --seed {self.seed} --workers 2"
        script = str(REPOSITORY / "preprocess" / "folder.sh")
        command = ("bash", script, str(self.videos), str(self.data), *options.split())
        return Job("preprocess", command, own_progress=True, after=(self.making(),))

    def mispairing(self) -> Job:
        command = (sys.executable, str(HERE / "mispair.py"), str(self.data), str(self.mispaired))
        command += ("--seed", str(self.seed))
        return Job("mispair", command, after=(self.preprocessing(),), folder=self.mispaired)

    def drawing_trials(self) -> Job:
        """Pairs of test clips."""
        command = ("av-ssl", "trials", str(self.data / "test.tsv"), str(self.trials))
        command += ("--number", str(self.size.trials), "--seed", str(self.seed))
        return Job("trials", command, after=(self.preprocessing(),))


class LupiExperiment:
    """Training and scoring with one seed.

    Args:
        out: receives checkpoints/ and hydra/.
        corpus: what is trained and tested on.
        task: what is recognised.
        seed: of initialisation, batches and noise in training.
    """

    def __init__(self, out: Path, corpus: EmotionCorpus, task: Task, seed: int) -> None:
        self.out, self.corpus, self.task, self.seed = out, corpus, task, seed

    def rounds(self, methods: Sequence[LupiMethod]) -> list[list[Job]]:
        """All trainings; those of one round may run side by side."""
        trainings = all_trainings(methods)
        last = max((one.round for one in trainings), default=-1)
        return [
            [self.training(one) for one in trainings if one.round == number] for number in range(last + 1)
        ]

    def jobs(self, method: LupiMethod) -> list[Job]:
        """Everything that leads to the scores of a method, and its scoring."""
        return [*(job for jobs in self.rounds([method]) for job in jobs), *self.scorings([method])]

    def training(self, training: Training) -> Job:
        corpus, name = self.corpus, f"{self.task.name}_{training.name}"
        folder = self.checkpoint(training).parent
        data = corpus.mispaired if training.mispaired else corpus.data
        updates = corpus.size.updates[training.recipe]
        command = ["fairseq-hydra-train", "--config-dir", str(RECIPES), "--config-name", training.recipe]
        command += [f"task.data={data}", f"common.user_dir={PLUGIN}", f"common.seed={self.seed}"]
        command += [f"optimization.max_update={updates}", f"checkpoint.save_dir={folder}"]
        command += ["dataset.disable_validation=true", f"hydra.run.dir={self.out / 'hydra' / name}"]
        command += [f"+task.noise_wav={corpus.data / 'noise'}", f"+task.noise_prob={FINETUNING_NOISE}"]
        if training.mispaired:
            command.append(f"+task.label_dir={corpus.data}")
        if training.teacher:
            command.append(f"model.teacher_path={self.checkpoint(training.teacher)}")
        if training.student:
            command.append(f"model.init_student_from={self.checkpoint(training.student)}")
        before = corpus.mispairing() if training.mispaired else corpus.preprocessing()
        return Job(
            f"train_{name}",
            (*command, *training.overrides),
            updates=updates,
            settings=tuple(RECIPES / f"{recipe}.yaml" for recipe in ("_common", training.recipe)),
            after=(before, *map(self.training, training.earlier)),
            folder=folder,
        )

    def scorings(self, methods: Sequence[LupiMethod]) -> list[Job]:
        return [self.scoring(method, clips) for method in methods for clips in SCORED]

    def scoring(self, method: LupiMethod, clips: str) -> Job:
        """On the test clips, as they are or in noise; the score is in the log."""
        corpus, after = self.corpus, [self.training(method.training)]
        program = "verify" if self.task.label == "spk" else "classify"
        command = ["av-ssl", program, str(self.checkpoint(method.training)), str(corpus.data / "test.tsv")]
        if program == "verify":
            command.append(str(corpus.trials))
            after.append(corpus.drawing_trials())
        else:
            command.append(str(corpus.data / f"test.{self.task.label}"))
        if clips == "noisy":
            command += ["--noise", str(corpus.data / "noise" / "test.tsv"), "--snr", str(NOISE_DB)]
        return Job(f"score_{self.task.name}_{method.name}_{clips}", tuple(command), after=tuple(after))

    def checkpoint(self, training: Training) -> Path:
        return self.out / "checkpoints" / f"{self.task.name}_{training.name}" / "checkpoint_last.pt"
