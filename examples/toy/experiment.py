"""The jobs of an experiment on the toy corpus, and where they leave what they make."""

import sys
from collections.abc import Iterable
from pathlib import Path

from conditions import MODALITIES, NOISE_DB, Condition
from jobs import Job
from methods import Method, PseudoLabels, all_stages
from stages import Labels, Stage, Teacher
from toy_corpus import HERE, REPOSITORY, Corpus

PLUGIN = REPOSITORY / "av_ssl"
PRETRAINING_NOISE, FINETUNING_NOISE = 0.25, 0.5
"""Probability of babble in a training clip."""
TEACHER_LAYERS = "top:3"
"""That are averaged, of four; DistillAV averages eight of WavLM's."""


class Experiment:
    """Pre-training, fine-tuning and decoding with one seed.

    Args:
        out: receives checkpoints/, labels/, teachers/, results/ and hydra/.
        corpus: what is trained and tested on.
        seed: of initialisation, batches, masks, noise and clusters.
        threads: of a pre-training, and of a teacher's.
    """

    def __init__(self, out: Path, corpus: Corpus, seed: int, threads: int = 2) -> None:
        self.out, self.corpus, self.size, self.seed = out, corpus, corpus.size, seed
        self.threads = threads

    def pretraining_jobs(self, methods: Iterable[Method]) -> list[Job]:
        """All that comes before fine-tuning, in an order in which each job finds what it needs."""
        jobs: list[Job] = []
        for stage in all_stages(methods):
            jobs += [self.clustering(stage.labels)] if stage.labels else []
            for teacher in stage.teachers:
                jobs += [
                    self.clustering(teacher.labels),
                    self.teacher_training(teacher),
                    self.teaching(teacher),
                ]
            jobs.append(self.pretraining(stage))
        return list(dict.fromkeys(jobs))

    def finetuning_jobs(self, methods: Iterable[Method]) -> list[Job]:
        """All that lies between pre-training and decoding, each once."""
        return [job for jobs in self.finetuning_rounds(methods) for job in jobs]

    def finetuning_rounds(self, methods: Iterable[Method]) -> list[list[Job]]:
        """The same in rounds, the jobs of which may run side by side.

        First trainings, then transcription of clips without labels and the choice of those to be trained on,
        last trainings on these.
        """
        trained = list(dict.fromkeys(method.trained for method in methods))
        pseudo = list(dict.fromkeys(method.pseudo_labels for method in trained if method.pseudo_labels))
        plain = [method for method in trained if not method.pseudo_labels]
        first = [
            self.finetuning(method, modalities)
            for modalities in MODALITIES
            for method in plain
            if modalities in method.modalities
        ]
        first += [self.finetuning(labels.method, labels.modalities) for labels in pseudo]
        last = [
            self.finetuning(method, modalities)
            for method in trained
            if method.pseudo_labels
            for modalities in method.modalities
        ]
        rounds = [first, list(map(self.transcription, pseudo)), list(map(self.selection, pseudo)), last]
        return [list(dict.fromkeys(jobs)) for jobs in rounds if jobs]

    def decoding_jobs(self, methods: Iterable[Method]) -> list[Job]:
        return [self.decoding(method, each) for method in methods for each in method.conditions]

    def transcription(self, labels: PseudoLabels) -> Job:
        """Of all clips without labels."""
        checkpoint = self.checkpoint(f"{labels.method.name}_{labels.modalities}")
        folder = self.pseudo_label_folder(labels, "transcripts")
        command = ["av-ssl", "transcribe", str(checkpoint), str(self.corpus.data), "--subset", "train"]
        command += ["--out", str(folder), "--modalities", labels.modalities, "--beam", "8", "--device", "cpu"]
        after = (self.finetuning(labels.method, labels.modalities),)
        name = f"transcribe_{folder.parent.name}"
        return Job(name, tuple(command), threads=2, own_progress=True, after=after, folder=folder)

    def selection(self, labels: PseudoLabels) -> Job:
        """The labelled clips and the best of the others."""
        transcribed = self.transcription(labels)
        folder = self.pseudo_label_folder(labels, "data")
        command = ["av-ssl", "pseudo-labels", str(self.corpus.data), str(transcribed.folder)]
        command += ["--labelled", str(self.corpus.labelled), "--keep", str(labels.keep), "--out", str(folder)]
        name = f"pseudo_labels_{folder.parent.name}"
        return Job(name, tuple(command), after=(transcribed,), folder=folder)

    def pseudo_label_folder(self, labels: PseudoLabels, content: str) -> Path:
        return self.out / "pseudo_labels" / f"{labels.method.name}_{labels.modalities}" / content

    def clustering(self, labels: Labels) -> Job:
        folder = self.label_folder(labels)
        command = ["av-ssl", "targets", str(self.corpus.data), "--out", str(folder)]
        command += f"--clusters {self.size.clusters} --fit-share 1 --seed {self.seed}".split()
        command += ["--workers", "2", "--shards", "2"]
        after = [self.corpus.preprocessing()]
        if labels.stage:
            command += ["--checkpoint", str(self.checkpoint(labels.stage.name)), "--layer", str(labels.layer)]
            after.append(self.pretraining(labels.stage))
        name = f"labels_{labels.name}"
        return Job(name, tuple(command), own_progress=True, after=tuple(after), folder=folder)

    def teacher_training(self, teacher: Teacher) -> Job:
        labels = self.clustering(teacher.labels)
        folder = self.teacher_folder(teacher, "model")
        command = [sys.executable, str(HERE / "speech_teacher.py"), str(self.corpus.data), str(folder)]
        command += ["--kind", teacher.kind, "--labels", str(labels.folder)]
        command += ["--updates", str(self.size.teacher_updates), "--seed", str(self.seed)]
        name = f"teacher_{teacher.kind}"
        return Job(name, tuple(command), self.threads, own_progress=True, after=(labels,), folder=folder)

    def teaching(self, teacher: Teacher) -> Job:
        """What a teacher makes of the clips, and clusters of it."""
        training = self.teacher_training(teacher)
        folder = self.teacher_folder(teacher, "targets")
        command = ["av-ssl", "targets", "teacher", str(self.corpus.data), "--model", str(training.folder)]
        command += ["--out", str(folder), "--layers", TEACHER_LAYERS, "--clusters", str(self.size.clusters)]
        command += f"--seed {self.seed} --workers 2 --shards 2".split()
        name = f"teacher_{teacher.kind}_targets"
        return Job(name, tuple(command), own_progress=True, after=(training,), folder=folder)

    def teachers(self, stage: Stage) -> str:
        """An override that names the teachers of a stage."""
        folders = [str(self.teacher_folder(teacher, "targets")) for teacher in stage.teachers]
        return f"model.teachers=[{','.join(folders)}]"

    def pretraining(self, stage: Stage) -> Job:
        overrides = [*(self.noise(PRETRAINING_NOISE) if stage.noise else []), *stage.overrides]
        after = [self.corpus.preprocessing()]
        if stage.labels:
            overrides.append(f"+task.label_dir={self.label_folder(stage.labels)}")
            overrides.append(f"+task.label_rate={stage.labels.rate}")
            after.append(self.clustering(stage.labels))
        if stage.teachers:
            overrides.append(self.teachers(stage))
            after += [self.teaching(teacher) for teacher in stage.teachers]
        updates = self.size.pretrain_updates
        return self.training(
            stage.config, stage.name, self.corpus.data, updates, overrides, after, self.threads
        )

    def finetuning(self, method: Method, modalities: str) -> Job:
        overrides = [f"task.modalities={modalities}"]
        overrides.append(f"model.w2v_path={self.checkpoint(method.stage.name)}")
        if not method.pretrained:
            overrides.append("+model.no_pretrained_weights=true")
        if modalities != "video":
            overrides += self.noise(FINETUNING_NOISE)
        schedule = self.size.finetune[modalities]
        rests = method.pretrained and not method.whole_encoder
        if rests and schedule.frozen:
            overrides.append(f"+model.freeze_finetune_updates={schedule.frozen}")
        if rests and schedule.frozen_front_end:
            overrides.append("model.feature_grad_mult=0")
        overrides += method.finetuning
        if method.distilled:
            overrides.append(self.teachers(method.stage))
        name, after = f"{method.name}_{modalities}", [self.pretraining(method.stage)]
        data = self.corpus.labelled
        if method.pseudo_labels:
            data = self.pseudo_label_folder(method.pseudo_labels, "data")
            after.append(self.selection(method.pseudo_labels))
        return self.training(method.recipe, name, data, schedule.updates * method.longer, overrides, after)

    def training(
        self,
        config: str,
        name: str,
        data: Path,
        updates: int,
        overrides: list[str],
        after: list[Job],
        threads: int = 1,
    ) -> Job:
        folder = self.checkpoint(name).parent
        command = ["fairseq-hydra-train", "--config-dir", str(HERE / "conf"), "--config-name", config]
        command += [f"task.data={data}", f"common.user_dir={PLUGIN}", f"common.seed={self.seed}"]
        command += [f"optimization.max_update={updates}", f"checkpoint.save_dir={folder}"]
        command += [f"hydra.run.dir={self.out / 'hydra' / name}", *overrides]
        settings = (HERE / "conf" / f"{config}.yaml",)
        return Job(
            f"train_{name}",
            tuple(command),
            threads,
            updates,
            settings=settings,
            after=tuple(after),
            folder=folder,
        )

    def decoding(self, method: Method, condition: Condition) -> Job:
        modalities, clips = condition
        data = self.corpus.long if clips == "long" else self.corpus.labelled
        checkpoint = self.checkpoint(f"{method.trained.name}_{modalities}")
        command = ["fairseq-generate", str(data), "--user-dir", str(PLUGIN)]
        command += ["--task", "av_recognition", "--path", str(checkpoint)]
        command += ["--results-path", str(self.results(method, condition)), "--modalities", modalities]
        command += ["--gen-subset", "test", "--scoring", "wer", "--beam", "8", "--max-tokens", "4000"]
        command += ["--cpu", *method.decoding]
        if clips == "noisy":
            command += ["--noise-wav", str(self.corpus.noise), "--noise-prob", "1"]
            command += ["--noise-snr", str(NOISE_DB)]
        after = [self.finetuning(method.trained, modalities)]
        if clips == "long":
            after.append(self.corpus.lengthening())
        return Job(f"decode_{method.name}_{modalities}_{clips}", tuple(command), after=tuple(after))

    def noise(self, probability: float) -> list[str]:
        return [f"+task.noise_wav={self.corpus.noise}", f"+task.noise_prob={probability}"]

    def checkpoint(self, name: str) -> Path:
        return self.out / "checkpoints" / name / "checkpoint_last.pt"

    def label_folder(self, labels: Labels) -> Path:
        return self.out / "labels" / labels.name

    def teacher_folder(self, teacher: Teacher, content: str) -> Path:
        return self.out / "teachers" / teacher.kind / content

    def results(self, method: Method, condition: Condition) -> Path:
        """Folder of the hypotheses."""
        return self.out / "results" / "_".join((method.name, *condition))
