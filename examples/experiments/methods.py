"""Reads the table of methods, ``methods.yaml``: what is trained, from what, and how it is scored."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

FILE = Path(__file__).with_name("methods.yaml")
TASKS = {"video": "VSR", "audio": "ASR", "av": "AVSR"}
PRETRAINING_NOISE, TRAINING_NOISE = 0.25, 0.5
"""Share of the clips that get babble."""
Row = TypeVar("Row")


class Column(NamedTuple):
    """What a model is scored on: streams, empty where the model decides, and clips."""

    streams: str
    clips: str

    @property
    def key(self) -> str:
        """Name in files, for example ``audio_0dB``."""
        return "_".join(filter(None, self))

    @property
    def snr(self) -> str:
        """Signal-to-noise ratio in dB; empty without noise."""
        return self.clips.removesuffix("dB") if self.clips.endswith("dB") else ""

    @property
    def title(self) -> str:
        """Head of a column, for example ``ASR, 0 dB babble``."""
        if self == ("video", "clean"):
            return TASKS[self.streams]
        clips = f"{self.snr} dB babble" if self.snr else self.clips.replace("long", "twice as long")
        return ", ".join(filter(None, (TASKS.get(self.streams), clips)))


@dataclass(frozen=True)
class Measure:
    """A score: its title, a regular expression that finds it in a command's output, which way is better."""

    name: str
    title: str
    pattern: str
    higher_is_better: bool = False


@dataclass(frozen=True)
class Labels:
    """Cluster labels of a layer of a model, or of MFCC."""

    name: str
    model: str = ""
    layer: int = 0

    @property
    def rate(self) -> int:
        """Labels a second."""
        return 25 if self.model else 100


@dataclass(frozen=True)
class Teacher:
    """A speech model that is trained on the corpus."""

    name: str
    labels: str


@dataclass(frozen=True)
class Training:
    """One ``fairseq-hydra-train`` command; ``methods.yaml`` explains the keys."""

    name: str
    kind: str
    recipe: str
    overrides: list[str] = field(default_factory=list)
    updates: list[str] = field(default_factory=list)
    noise: float = 0.0
    start: dict[str, str] = field(default_factory=dict)
    labels: str = ""
    teachers: list[str] = field(default_factory=list)
    data: str = "all"
    # Of recognisers alone:
    streams: str = ""
    pretrained: bool = True
    rests: bool = False
    pseudo_labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A row of tables: the trainings that are scored, by streams, and how."""

    name: str
    title: str
    models: dict[str, str]
    columns: list[Column]
    measure: Measure
    baseline: str = ""
    untrained: bool = False
    decoding: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """A table of results; ``about`` stands below its title."""

    name: str
    title: str
    columns: list[Column]
    methods: list[str]
    about: str = ""


class MethodError(ValueError):
    """A row of ``methods.yaml`` has an unknown key, lacks one, or names something that is not there."""


class Methods:
    """The content of ``methods.yaml``, each section a dictionary by name."""

    def __init__(self, path: Path = FILE) -> None:
        self.path = path
        self._sections = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.columns = {
            name: [Column(*text.rpartition("_")[::2]) for text in texts]
            for name, texts in self._sections["columns"].items()
        }
        self.measures = self._rows("measures", Measure)
        self.labels = self._rows("labels", Labels)
        self.teachers = self._rows("teachers", Teacher)
        pretraining = {"kind": "pre-training", "noise": PRETRAINING_NOISE}
        classifier = {"kind": "training", "noise": TRAINING_NOISE}
        self.trainings = self._rows("pretrainings", Training, pretraining)
        self.trainings |= self._rows("classifiers", Training, classifier)
        self.methods = self._rows("recognisers", self._recogniser)
        self.methods |= self._rows("methods", self._scored)
        self.tables = self._rows("tables", self._table)
        self._check()

    def _rows(
        self, section: str, make: Callable[..., Row], default: dict[str, Any] | None = None
    ) -> dict[str, Row]:
        rows = {}
        for name, row in self._sections[section].items():
            try:
                rows[name] = make(**{"name": name, **(default or {}), **row})
            except (TypeError, KeyError) as error:
                raise MethodError(f"{self.path}: {section}.{name}: {error}") from error
        return rows

    def _recogniser(
        self,
        name: str,
        title: str,
        start: str,
        columns: str = "standard",
        baseline: str = "",
        decoding: tuple[str, ...] = (),
        times: int = 1,
        **keys: Any,
    ) -> Method:
        """Add a training for each kind of streams."""
        settings = {"recipe": "finetune", "rests": keys.get("pretrained", True), "data": "labelled", **keys}
        models = {}
        for streams in dict.fromkeys(column.streams for column in self.columns[columns]):
            models[streams] = f"{name}_{streams}"
            self.trainings[models[streams]] = Training(
                models[streams],
                "fine-tuning",
                updates=[f"finetune_{streams}"] * times,
                noise=0 if streams == "video" else TRAINING_NOISE,
                start={"model.w2v_path": start},
                streams=streams,
                **settings,
            )
        wer = self.measures["wer"]
        return Method(name, title, models, self.columns[columns], wer, baseline, decoding=[*decoding])

    def _scored(self, name: str, model: str, columns: str, measure: str = "wer", **keys: Any) -> Method:
        streams = [column.streams for column in self.columns[columns]]
        models = self.methods[model].models if model in self.methods else dict.fromkeys(streams, model)
        return Method(
            name, models=models, columns=self.columns[columns], measure=self.measures[measure], **keys
        )

    def _table(self, columns: str, **keys: Any) -> Table:
        return Table(columns=self.columns[columns], **keys)

    def _check(self) -> None:
        """Everything that a row names is there."""
        named = [(one.name, "trainings", one.model) for one in self.labels.values() if one.model]
        named += [(one.name, "labels", one.labels) for one in self.teachers.values()]
        for one in self.trainings.values():
            recognisers = [one.pseudo_labels["recogniser"]] if one.pseudo_labels else []
            named += [(one.name, "trainings", name) for name in (*one.start.values(), *recognisers)]
            named += [(one.name, "labels", one.labels)] if one.labels else []
            named += [(one.name, "teachers", name) for name in one.teachers]
        for method in self.methods.values():
            named += [(method.name, "trainings", name) for name in method.models.values()]
            named += [(method.name, "methods", method.baseline)] if method.baseline else []
        named += [(table.name, "methods", name) for table in self.tables.values() for name in table.methods]
        for row, section, name in named:
            if name not in getattr(self, section):
                raise MethodError(f"{self.path}: {row}: {name!r} is not one of the {section}")
