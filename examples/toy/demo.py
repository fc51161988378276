"""The entire way on a corpus made here: `make demo`, or `make demo-quick` to see that everything runs.

Every command is a file in OUT/commands. What is finished is not done again; a killed demo resumes.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments"))

import report
from corpora import REPOSITORY, read_corpus
from methods import Methods
from run import make, write_plan
from steps import Steps

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
parser.add_argument("--out", type=Path, help="output folder (default: out/demo or out/demo-quick)")
parser.add_argument("--seed", type=int, default=1, help="of training (default: 1)")
args = parser.parse_args()
name = "demo-quick" if args.quick else "demo"
out = (args.out or REPOSITORY / "out" / name).resolve()
begun = time.time()

# Two rows of the table of methods: recognisers from scratch, and from AV2vec.
methods = Methods()
corpus = read_corpus("demo", out, args.quick)
steps = Steps(methods, corpus, args.seed)
rows = {row: methods.methods[row] for row in ("scratch", "av2vec")}
scores = [step for method in rows.values() for step in steps.scores(method).values()]
write_plan(out, scores, threads=2)

print("1. Talking faces: synthetic voices, and photographs whose mouths move with them.")
make(out, "done/corpus")

print("2. Mouth crops, audio, transcripts and lists of clips: the data folder that training reads.")
make(out, "done/data")

print(
    "3. Pre-training: AV2vec on all clips, without transcripts. On the other core, recognisers from scratch."
)
write_plan(out, scores, threads=1)
first, last = ([steps.training(name).name for name in method.models.values()] for method in rows.values())
make(out, *(f"done/{name}" for name in (steps.training("pretrain_av2vec").name, *first)), jobs=2)

print("4. Fine-tuning of AV2vec with the same labels: VSR (video), ASR (audio), AVSR (both).")
make(out, *(f"done/{name}" for name in last), jobs=2)

print("5. Decoding of the test clips, clean and in babble noise.")
make(out, *(f"done/{step.name}" for step in scores), jobs=2)

table = report.score_table(methods.tables["demo"], rows, report.collect(methods, corpus), "test")
text = f"""Word error rate in %: {corpus.about}

{table}

`make {name}`, seed {args.seed}, {(time.time() - begun) / 60:.1f} min. {report.machine()}.
"""
(out / "results.md").write_text(text)
print(f"\n{text}\nAlso in {out / 'results.md'}; commands, logs and hypotheses are in the same folder.")
print("The quick demo shows that everything runs; its error rates mean nothing." if args.quick else "")
