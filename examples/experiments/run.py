"""Run methods of the table (``methods.yaml``) on a corpus (``corpora.yaml``), and write tables of results.

    python examples/experiments/run.py --corpus toy --methods scratch av2vec --seeds 1 2 3

Every step becomes a shell file in OUT/commands and a rule in OUT/Makefile; `make -C OUT -jN` runs those that
are not finished or have changed. Results are OUT/results.md and OUT/results.json, with --validation
OUT/validation.md and OUT/validation.json, over all that is finished; with --labelled 20 OUT/results_20.md.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import report
from corpora import CORPORA, REPOSITORY, read_corpus
from methods import Methods
from steps import Step, Steps


def write_plan(out: Path, steps: Iterable[Step], threads: int = 1) -> None:
    """Write ``out/Makefile`` and a shell file for each step; files whose content stays keep their time."""
    wanted = {one.name: one for step in steps for one in step.all_steps()}
    files = {out / "commands" / f"{step.name}.sh": step.script for step in wanted.values()}
    rules = []
    for step in wanted.values():
        needs = [f"commands/{step.name}.sh", *dict.fromkeys(f"done/{one.name}" for one in step.after)]
        options = in_make([str(step.updates), str(step.result or "")])
        rules.append(f"done/{step.name}: {' '.join(needs)}\n\t@$(STEP) {options} $@ $^\n")
    head = f"""# Written by run.py. `make -j2` in this folder runs what is not finished.
STEP := {in_make([str(Path(__file__).with_name("step.sh"))])}
export PATH := {str(Path(sys.executable).parent).replace("$", "$$")}:$(PATH)
export OMP_NUM_THREADS := {threads}
export PYTHONUNBUFFERED := 1

.PHONY: all
all:"""
    everything = "".join(f" \\\n    done/{name}" for name in wanted)
    files[out / "Makefile"] = "\n".join([f"{head}{everything}\n", *rules])
    (out / "commands").mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def in_make(words: Iterable[str]) -> str:
    """A shell command in a rule."""
    return shlex.join(words).replace("$", "$$")


def make(out: Path, *targets: str, jobs: int = 1) -> None:
    """Run rules of ``out/Makefile``; end this program if one fails."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(["make", "--no-print-directory", "-C", str(out), f"-j{jobs}", *targets])
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        sys.exit("stopped; run the same command again to resume")
    if status:
        sys.exit(status)


def main(arguments: Sequence[str] | None = None, methods: Methods | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", choices=CORPORA, default="toy", help="(default: %(default)s)")
    add("--methods", nargs="+", metavar="METHOD", help="(default: all that the corpus has)")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: 1 2 3)")
    add("--source", metavar="DIR", help="the corpus, where it is not made here")
    add(
        "--speech-model",
        metavar="NAME",
        default="openai/whisper-base",
        help="DistillAV's teacher on real corpora (default: %(default)s, from Hugging Face's cache)",
    )
    add("--labelled", type=int, metavar="N", help="labelled clips (default: the corpus's first number)")
    add("--validation", action="store_true", help="score the validation clips, to choose settings")
    add("--add", type=Path, metavar="FILE", help="results.json of another machine, whose scores are added")
    add("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    add("--out", type=Path, help="(default: out/CORPUS or out/CORPUS-quick)")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="steps at once (default: cores)")
    add("--threads", type=int, default=1, help="of a step (default: %(default)s)")
    add("--dry-run", action="store_true", help="write OUT/Makefile and OUT/commands, run nothing")
    args = parser.parse_args(arguments)
    out = (args.out or REPOSITORY / "out" / (args.corpus + "-quick" * args.quick)).resolve()
    methods = methods or Methods()
    if not args.source and any("{source}" in step for step in CORPORA[args.corpus]["prepare"].values()):
        sys.exit(f"--source: name the folder of {CORPORA[args.corpus]['title']}")
    source = Path(args.source or "").resolve()
    budgets = CORPORA[args.corpus]["sizes"]["quick" if args.quick else "full"].get("labelled", [])
    if args.labelled is not None and args.labelled not in budgets:
        sys.exit(
            f"--labelled: {args.corpus} has lists of {', '.join(map(str, budgets)) or 'no'} labelled clips"
        )
    speech_model = args.speech_model
    if Path(speech_model).is_dir():
        speech_model = str(Path(speech_model).resolve())
    corpus = read_corpus(args.corpus, out, args.quick, args.labelled, args.validation, source, speech_model)
    known = report.methods_of(methods, corpus)
    if unknown := set(args.methods or ()) - known.keys():
        sys.exit(f"--methods: the tables of {args.corpus} have {', '.join(known)}; not {', '.join(unknown)}")
    seeds = [Steps(methods, corpus, seed) for seed in args.seeds]
    chosen = [known[one] for one in args.methods or known]
    wanted = [step for steps in seeds for method in chosen for step in steps.scores(method).values()]
    try:
        if args.add is not None:
            report.read_runs(args.add, known)
    except ValueError as error:
        sys.exit(f"--add: {error}")
    write_plan(out, wanted, args.threads)
    if args.dry_run:
        print(f"make -C {out} -j{args.jobs} runs what is in {out / 'Makefile'} and {out / 'commands'}")
        return
    try:
        make(out, jobs=args.jobs)
    finally:  # after a failure, too
        command = shlex.join(["python", "examples/experiments/run.py", *(arguments or sys.argv[1:])])
        print(f"\n{report.write(methods, corpus, command, args.add)}\nAlso in {corpus.results}.")
    if args.quick:
        print("The quick sizes show that everything runs; their scores mean nothing.")


if __name__ == "__main__":
    main()
