"""The steps of an experiment: commands of ``commands.yaml``, what each comes after, and what it makes."""

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from corpora import REPOSITORY, Corpus
from methods import Column, Labels, Method, Methods, Training

HERE = Path(__file__).resolve().parent
COMMANDS = yaml.safe_load((HERE / "commands.yaml").read_text(encoding="utf-8"))
WIDTH = 110


@dataclass(frozen=True)
class Step:
    """A command that is run once.

    Args:
        name: of its shell file, its log and its rule in the Makefile.
        kind: of costs.
        command: program and arguments.
        after: the steps that make what it reads.
        result: what it makes; a killed step resumes from it.
        updates: of a training.
        recipe: of a training. Its digest is in the shell file: a step whose recipe changed runs again.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    after: "tuple[Step, ...]" = ()
    result: Path | None = None
    updates: int = 0
    recipe: Path | None = None

    def __str__(self) -> str:
        """What the commands of other steps take."""
        return str(self.result / "checkpoint_last.pt" if self.result and self.recipe else self.result)

    @property
    def script(self) -> str:
        """The shell file, in lines of at most ``WIDTH`` characters where its words allow it."""
        parts, lines = list[str](), [""]
        for word in map(shlex.quote, self.command):
            if parts and re.fullmatch(r"--[a-z-]+", parts[-1]) and not word.startswith("--"):
                parts[-1] += f" {word}"  # an option and its value
            else:
                parts.append(word)
        for part in parts:
            if lines[-1] and len(lines[-1]) + len(part) > WIDTH - 3:
                lines.append("   ")
            lines[-1] += f" {part}" if lines[-1] else part
        note = f"# {self.recipe.name} and what it inherits: {digest(self.recipe)}\n" if self.recipe else ""
        return note + " \\\n".join(lines) + "\n"

    def all_steps(self) -> "Iterator[Step]":
        """What it needs, first to last, and itself; some may come more than once."""
        for step in self.after:
            yield from step.all_steps()
        yield self


@lru_cache
def digest(recipe: Path) -> str:
    """Of a YAML file and those of its ``defaults``."""
    text = recipe.read_text(encoding="utf-8")
    parts = [recipe.with_name(f"{name}.yaml") for name in yaml.safe_load(text).get("defaults", [])]
    return hashlib.sha256("\0".join([text, *(part.read_text() for part in parts)]).encode()).hexdigest()[:16]


class Steps:
    """The steps of all methods on one corpus with one seed.

    Args:
        seed: of initialisation, batches, masks, noise in training and clusters; not of the corpus.
    """

    def __init__(self, methods: Methods, corpus: Corpus, seed: int) -> None:
        self.methods, self.corpus, self.seed = methods, corpus, seed
        self.data, self.folder = corpus.out / "data", corpus.out / f"seed_{seed}"
        self.noise, self.labelled = self.data / "noise", self.data / f"labelled_{corpus.labelled}"
        self.prepared: tuple[Step, ...] = ()
        for name, command in corpus.prepare.items():
            self.prepared = (Step(name, "data", tuple(command), self.prepared),)

    def step(
        self,
        command: str,
        name: str,
        result: Path,
        *options: object,
        after: Sequence[Step] = (),
        kind: str = "score",
        updates: int = 0,
        recipe: Path | None = None,
        **values: object,
    ) -> Step:
        """A command of ``commands.yaml`` and more options.

        It comes after the data, the steps among its values, and ``after``.
        """
        corpus = self.corpus
        known = {"here": HERE, "plugin": REPOSITORY / "av_ssl", "recipes": corpus.recipes, "data": self.data}
        known |= {**corpus.sizes, "labelled": self.labelled, "device": corpus.device, "seed": self.seed}
        known |= {"result": result, "updates": updates, **values}
        words = [word.format(**known) for word in COMMANDS[command].split()]
        earlier = [value for value in values.values() if isinstance(value, Step)]
        return Step(
            name,
            kind,
            (*words, *map(str, options)),
            (*self.prepared, *earlier, *after),
            result,
            updates,
            recipe,
        )

    def named(self, name: str) -> str:
        """The name of a step that depends on the seed."""
        return f"seed_{self.seed}.{name}"

    # Data and targets.

    def long_clips(self, subset: str) -> Step:
        data, result = self.labelled, self.data / "long"
        return self.step("long", f"long_{subset}", result, kind="data", data=data, subset=subset)

    def shuffled(self) -> Step:
        return self.step("shuffled", "shuffled", self.corpus.out / "shuffled", kind="data")

    def trials(self, subset: str) -> Step:
        result = self.data / f"trials_{subset}.txt"
        return self.step("trials", f"trials_{subset}", result, kind="data", subset=subset)

    def clusters(self, labels: Labels) -> Step:
        options: tuple[object, ...] = ()
        after = []
        if labels.model:
            after = [self.training(labels.model)]
            options = ("--checkpoint", after[0], "--layer", labels.layer)
        name, result = self.named(f"labels_{labels.name}"), self.folder / "labels" / labels.name
        return self.step("labels", name, result, *options, after=after, kind="labels")

    def teacher_targets(self, teacher: str) -> Step:
        """Features of all clips by a speech model, and their clusters."""
        folder, name = self.folder / "teachers" / teacher, self.named(f"teacher_{teacher}")
        labels = self.clusters(self.methods.labels[self.methods.teachers[teacher].labels])
        trained = self.step("teacher", name, folder / "model", kind="teacher", labels=labels, model=teacher)
        name, result = f"{name}_targets", folder / "targets"
        return self.step("teacher_targets", name, result, kind="teacher targets", teacher=trained)

    def pseudo_labels(self, recogniser: str, keep: float) -> Step:
        """The labelled clips, and the most confident transcripts of the others."""
        training = self.methods.trainings[recogniser]
        tagged = self.tagged(training)
        folder, kind = self.folder / "pseudo_labels" / tagged, "pseudo-labels"
        model, name = self.training(recogniser), self.named(f"transcribe_{tagged}")
        transcripts = self.step(
            "transcribe", name, folder / "transcripts", kind=kind, recogniser=model, streams=training.streams
        )
        name, result = self.named(f"pseudo_labels_{tagged}"), folder / "data"
        return self.step("pseudo_labels", name, result, kind=kind, transcripts=transcripts, keep=keep)

    # Trainings.

    def training(self, name: str) -> Step:
        training, corpus = self.methods.trainings[name], self.corpus
        data, after, options = self.training_data(training)
        for key, start in training.start.items():
            after.append(self.training(start))
            options.append(f"{key}={after[-1]}")
        if training.streams:
            options.append(f"task.modalities={training.streams}")
        if not training.pretrained:
            options.append("+model.no_pretrained_weights=true")
        if training.noise:
            options += [f"+task.noise_wav={self.noise}", f"+task.noise_prob={training.noise}"]
        if training.rests:
            options += corpus.resting[training.streams]
        if training.kind == "training":
            options.append("dataset.disable_validation=true")
        return self.step(
            "train",
            self.named(self.tagged(training)),
            self.folder / "checkpoints" / self.tagged(training),
            *options,
            *training.overrides,
            after=after,
            kind=training.kind,
            updates=sum(corpus.updates[key] for key in training.updates or [training.recipe]),
            recipe=corpus.recipes / f"{training.recipe}.yaml",
            data=data,
            config=training.recipe,
        )

    def training_data(self, training: Training) -> tuple[object, list[Step], list[str]]:
        """The data folder, the steps that make it and the targets, and options that name the targets."""
        after, options = list[Step](), list[str]()
        data: object = self.labelled if training.data == "labelled" else self.data
        if training.data == "shuffled":
            data = self.shuffled()
            options.append(f"+task.label_dir={self.data}")
        if training.pseudo_labels:
            data = self.pseudo_labels(**training.pseudo_labels)
        if training.labels:
            labels = self.methods.labels[training.labels]
            after.append(self.clusters(labels))
            options += [f"+task.label_dir={after[-1]}", f"+task.label_rate={labels.rate}"]
        if training.teachers:
            after += map(self.teacher_targets, training.teachers)
            options.append(f"model.teachers=[{','.join(map(str, after))}]")
        return data, after, options

    def tagged(self, training: Training) -> str:
        """The name of a training, with the number of labelled clips where it is trained on these."""
        return f"{training.name}_{self.corpus.labelled}" if training.data == "labelled" else training.name

    # Scores.

    def scores(self, method: Method) -> dict[tuple[str, Column], Step]:
        """By subset and column."""
        columns = [(subset, column) for subset in self.corpus.subsets for column in method.columns]
        return {(subset, column): self.score(method, column, subset) for subset, column in columns}

    def score(self, method: Method, column: Column, subset: str) -> Step:
        budget = f"_{self.corpus.labelled}" if method.measure.name == "wer" else ""
        name = f"{method.name}_{column.key}_{subset}{budget}"
        result, model = self.folder / "results" / name, self.training(method.models[column.streams])
        options, values = list[object](), {"model": model, "subset": subset, "streams": column.streams}
        if method.measure.name == "wer":
            options += ["--cpu", *method.decoding] if self.corpus.device == "cpu" else method.decoding
            if column.snr:
                options += ["--noise-wav", self.noise, "--noise-prob", 1, f"--noise-snr={column.snr}"]
            values["data"] = self.long_clips(subset) if column.clips == "long" else self.labelled
        elif column.snr:
            options += ["--noise", f"{self.noise / subset}.tsv", "--snr", column.snr]
        if method.measure.name == "eer":
            values["pairs"] = self.trials(subset)
        if method.measure.name == "probe":
            untrained = ["--untrained", self.seed] if method.untrained else []
            features = f"features_{method.name}_{column.streams}_{subset}"
            folder, label = self.folder / features, self.named(features)
            values["features"] = self.step("features", label, folder, *untrained, **values)
            options += self.corpus.probes
        return self.step(method.measure.name, self.named(f"score_{name}"), result, *options, **values)
