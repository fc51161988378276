"""Reads ``corpora.yaml``: how the data of a corpus is made, and how much is trained and tested on it."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("corpora.yaml")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Corpus:
    """A corpus at one size; ``corpora.yaml`` explains the keys.

    Args:
        prepare: arguments of the commands, by name, in order.
        labelled: clips that recognisers are trained on; 0 where there are none.
    """

    name: str
    title: str
    about: str
    recipes: Path
    out: Path
    prepare: dict[str, list[str]]
    sizes: dict[str, Any]
    labelled: int
    subsets: list[str]
    device: str
    updates: dict[str, int]
    resting: dict[str, list[str]]
    probes: list[str]
    tables: list[str]


def names() -> list[str]:
    return list(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def read_corpus(
    name: str, out: Path, quick: bool = False, labelled: int | None = None, validation: bool = False
) -> Corpus:
    """The corpus whose data lies, or will lie, in ``out``.

    Args:
        labelled: number of labelled clips; None: the first that the corpus names.
        validation: score the validation clips instead of the test clips.
    """
    entry = yaml.safe_load(FILE.read_text(encoding="utf-8"))[name]
    size = "quick" if quick else "full"
    sizes = entry["sizes"][size]
    budget = labelled or sizes.get("labelled", [0])[0]
    values = {**sizes, "repository": REPOSITORY, "out": out, "labelled": budget}

    def arguments(command: str) -> list[str]:
        return [word.format(**values) for word in shlex.split(command)]

    return Corpus(
        name,
        entry["title"],
        entry["about"].format(**values),
        Path(entry["recipes"].format(**values)),
        out,
        {step: arguments(command) for step, command in entry["prepare"].items()},
        sizes,
        budget,
        [entry["validation"]] if validation else entry["subsets"],
        entry["device"],
        entry["updates"][size],
        entry.get("resting", {}).get(size, {}),
        arguments(entry.get("probes", "")),
        entry["tables"],
    )
