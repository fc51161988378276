"""The steps of an experiment: commands of ``commands.yaml``, what each comes after, and what it makes."""

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import yaml
from corpora import REPOSITORY, Corpus
from methods import Column, Methods, Row

HERE = Path(__file__).resolve().parent
UNTRAINED = 12  # updates: the fewest that every schedule takes
COMMANDS = yaml.safe_load((HERE / "commands.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Step:
    """A command that is run once."""

    name: str  # of its shell file, its log and its rule in the Makefile
    kind: str  # of costs
    command: tuple[str, ...]
    after: "tuple[Step, ...]" = ()  # make what it reads
    result: Path | None = None  # what it makes; a killed step resumes from it
    updates: int = 0  # of a training
    recipe: Path | None = (
        None  # of a training; its digest is in the shell file: if it changed, the step runs again
    )

    def __str__(self) -> str:
        """What the commands of other steps take."""
        return str(self.result / "checkpoint_last.pt" if self.result and self.recipe else self.result)

    @property
    def script(self) -> str:
        """The shell file: an option and its value a line."""
        parts = list[str]()
        for word in map(shlex.quote, self.command):
            if parts and (word.startswith("--") or not re.fullmatch(r"--[a-z-]+", parts[-1])):
                parts.append(word)
            else:
                parts[-1:] = [" ".join([*parts[-1:], word])]
        note = f"# {self.recipe.name} and what it inherits: {digest(self.recipe)}\n" if self.recipe else ""
        return note + " \\\n    ".join(parts) + "\n"

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
        self.noise, self.labels = self.data / "noise", corpus.labelled
        self.prepared: tuple[Step, ...] = ()
        for name, command in corpus.prepare.items():
            self.prepared = (Step(name, "data", command, self.prepared),)

    @property
    def labelled(self) -> Path:
        return self.data / f"labelled_{self.labels}"

    def step(
        self, command: str, name: str, result: str | Path, *options: object, kind: str = "",
        after: Sequence[Step] = (), updates: int = 0, recipe: Path | None = None, **values: object,
    ) -> Step:  # fmt: skip
        """A command of ``commands.yaml`` and more options; its name is the kind of cost.

        It comes after the data, ``after``, and the steps among its values and options.
        """
        corpus, result = self.corpus, self.folder / result
        name = f"seed_{self.seed}.{name}" if result.is_relative_to(self.folder) else name
        known = {"here": HERE, "plugin": REPOSITORY / "av_ssl", "recipes": corpus.recipes, "data": self.data}
        known |= {**corpus.sizes, "labelled": self.labelled, "device": corpus.device, "seed": self.seed}
        known |= {"label": corpus.label, "result": result, "updates": updates, **values}
        words = [word.format(**known) for word in COMMANDS[command].split()]
        words += map(str, options)
        earlier = [one for one in (*values.values(), *options) if isinstance(one, Step)]
        after = (*self.prepared, *earlier, *after)
        return Step(name, kind or command, tuple(words), after, result, updates, recipe)

    def long_clips(self, subset: str) -> Step:
        name = f"long_{subset}_{self.labels}"
        return self.step("long", name, self.data / name, data=self.labelled, subset=subset)

    def shuffled(self, name: str, data: Path) -> Step:
        return self.step("shuffled", name, self.corpus.out / name, data=data)

    def partly_labelled(self) -> Step:
        name = f"partly_labelled_{self.labels}"
        return self.step("partly_labelled", name, self.corpus.out / name)

    def clusters(self, name: str) -> Step:
        labels, options = self.methods.labels[name], ()
        if labels.model:
            options = ("--checkpoint", self.training(labels.model), "--layer", labels.layer)
        return self.step("labels", f"labels_{name}", f"labels/{name}", *options)

    def teacher_targets(self, teacher: str) -> Step:
        """Features of all clips by a speech model, and their clusters."""
        row, folder = self.methods.teachers[teacher], f"teachers/{teacher}"
        model: object = self.corpus.speech_model
        if row.labels:
            labels = self.clusters(row.labels)
            model = self.step(
                "teacher", f"teacher_{teacher}", f"{folder}/model", labels=labels, model=teacher
            )
        values = {"teacher": model, "layers": row.layers}
        name = f"teacher_{teacher}_targets"
        return self.step("teacher_targets", name, f"{folder}/targets", *row.options, **values)

    def pseudo_labels(self, recogniser: str, keep: float) -> Step:
        """The labelled clips, and the most confident transcripts of the others."""
        training, model = self.methods.trainings[recogniser], self.training(recogniser)
        name, values = self.tagged(training), {"recogniser": model, "streams": training.streams}
        folder = f"pseudo_labels/{name}"
        transcripts = self.step("transcribe", f"transcribe_{name}", f"{folder}/transcripts", **values)
        values = {"transcripts": transcripts, "keep": keep}
        return self.step("pseudo_labels", f"pseudo_labels_{name}_{keep}", f"{folder}/data_{keep}", **values)

    def training(self, name: str) -> Step:
        training, corpus = self.methods.trainings[name], self.corpus
        data, after, options = self.training_data(training)
        for key, start in training.start.items():
            after.append(self.training(start) if training.pretrained else self.untrained(start))
            options.append(f"{key}={after[-1]}")
        if training.streams:
            options.append(f"task.modalities={training.streams}")
        if not training.pretrained:
            options.append("+model.no_pretrained_weights=true")
        if training.noise:
            own = corpus.finetuning_noise if training.kind == "fine-tuning" else None
            share = training.noise if own is None else own
            options += [f"+task.noise_wav={self.noise}", f"+task.noise_prob={share}"]
        options += corpus.overrides.get(training.recipe, ())
        if training.rests:
            options += corpus.resting[training.streams]
        if training.kind == "training":
            options += [f"+task.label={corpus.label}", "dataset.disable_validation=true"]
            # An epoch of few labelled clips is an update or two: no new workers and no checkpoint for each.
            options += ["dataset.num_workers=0", "checkpoint.save_interval=50"]
        return self.step(
            "train",
            self.tagged(training),
            f"checkpoints/{self.tagged(training)}",
            *options,
            *training.overrides,
            after=after,
            kind=training.kind,
            updates=sum(corpus.updates[key] for key in training.updates or [training.recipe]),
            recipe=corpus.recipes / f"{training.recipe}.yaml",
            data=data,
            config=training.recipe,
        )

    def untrained(self, name: str) -> Step:
        """A checkpoint of the same configuration after few updates, for those who take no weights of it."""
        step = self.training(name)
        result = self.folder / f"checkpoints/{name}_untrained"
        short = f"optimization.max_update={UNTRAINED}"
        words = [short if word.startswith("optimization.max_update=") else word for word in step.command]
        words = [word.replace(str(step.result), str(result)) for word in words]
        return replace(
            step,
            name=f"{step.name}_untrained",
            kind="",
            command=tuple(words),
            result=result,
            updates=UNTRAINED,
        )

    def training_data(self, training: Row) -> tuple[object, list[Step], list[str]]:
        """The data folder, the steps that make it and the targets, and options that name the targets."""
        after, options = list[Step](), list[str]()
        data: object = self.labelled if training.data == "labelled" else self.data
        if training.data.startswith("shuffled"):
            own = self.labelled if training.data == "shuffled_labelled" else self.data
            data = self.shuffled(f"shuffled_{own.name}", own)
            options.append(f"+task.label_dir={own}")
        if training.data == "partly_labelled":
            data = self.partly_labelled()
        if training.pseudo_labels:
            data = self.pseudo_labels(**training.pseudo_labels)
        if training.labels:
            after.append(self.clusters(training.labels))
            rate = self.methods.labels[training.labels].rate
            options += [f"+task.label_dir={after[-1]}", f"+task.label_rate={rate}"]
        if training.teachers:
            after += map(self.teacher_targets, training.teachers)
            options.append(f"model.teachers=[{','.join(map(str, after))}]")
        return data, after, options

    def tagged(self, training: Row) -> str:
        """The name of a training, with the number of labelled clips if it depends on these."""
        few = training.data == "labelled" or training.kind == "training"
        return f"{training.name}_{self.labels}" if few else training.name

    def scores(self, method: Row) -> dict[tuple[str, Column], Step]:
        """By subset and column."""
        columns = [(subset, column) for subset in self.corpus.subsets for column in method.columns]
        return {(subset, column): self.score(method, column, subset) for subset, column in columns}

    def score(self, method: Row, column: Column, subset: str) -> Step:
        if column.labelled:
            of_column = copy(self)
            of_column.labels = column.labelled
            return of_column.score(method, column._replace(labelled=0), subset)
        measure, options = method.measure.name, list[object]()
        model = self.training(method.models[column.streams])
        values = {"model": model, "subset": subset, "streams": column.streams}
        if measure in ("recall", "embeddings"):  # all columns at once
            name = f"{method.name}_{subset}_{self.labels}"
            if measure == "recall":
                options += [one.snr or one.clips for one in method.columns]
            else:
                start = self.methods.trainings[method.models[column.streams]].start
                values["teacher"] = self.training(start["model.teacher_path"])
            return self.step(measure, f"score_{name}", f"results/{name}", *options, **values)
        name = f"{method.name}_{column.key}_{subset}"
        if measure == "wer":
            name += f"_{self.labels}"
            options += ["--cpu", *method.decoding] if self.corpus.device == "cpu" else method.decoding
            if column.snr:
                options += ["--noise-wav", self.noise, "--noise-prob", 1, f"--noise-snr={column.snr}"]
            values["data"] = self.long_clips(subset) if column.clips == "long" else self.labelled
        if measure == "probe":
            untrained = ["--untrained", self.seed] if method.untrained else []
            features = f"features_{method.name}_{column.streams}_{subset}"
            values["features"] = self.step("features", features, features, *untrained, **values)
            options += self.corpus.probes
        return self.step(measure, f"score_{name}", f"results/{name}", *options, **values)
