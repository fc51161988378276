"""Reads the table of methods, ``methods.yaml``, which explains every key."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import yaml

FILE = Path(__file__).with_name("methods.yaml")
TASKS = {"video": "VSR", "audio": "ASR", "av": "AVSR"}
Row = SimpleNamespace
"""A row: its ``name``, and the keys of its section."""


class MethodError(ValueError):
    """A row of ``methods.yaml`` has an unknown key, lacks one, or names something that is not there."""


class Column(NamedTuple):
    """What a model is scored on: streams, empty where the model decides, and clips.

    ``labelled``: how many labelled clips the recogniser is trained on; 0: the number that run.py was given.
    """

    streams: str
    clips: str
    labelled: int = 0

    @classmethod
    def read(cls, text: str) -> "Column":
        """For example ``audio_0dB``, or with 20 labelled clips ``audio_0dB@20``."""
        column, _, labelled = text.partition("@")
        streams, _, clips = column.rpartition("_")
        return cls(streams, clips, int(labelled or 0))

    @property
    def key(self) -> str:
        """Name in results, for example ``audio_0dB@20``."""
        return "_".join(filter(None, self[:2])) + (f"@{self.labelled}" if self.labelled else "")

    @property
    def snr(self) -> str:
        """Signal-to-noise ratio in dB; empty without noise."""
        return self.clips.removesuffix("dB") if self.clips.endswith("dB") else ""

    @property
    def title(self) -> str:
        """Head of a column, for example ``ASR, 0 dB babble``."""
        clips = f"{self.snr} dB babble" if self.snr else self.clips.replace("long", "twice as long")
        if (self.streams, clips) == ("video", "clean"):
            clips = ""
        labelled = f"{self.labelled} labelled" if self.labelled else ""
        return ", ".join(filter(None, (TASKS.get(self.streams), clips, labelled)))


class Section(dict[str, Any]):
    """Rows by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __missing__(self, row: str) -> Any:
        raise MethodError(f"methods.yaml: there is no {row!r} among the {self.name}")


class Methods:
    """The sections of ``methods.yaml``.

    ``methods`` are the rows of ``recognisers`` and ``methods``: their ``models`` name the trainings that are
    scored, by streams. ``trainings`` are those of ``pretrainings`` and ``classifiers``, and a fine-tuning for
    each kind of streams of a recogniser.
    """

    def __init__(self, path: Path = FILE) -> None:
        self._content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for table in self._content["tables"].values():
            self._score_too(table, table.pop("recognisers", []))
        self.costs, self.about_costs = self._content["costs"], self._content["about_costs"]
        self.about_leaderboard = self._content["about_leaderboard"]
        self.columns = Section("columns")
        for name, texts in self._content["columns"].items():
            self.columns[name] = [Column.read(text) for text in texts]
        self.measures, self.labels, self.teachers = map(self._rows, ("measures", "labels", "teachers"))
        self.trainings = self._rows("trainings", "pretrainings", "classifiers")
        self.methods, self.tables = self._rows("methods", "recognisers", "methods"), self._rows("tables")
        for row in (*self.tables.values(), *self.methods.values()):
            row.columns = self.columns[row.columns]
        for method in self.methods.values():
            method.measure = self.measures[method.measure]
            streams = dict.fromkeys(column.streams for column in method.columns)
            if method.model in self._content["recognisers"]:
                method.models = self.methods[method.model].models
            elif method.model:
                method.models = dict.fromkeys(streams, method.model)
            else:
                method.models = {each: self._finetuning(method, each) for each in streams}

    def _score_too(self, table: dict[str, Any], names: list[str]) -> None:
        """Add methods that are recognisers, scored on the columns of a table."""
        recognisers, columns = self._content["recognisers"], table["columns"]
        for name in names:
            if name not in recognisers:
                raise MethodError(f"methods.yaml: there is no {name!r} among the recognisers")
            row, key = recognisers[name], f"{name}_{columns}"
            baseline = f"{row['baseline']}_{columns}" if row.get("baseline") in names else ""
            added = {"title": row["title"], "model": name, "columns": columns, "baseline": baseline}
            self._content["methods"][key] = added
            table.setdefault("methods", []).append(key)

    def _rows(self, name: str, *parts: str) -> Section:
        """The rows of one section, or of several parts."""
        section = Section(name)
        for part in parts or (name,):
            default = self._content["defaults"][part]
            for key, row in self._content[part].items():
                section[key] = Row(name=key, **{**default, **row})
                missing = {one for one, value in vars(section[key]).items() if value == "required"}
                if wrong := missing | (row.keys() - default.keys()):
                    raise MethodError(f"methods.yaml: {part}.{key}: {', '.join(wrong)} unknown or missing")
        return section

    def _finetuning(self, method: Row, streams: str) -> str:
        """Add the training of a recogniser; its name."""
        name = f"{method.name}_{streams}"
        values = {**vars(method), "name": name, "streams": streams, "start": {"model.w2v_path": method.start}}
        values["updates"] = [f"finetune_{streams}"] * method.times
        values["noise"] = 0 if streams == "video" else method.noise
        values["rests"] = method.rests and method.pretrained
        self.trainings[name] = Row(**values)
        return name
