"""The whole job on a corpus that is made on the spot: `make demo`, or `make demo-quick` to see the machinery.

Makes talking faces, crops their mouths, pre-trains AV2vec on them without labels, fine-tunes recognisers for
video, audio and both with few labels, once from AV2vec and once from scratch, and prints the word error
rates, clean and in babble noise. What is finished is not done again; `--out` says where it lies.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from conditions import CONDITIONS, title
from experiment import REPOSITORY, Corpus, Experiment
from jobs import Runner
from measures import commit, error_rates, machine
from methods import AV2VEC, SCRATCH
from sizes import FULL, QUICK
from tables import markdown_table, setting

STARTS = (SCRATCH, AV2VEC)
Rates = dict[str, dict[str, float]]


def report(experiment: Experiment, rates: Rates, seconds: dict[str, float], command: str) -> str:
    """The table, as markdown, with what it takes to make it again."""
    keys = ["_".join(condition) for condition in CONDITIONS]
    rows = [[start.title, *(f"{rates[start.name][key]:.1f}" for key in keys)] for start in STARTS]
    minutes = sum(seconds.values()) / 60
    stages = ", ".join(f"{title.lower()} {taken:.0f} s" for title, taken in seconds.items())
    made = f"`{command}`, seed {experiment.seed}, {commit()}, {minutes:.1f} min: {stages}. {machine()}"
    table = markdown_table(["", *map(title, CONDITIONS)], rows)
    return "\n".join([setting(experiment.size), "", table, "", made])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, proves nothing"
    )
    parser.add_argument("--out", type=Path, help="output folder (default: out/demo or out/demo-quick here)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    name = "demo-quick" if args.quick else "demo"
    out = (args.out or REPOSITORY / "out" / name).resolve()
    corpus = Corpus(out, QUICK if args.quick else FULL, args.seed)
    experiment, runner = Experiment(out, corpus, args.seed), Runner(out, commit())
    runner.run("Talking faces", [corpus.making()])
    runner.run("Mouth crops", [corpus.preprocessing()])
    runner.run("Pre-training", experiment.pretraining_jobs(STARTS))
    runner.run("Fine-tuning", experiment.finetuning_jobs(STARTS), at_once=2)
    runner.run("Decoding", experiment.decoding_jobs(STARTS), at_once=2)
    rates = {start.name: error_rates(experiment, start) for start in STARTS}
    table = report(experiment, rates, runner.seconds, f"make {name}")
    (out / "results.md").write_text(table + "\n")
    (out / "results.json").write_text(json.dumps(rates, indent=2) + "\n")
    print(f"\n{table}\n\nAlso in {out / 'results.md'}; logs and hypotheses lie beside it.")
    if args.quick:
        print("The quick demo shows that everything runs; its error rates mean nothing.")


if __name__ == "__main__":
    main()
