"""LUPI against audio alone, with several seeds: the second half of `make evidence` and `make evidence-quick`.

Makes a corpus of talking faces with emotions, trains teachers of audio and video and students of audio, and
scores them on unheard speakers, clean and in babble noise. Tables (RESULTS_LUPI.md) and every single number
(RESULTS_LUPI.json) go into examples/, for --quick into the output folder. They are written after each seed; a
killed run goes on where it was, and its tables say which seeds are in.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conditions import CLIPS
from evidence_options import evidence_parser, recorded_command
from experiment import FINETUNING_NOISE
from jobs import Runner
from lupi_experiment import FULL, QUICK, SCORED, EmotionCorpus, LupiExperiment, LupiSize
from lupi_methods import NAMES, TASKS, LupiMethod, Task
from measures import commit, machine, seconds
from tables import gain_table, rate_table
from toy_corpus import REPOSITORY

CORPUS_SEED = 1


@dataclass(frozen=True)
class Score:
    """One method with one seed.

    Args:
        rates: what the task's table shows, in percent, by condition.
        seconds: of all trainings that it needs.
    """

    rates: dict[str, float]
    seconds: float


Scores = dict[LupiMethod, dict[int, Score]]
"""By method and seed: those that are finished."""


class LupiEvidence:
    """The experiments of several seeds on one corpus.

    Args:
        out: receives what :class:`EmotionCorpus` makes and, for each seed, a folder.
    """

    def __init__(self, out: Path, size: LupiSize, seeds: Sequence[int]) -> None:
        self.out, self.version = out, commit()
        self.corpus = EmotionCorpus(out, size, CORPUS_SEED)
        self.runners = {seed: Runner(out / f"seed_{seed}", self.version) for seed in seeds}

    def experiment(self, task: Task, seed: int) -> LupiExperiment:
        return LupiExperiment(self.out / f"seed_{seed}", self.corpus, task, seed)

    def make_corpus(self) -> None:
        """What is trained and tested on."""
        runner = Runner(self.out, self.version)
        runner.run("Talking faces", [self.corpus.making()])
        runner.run("Face crops", [self.corpus.preprocessing()])
        runner.run("Control and trials", [self.corpus.mispairing(), self.corpus.drawing_trials()])

    def run(self, seed: int, names: Sequence[str], at_once: int) -> None:
        """Train and score."""
        for task in TASKS:
            experiment, runner = self.experiment(task, seed), self.runners[seed]
            methods = [method for method in task.methods if method.name in names]
            title = f"Seed {seed}: {task.name}"
            for number, jobs in enumerate(experiment.rounds(methods), start=1):
                runner.run(f"{title}, training, round {number}", jobs, at_once)
            runner.run(f"{title}, scoring", experiment.scorings(methods), at_once)

    def scores(self, task: Task) -> Scores:
        """All that is finished."""
        found: Scores = {}
        for method in task.methods:
            found[method] = {}
            for seed, runner in self.runners.items():
                jobs = self.experiment(task, seed).jobs(method)
                if all(map(runner.is_finished, jobs)):
                    spent = sum(seconds(runner, job) for job in jobs if job.updates)
                    found[method][seed] = Score(self.rates(task, seed, method), spent)
        return found

    def rates(self, task: Task, seed: int, method: LupiMethod) -> dict[str, float]:
        experiment, runner = self.experiment(task, seed), self.runners[seed]
        return {
            clips: logged_score(runner.log(experiment.scoring(method, clips)), task.pattern)
            for clips in SCORED
        }

    def versions(self) -> list[str]:
        """Of the program that made the numbers."""
        done = [
            runner.finished(job)
            for task in TASKS
            for method, of_method in self.scores(task).items()
            for seed, runner in self.runners.items()
            if seed in of_method
            for job in self.experiment(task, seed).jobs(method)
        ]
        return sorted({mark[1] for mark in done if mark})


def logged_score(log: Path, pattern: str) -> float:
    """What ``av-ssl classify`` or ``verify`` printed, in percent.

    Raises:
        ValueError: it printed no such score.
    """
    found = re.findall(pattern, log.read_text())
    if not found:
        raise ValueError(f"{log} holds no score ({pattern}): delete it and run this again")
    return float(found[-1])


EXPLANATION = (
    "{train} training clips of {speakers} speakers, {test} test clips of {others} others, {trials} trials of "
    "verification. Mean, and range over seeds. The seed varies initialisation, batches and noise in "
    "training; corpus, trials and the noise of the test are those of seed {seed}. Updates: {updates}. Every "
    "model was trained with 0 dB babble in a share of {noise} of its clips; a teacher that teaches hears "
    "none. Students of embeddings of emotions get a header from labels afterwards; speakers are compared by "
    "embeddings. Updates and learning rates were chosen by the recall of one seed on the test clips of an "
    "earlier corpus of this kind."
)
ABOUT_CONTROLS = (
    "Three controls learn nothing from the video: audio alone with as many updates as LUPI's students "
    "have in both stages; a teacher that sees with each clip the pictures of another, while it is trained "
    "and while it teaches; and the audio-only model as teacher, which hears without noise what its "
    "student hears with it. What LUPI gains beyond these comes from the video."
)
ABOUT_GAINS = "Difference in points to audio only; {better} is better. In parentheses: seeds in which it is."


def report(evidence: LupiEvidence, command: str) -> str:
    """RESULTS_LUPI.md."""
    size = evidence.corpus.size
    others = max(1, size.speakers // 5)
    parts = [
        "# Results of LUPI on the toy corpus",
        f"Written by `{command}`; every single number is in RESULTS_LUPI.json. Trained and scored at "
        f"{', '.join(evidence.versions())}; {machine()}",
        EXPLANATION.format(
            train=size.train,
            speakers=size.speakers,
            test=size.test,
            others=others,
            trials=size.trials,
            seed=evidence.corpus.seed,
            updates=", ".join(f"{recipe} {count}" for recipe, count in size.updates.items()),
            noise=FINETUNING_NOISE,
        ),
        ABOUT_CONTROLS,
        *(part for task in TASKS for part in task_report(task, evidence.scores(task))),
    ]
    return "\n\n".join(parts) + "\n"


def task_report(task: Task, scores: Scores) -> list[str]:
    """Heading and tables; nothing while no method is finished."""
    if not any(scores.values()):
        return []
    columns = {clips: CLIPS[clips] for clips in SCORED}
    better = "positive" if task.higher_is_better else "negative"
    return [
        f"## {task.title}",
        f"{task.score[0].upper()}{task.score[1:]}.",
        rate_table(scores, columns),
        ABOUT_GAINS.format(better=better),
        gain_table(scores, columns, task.higher_is_better),
    ]


def document(evidence: LupiEvidence, command: str) -> str:
    """RESULTS_LUPI.json."""
    content = {
        "command": command,
        "versions": evidence.versions(),
        "machine": machine(),
        "size": asdict(evidence.corpus.size),
        "tasks": {
            task.name: {
                method.name: {
                    "title": method.title,
                    "seeds": {seed: asdict(score) for seed, score in of_method.items()},
                }
                for method, of_method in evidence.scores(task).items()
            }
            for task in TASKS
        },
    }
    return json.dumps(content, indent=1) + "\n"


def options() -> argparse.ArgumentParser:
    parser = evidence_parser(__doc__ or "", list(NAMES), "evidence_lupi")
    parser.add_argument("--at-once", type=int, default=2, help="trainings side by side (default: 2)")
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    return options().parse_args(arguments)


def command_line(args: argparse.Namespace) -> str:
    """What the results record."""
    return recorded_command("evidence_lupi.py", options(), args)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(sys.argv[1:] if arguments is None else arguments)
    name = "evidence_lupi-quick" if args.quick else "evidence_lupi"
    out = (args.out or REPOSITORY / "out" / name).resolve()
    evidence = LupiEvidence(out, QUICK if args.quick else FULL, list(dict.fromkeys(args.seeds)))
    command = command_line(args)
    results = out if args.quick else REPOSITORY / "examples"
    evidence.make_corpus()
    for seed in evidence.runners:
        evidence.run(seed, args.methods, args.at_once)
        (results / "RESULTS_LUPI.md").write_text(report(evidence, command))
        (results / "RESULTS_LUPI.json").write_text(document(evidence, command))
    print(f"\n{(results / 'RESULTS_LUPI.md').read_text()}\nIn {results / 'RESULTS_LUPI.md'} and .json.")
    if args.quick:
        print("The quick sizes show that everything runs; the scores mean nothing.")


if __name__ == "__main__":
    main()
