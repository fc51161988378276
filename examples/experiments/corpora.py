"""Reads ``corpora.yaml``, which explains the keys of a corpus."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CORPORA = yaml.safe_load(Path(__file__).with_name("corpora.yaml").read_text(encoding="utf-8"))
Corpus = SimpleNamespace
"""The keys of ``corpora.yaml`` at one size, their ``{braces}`` filled in; ``labelled`` is one number."""


def read_corpus(
    name: str,
    out: Path,
    quick: bool = False,
    labelled: int | None = None,
    validation: bool = False,
    source: Path = Path("SOURCE"),
    speech_model: str = "SPEECH_MODEL",
) -> Corpus:
    """The corpus whose data lies, or will lie, in ``out``; options as in ``run.py``."""
    entry, size = CORPORA[name], "quick" if quick else "full"
    sizes = entry["sizes"][size]
    usual = sizes.get("labelled", [0])[0]
    budget = labelled or usual
    values = {**sizes, "source": source, "repository": REPOSITORY, "out": out, "labelled": budget}

    def arguments(command: str) -> tuple[str, ...]:
        return tuple(word.format(**values) for word in shlex.split(command))

    corpus = Corpus(name=name, out=out, **{**entry, "sizes": sizes, "labelled": budget})
    corpus.speech_model = speech_model
    corpus.about = entry["about"].format(**values)
    corpus.recipes = Path(entry["recipes"].format(**values))
    corpus.prepare = {step: arguments(command) for step, command in entry["prepare"].items()}
    corpus.label = entry.get("label", "")
    corpus.probes = arguments(entry.get("probes", ""))
    corpus.subsets = [entry["validation"]] if validation else entry["subsets"]
    kind = "validation" if validation else "results"
    corpus.results = out / f"{kind}{'' if budget == usual else f'_{budget}'}.md"
    corpus.leaderboard = entry.get("leaderboard", 0)
    corpus.updates = entry["updates"][size]
    corpus.overrides = entry.get("overrides", {})
    corpus.finetuning_noise = entry.get("finetuning_noise")
    corpus.resting = entry.get("resting", {}).get(size, {})
    return corpus
