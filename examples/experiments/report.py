"""Tables of results from what the steps of an experiment left: means over seeds, every seed, costs."""

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from corpora import Corpus
from methods import Column, Methods, Row
from steps import Step, Steps

VSR = Column("video", "clean")
Runs = Mapping[str, Mapping[int, dict[str, Any]]]
"""What is finished, by method and seed: ``scores`` in percent by SUBSET/COLUMN, ``costs`` by their keys in
``methods.yaml``, ``versions`` of the program."""


def methods_of(methods: Methods, corpus: Corpus) -> dict[str, Row]:
    """Those of the corpus's tables."""
    return {one: methods.methods[one] for table in corpus.tables for one in methods.tables[table].methods}


def note(step: Step, out: Path) -> dict[str, str | float]:
    """Digest of the script, seconds and version, from step.py; empty where the step has not ended."""
    file = out / "done" / step.name
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def processor_seconds(step: Step, out: Path) -> float:
    """NaN for steps that ran before this was noted."""
    return float(note(step, out).get("cpu", math.nan))


def finished(step: Step, out: Path) -> bool:
    """Whether the step and all before it ended with their present commands."""
    script = hashlib.sha256(step.script.encode()).hexdigest()
    return note(step, out).get("script") == script and all(finished(one, out) for one in step.after)


def seeds_of(corpus: Corpus) -> list[int]:
    """Those of which a step has ended."""
    return sorted(
        {int(path.name.split(".")[0].removeprefix("seed_")) for path in corpus.out.glob("done/seed_*")}
    )


def collect(methods: Methods, corpus: Corpus) -> Runs:
    """Everything that is finished, of all methods and seeds; curves of labels may lack points."""
    out = corpus.out
    runs: dict[str, dict[int, Any]] = {name: {} for name in methods_of(methods, corpus)}
    for seed in seeds_of(corpus):
        steps = Steps(methods, corpus, seed)
        for name, of_method in runs.items():
            method = methods.methods[name]
            every = steps.scores(method)
            scorings = {key: step for key, step in every.items() if finished(step, out)}
            curve = all(column.labelled for column in method.columns)  # a training of its own for each point
            if not scorings or (scorings.keys() != every.keys() and not curve):
                continue
            scores = {
                f"{subset}/{column.key}": score(step, method, column, out)
                for (subset, column), step in scorings.items()
            }
            needed = {one.name: one for step in scorings.values() for one in step.all_steps()}.values()
            versions = sorted({str(note(step, out)["version"]) for step in needed})
            of_method[seed] = {
                "scores": scores,
                "costs": costs(paid_for(method, needed, methods), methods.costs, out),
                "versions": versions,
            }
    return runs


def score(step: Step, method: Row, column: Column, out: Path) -> float:
    """In percent, from what a command printed, or from the file that ``fairseq-generate`` wrote.

    Raises:
        ValueError: there is no score in it.
    """
    written = sorted(step.result.glob("generate-*.txt")) if step.result else []
    file = written[0] if written else out / "logs" / f"{step.name}.log"
    text = file.read_text(errors="replace")
    layers = method.measure.name == "probe"
    section = text.partition(f"| {column.clips} |")[2].partition("\n\n")[0] if layers else text
    if method.measure.name in ("recall", "embeddings"):  # a line for each column
        section = "".join(re.findall(rf"^{column.clips}: .*", text, re.MULTILINE))
    found = [float(number) for number in re.findall(method.measure.pattern, section)]
    if not found:
        raise ValueError(f"{file} holds no score: delete {out / 'done' / step.name} and run again")
    return max(found) if layers else found[-1]


def paid_for(method: Row, needed: Iterable[Step], methods: Methods) -> list[Step]:
    """Those that train it: what takes no weights of its start does not pay for them."""
    pretrained = any(methods.trainings[model].pretrained for model in method.models.values())
    return [step for step in needed if pretrained or step.kind == "fine-tuning"]


def costs(needed: Iterable[Step], kinds: Iterable[str], out: Path) -> dict[str, float]:
    """Processor seconds of all steps by kind; of pre-trainings updates and frames, too."""
    found, pretrainings = dict.fromkeys(kinds, 0.0), []
    for step in needed:
        seconds = processor_seconds(step, out)
        if step.kind == "pre-training":
            log = (out / "logs" / f"{step.name}.log").read_text(errors="replace")
            pretrainings.append((*logged_work(log), seconds))
        elif step.kind in found:
            found[step.kind] += seconds
    # The last one is the method's own; those before it gave labels.
    for place, work in enumerate(reversed(pretrainings)):
        for key, amount in zip(("updates", "frames", "seconds"), work, strict=True):
            found[f"earlier {key}" if place else key] += amount
    return found


def logged_work(log: str) -> tuple[int, int]:
    """Updates and frames, from the lines of a log that end an epoch (``common.log_format=json``).

    Raises:
        ValueError: there are no such lines.
    """
    frames, before = 0.0, 0
    for text in re.findall(r"\[train\]\[INFO\] - (\{.*\})", log):
        epoch = json.loads(text)
        updates = int(epoch["train_num_updates"])
        frames += float(epoch["train_wpb"]) * (updates - before)  # of the mean update
        before = updates
    if not before:
        raise ValueError("the log has no line at the end of an epoch")
    return before, round(frames)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a head; the cell above the first column may be empty."""
    lines = ["| " + " | ".join(heads).lstrip() + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def mean_and_range(values: Sequence[float]) -> str:
    """For example ``54.0 (50.0 to 60.0)``."""
    if not values:
        return "-"
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def mean_of_known(values: Sequence[float]) -> float:
    """Without those that are NaN; NaN if all are."""
    known = [value for value in values if not math.isnan(value)]
    return mean(known) if known else math.nan


def gain(differences: Sequence[float], higher_is_better: bool) -> str:
    """Mean, and in how many it is better, for example ``-1.5 (1 of 2)``."""
    if not differences:
        return "-"
    better = sum(difference > 0 if higher_is_better else difference < 0 for difference in differences)
    return f"{mean(differences):+.1f} ({better} of {len(differences)})"


def score_table(table: Row, methods: Mapping[str, Row], runs: Runs, subset: str) -> str:
    """Mean and range over the seeds that are finished; a method without any is left out."""
    rows = []
    for name in filter(runs.get, table.methods):
        keys = [f"{subset}/{column.key}" for column in table.columns]
        of_seeds = [
            [run["scores"][key] for run in runs[name].values() if key in run["scores"]] for key in keys
        ]
        rows.append([methods[name].title, *map(mean_and_range, of_seeds), ", ".join(map(str, runs[name]))])
    return markdown_table(["", *(column.title for column in table.columns), "seeds"], rows)


def gain_table(table: Row, methods: Mapping[str, Row], runs: Runs, subset: str) -> str:
    """Difference of each method to its baseline and controls over the seeds that both have; may be empty."""
    pairs = [
        (methods[name], methods[other])
        for name in table.methods
        for other in (methods[name].baseline, *methods[name].controls)
        if other
    ]
    rows = []
    for method, other in pairs:
        of_other = runs.get(other.name, {})
        shared = [
            (run["scores"], of_other[seed]["scores"])
            for seed, run in runs[method.name].items()
            if seed in of_other
        ]
        cells = []
        for key in (f"{subset}/{column.key}" for column in table.columns):
            differences = [mine[key] - its[key] for mine, its in shared if key in mine and key in its]
            cells.append(gain(differences, method.measure.higher_is_better))
        if shared:
            rows.append([f"{method.title} - {other.title}", *cells])
    return markdown_table(["", *(column.title for column in table.columns)], rows) if rows else ""


def cost_table(methods: Methods, runs: Runs) -> str:
    """Means over the seeds, without columns in which no method has costs."""
    means = {
        name: {key: mean_of_known([run["costs"][key] for run in of_method.values()]) for key in methods.costs}
        for name, of_method in runs.items()
        if of_method
    }
    keys = [key for key in methods.costs if any(row[key] > 0 for row in means.values())]
    rows = [
        [methods.methods[name].title, *(f"{row[key]:,.0f}" if row[key] > 0 else "-" for key in keys)]
        for name, row in means.items()
    ]
    return markdown_table(["", *(methods.costs[key] for key in keys)], rows)


def leaderboard(methods: Methods, corpus: Corpus) -> str:
    """Methods by the minutes of two cores that their lip-reader takes, with all labels and targets."""
    subset, limit, rows = corpus.validation, corpus.leaderboard, []
    for method in methods_of(methods, corpus).values():
        if method.measure.name != "wer" or "video" not in method.models or method.columns[0].labelled:
            continue
        scorings = [Steps(methods, corpus, seed).score(method, VSR, subset) for seed in seeds_of(corpus)]
        found = [
            (score(step, method, VSR, corpus.out), processor_minutes(method, step, methods, corpus.out))
            for step in scorings
            if finished(step, corpus.out)
        ]
        if known := [(rate, minutes) for rate, minutes in found if not math.isnan(minutes)]:
            rate, minutes = map(mean, zip(*known, strict=True))
            reached = "yes" if rate <= limit else "no"
            rows.append(
                (
                    rate > limit,
                    minutes,
                    [method.title, f"{minutes:.1f}", f"{rate:.1f}", reached, str(len(known))],
                )
            )
    heads = ["", "minutes", f"VSR, {subset}", f"at most {limit} %", "seeds"]
    return markdown_table(heads, [row for *_, row in sorted(rows)])


def processor_minutes(method: Row, scoring: Step, methods: Methods, out: Path) -> float:
    """Of two cores, for all that ``scoring`` needs but data; NaN if a step noted no processor seconds."""
    needed = {one.name: one for one in scoring.all_steps()}.values()
    kinds = {"pre-training", *methods.costs}
    paid = (step for step in paid_for(method, needed, methods) if step.kind in kinds)
    return sum(processor_seconds(step, out) for step in paid) / 120


def compared(table: Row, methods: Mapping[str, Row], runs: Runs, subsets: Sequence[str]) -> list[str]:
    """Heading and tables; nothing while no method of the table is finished."""
    if not any(runs[name] for name in table.methods):
        return []
    measure = methods[table.methods[0]].measure
    better = "positive" if measure.higher_is_better else "negative"
    about = f"Difference to the baseline in points, {better} is better; in parentheses: in how many seeds."
    parts = [f"## {table.title}", f"{measure.title}. {table.about}".strip()]
    for subset in subsets:
        parts += [f"### {subset}"] if len(subsets) > 1 else []
        parts.append(score_table(table, methods, runs, subset))
        gains = gain_table(table, methods, runs, subset)
        parts += [about, gains] if gains else []
    return parts


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}"


def with_known_costs(run: dict[str, Any]) -> dict[str, Any]:
    """A run without the costs that are NaN, which JSON does not have."""
    costs = {key: cost for key, cost in run["costs"].items() if not math.isnan(cost)}
    return {**run, "costs": costs}


def read_runs(file: Path, rows: Mapping[str, Row]) -> tuple[Runs, str]:
    """The runs in a ``.json`` that `write` wrote, and the machine that they are of.

    Raises:
        ValueError: the file is none, or has a method that is not in ``rows``.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        runs = {
            name: {int(seed): run for seed, run in method["seeds"].items()}
            for name, method in document["methods"].items()
        }
        machine = str(document["machine"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: holds no results of run.py ({error})") from error
    if unknown := runs.keys() - rows.keys():
        raise ValueError(f"{file}: has methods that are in no table: {', '.join(sorted(unknown))}")
    return runs, machine


def write(methods: Methods, corpus: Corpus, command: str, more: Path | None = None) -> str:
    """Write ``corpus.results`` and a ``.json`` beside it; the first text. ``command`` was run last.

    Scores in ``more``, of another machine, are added where a method has no run with this seed here. Costs are
    not: they would be of other processors.
    """
    here, rows = collect(methods, corpus), methods_of(methods, corpus)
    others, machines = ({}, "") if more is None else read_runs(more, rows)
    machines = "; ".join(dict.fromkeys([*filter(None, machines.split("; ")), machine()]))
    runs = {name: dict(sorted({**others.get(name, {}), **here[name]}.items())) for name in rows}
    versions = sorted(
        {one for of_method in runs.values() for run in of_method.values() for one in run["versions"]}
    )
    numbers = corpus.results.with_suffix(".json")
    updates = ", ".join(f"{name} {count}" for name, count in corpus.updates.items())
    parts = [
        f"# Results on {corpus.title}",
        f"Written by `{command}`; every number is in {numbers.name}. {', '.join(versions)}; {machines}.",
        f"{corpus.about} Mean, and range over seeds. The seed varies initialisation, batches, masks, noise "
        f"in training and clusters, not the corpus. Updates: {updates}.",
    ]
    for name in corpus.tables:
        parts += compared(methods.tables[name], rows, runs, corpus.subsets)
    if corpus.leaderboard and corpus.subsets == [corpus.validation]:
        parts += ["## Leaderboard", methods.about_leaderboard, leaderboard(methods, corpus)]
    parts += ["## Cost", f"{methods.about_costs} {machine()}.", cost_table(methods, here)]
    text = "\n\n".join(parts) + "\n"
    seeds = {
        name: {
            "title": rows[name].title,
            "seeds": {seed: with_known_costs(run) for seed, run in runs[name].items()},
        }
        for name in filter(runs.get, rows)
    }
    document = {"command": command, "versions": versions, "machine": machines, "sizes": corpus.sizes}
    document["methods"] = seeds
    corpus.results.write_text(text, encoding="utf-8")
    numbers.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return text
