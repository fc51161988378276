"""Every method against training from scratch, with several seeds: `make evidence`, or `make evidence-quick`.

Pre-trains each method with equal updates, fine-tunes recognisers for video, audio and both with few labels,
decodes them clean and in babble noise, and writes tables of word error rates and costs (RESULTS.md) and every
single number (RESULTS.json) into examples/, for --quick into the output folder. They are written after each
seed; a killed run goes on where it was, and its tables say which seeds are in.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from conditions import MODALITIES, titles
from evidence_options import evidence_parser, recorded_command
from experiment import REPOSITORY, Corpus, Experiment
from jobs import Runner
from measures import commit, error_rates, machine, method_cost
from methods import COMPARISONS, METHODS, Comparison, Method
from sizes import FULL, QUICK, Size
from tables import Run, Runs, cost_table, gain_table, rate_table, setting

CORPUS_SEED = 1


class Evidence:
    """The experiments of several seeds on one corpus.

    Args:
        out: receives corpus/, data/ and, for each seed, a folder like that of the demo.
        threads: of a pre-training.
    """

    def __init__(self, out: Path, size: Size, seeds: Sequence[int], threads: int = 2) -> None:
        self.out, self.version = out, commit()
        self.corpus = Corpus(out, size, CORPUS_SEED)
        self.seeds = {
            seed: (Experiment(folder, self.corpus, seed, threads), Runner(folder, self.version))
            for seed, folder in ((seed, out / f"seed_{seed}") for seed in seeds)
        }

    def make_corpus(self, methods: Sequence[Method]) -> None:
        """What the methods are trained and tested on."""
        runner = Runner(self.out, self.version)
        runner.run("Talking faces", [self.corpus.making()])
        runner.run("Mouth crops", [self.corpus.preprocessing()])
        if any(clips == "long" for method in methods for _, clips in method.conditions):
            runner.run("Long clips", [self.corpus.lengthening()])

    def run(self, seed: int, methods: Sequence[Method]) -> None:
        """Train and decode; pre-trainings one after the other, so that their seconds can be compared."""
        experiment, runner = self.seeds[seed]
        for job in experiment.pretraining_jobs(methods):
            runner.run(f"Seed {seed}: {job.name}", [job])
        for number, jobs in enumerate(experiment.finetuning_rounds(methods), start=1):
            runner.run(f"Seed {seed}: fine-tuning, round {number}", jobs, at_once=2)
        runner.run(f"Seed {seed}: decoding", experiment.decoding_jobs(methods), at_once=2)

    def runs(self) -> Runs:
        """All that is finished, of whatever method."""
        return {
            method: {
                seed: Run(error_rates(experiment, method), method_cost(experiment, runner, method))
                for seed, (experiment, runner) in self.seeds.items()
                if all(map(runner.is_finished, experiment.decoding_jobs([method])))
            }
            for method in METHODS.values()
        }

    def versions(self, runs: Runs) -> list[str]:
        """Of the program that made the numbers."""
        found: set[str] = set()
        for method, of_method in runs.items():
            for experiment, runner in map(self.seeds.__getitem__, of_method):
                jobs = experiment.pretraining_jobs([method]) + experiment.finetuning_jobs([method])
                jobs += experiment.decoding_jobs([method])
                found.update(done[1] for done in map(runner.finished, jobs) if done)
        return sorted(found)


EXPLANATION = (
    "Mean, and range over seeds. Each pre-training has {pretrain_updates} updates; a fine-tuning has as many "
    "from scratch as from each method: {finetuning}. The seed varies initialisation, batches, masks, noise "
    "in training and clusters; corpus, labelled clips and the noise of the test are those of seed "
    "{corpus_seed}. Settings were chosen by the error rates of seeds 1 and 2 on this very test set "
    "(examples/toy/README.md), so these are no estimates for other data."
)
ABOUT_GAINS = (
    "Difference in points: with pre-training to the same recognisers trained from scratch, with "
    "self-training to the real labels alone. Negative is better. In parentheses: seeds in which it is better."
)
ABOUT_COSTS = (
    "Means over the seeds. Frames are real ones, 25 a second, without padding; they are what to compare. "
    "Seconds are those of the commands, start included, with one thread or two (--threads) and, where the "
    "script was started twice, with other trainings beside them; fine-tunings run two at a time. Labels "
    "that are clusters of an earlier model need its training, which is counted apart, as is clustering; so "
    "are speech teachers, whose training takes clusters of MFCC. What methods share, each of them counts."
)


def report(evidence: Evidence, runs: Runs, commands: Sequence[str]) -> str:
    """RESULTS.md."""
    size = evidence.corpus.size
    written = " and ".join(f"`{command}`" for command in commands)
    parts = [
        "# Results on the toy corpus",
        f"Written by {written}; every single number is in RESULTS.json. Trained and decoded at "
        f"{', '.join(evidence.versions(runs))}; {machine()}",
        setting(size),
        EXPLANATION.format(
            pretrain_updates=size.pretrain_updates,
            finetuning=", ".join(f"{MODALITIES[m]} {each.updates}" for m, each in size.finetune.items()),
            corpus_seed=evidence.corpus.seed,
        ),
        *(part for comparison in COMPARISONS for part in compared(comparison, runs)),
        "## Cost",
        ABOUT_COSTS,
        cost_table(runs),
    ]
    return "\n\n".join(parts) + "\n"


def compared(comparison: Comparison, runs: Runs) -> list[str]:
    """Heading and tables; nothing while none of the methods that it adds to those before is finished."""
    earlier = COMPARISONS[: COMPARISONS.index(comparison)]
    known = {method for other in earlier for method in other.methods}
    chosen = {method: runs[method] for method in comparison.methods}
    if not any(of_method for method, of_method in chosen.items() if method not in known):
        return []
    columns = titles(comparison.columns)
    parts = [f"## {comparison.title}", rate_table(chosen, columns)]
    gains = gain_table(chosen, columns)
    return [*parts, ABOUT_GAINS, gains] if gains else parts


def document(evidence: Evidence, runs: Runs, commands: Sequence[str]) -> str:
    """RESULTS.json."""
    content = {
        "commands": list(commands),
        "versions": evidence.versions(runs),
        "machine": machine(),
        "size": asdict(evidence.corpus.size),
        "methods": {
            method.name: {
                "title": method.title,
                "seeds": {seed: asdict(run) for seed, run in runs[method].items()},
            }
            for method in runs
        },
    }
    return json.dumps(content, indent=1) + "\n"


def options() -> argparse.ArgumentParser:
    parser = evidence_parser(__doc__ or "", list(METHODS), "evidence")
    parser.add_argument("--threads", type=int, default=2, help="of a pre-training (default: 2)")
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    return options().parse_args(arguments)


def commands(runs: Runs, quick: bool) -> list[str]:
    """What makes these results again: one for all methods that have the same seeds."""
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for method, of_method in runs.items():
        if of_method:
            by_seeds.setdefault(tuple(sorted(of_method)), []).append(method.name)
    groups = [
        argparse.Namespace(quick=quick, seeds=seeds, methods=names) for seeds, names in by_seeds.items()
    ]
    return [recorded_command("evidence.py", options(), group) for group in groups]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(sys.argv[1:] if arguments is None else arguments)
    out = (args.out or REPOSITORY / "out" / ("evidence-quick" if args.quick else "evidence")).resolve()
    evidence = Evidence(out, QUICK if args.quick else FULL, list(dict.fromkeys(args.seeds)), args.threads)
    results = out if args.quick else REPOSITORY / "examples"
    methods = [METHODS[name] for name in dict.fromkeys(args.methods)]
    evidence.make_corpus(methods)
    for seed in evidence.seeds:
        evidence.run(seed, methods)
        runs = evidence.runs()
        (results / "RESULTS.md").write_text(report(evidence, runs, commands(runs, args.quick)))
        (results / "RESULTS.json").write_text(document(evidence, runs, commands(runs, args.quick)))
    print(f"\n{(results / 'RESULTS.md').read_text()}\nIn {results / 'RESULTS.md'} and RESULTS.json.")
    if args.quick:
        print("The quick sizes show that everything runs; the error rates mean nothing.")


if __name__ == "__main__":
    main()
