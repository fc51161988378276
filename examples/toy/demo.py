"""The whole job on a corpus that is made on the spot: `make demo`, or `make demo-quick` to see the machinery.

Makes talking faces, crops their mouths, pre-trains AV2vec on them without labels, fine-tunes recognisers for
video, audio and both with few labels, once from AV2vec and once from scratch, and prints the word error
rates, clean and in babble noise. What is finished is not done again; `--out` says where it lies.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs import Job, Runner

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PLUGIN = REPOSITORY / "av_ssl"
MODALITIES = {"video": "VSR", "audio": "ASR", "av": "AVSR"}
STARTS = {"scratch": "from scratch", "av2vec": "AV2vec"}
NOISE_DB = 0
# Noise does not change what a lip-reader sees.
CONDITIONS = [("video", "clean"), ("audio", "clean"), ("av", "clean"), ("audio", "noisy"), ("av", "noisy")]


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: int
    test: int
    labelled: int
    speakers: int
    pretrain_updates: int
    finetune_updates: int


FULL = Size(train=700, test=100, labelled=30, speakers=40, pretrain_updates=900, finetune_updates=450)
QUICK = Size(train=40, test=8, labelled=16, speakers=6, pretrain_updates=12, finetune_updates=12)


class Demo:
    """The jobs of each stage, and where they leave what they make."""

    def __init__(self, out: Path, size: Size, seed: int) -> None:
        self.out, self.size, self.seed = out, size, seed
        self.corpus, self.data = out / "corpus", out / "data"
        self.labelled = self.data / f"labelled_{size.labelled}"

    def corpus_job(self) -> Job:
        size = self.size
        options = f"--train {size.train} --valid 8 --test {size.test} --speakers {size.speakers}"
        options += f" --difficulty 0.25 --seed {self.seed} --workers 2"
        script = str(HERE / "make_corpus.py")
        return Job("corpus", (sys.executable, script, str(self.corpus), *options.split()), own_progress=True)

    def preprocessing_job(self) -> Job:
        options = f"--workers 2 --size 48 --stride 3 --vocab-type word --seed {self.seed}"
        options += f" --labelled {self.size.labelled}"
        script = str(REPOSITORY / "preprocess" / "folder.sh")
        command = ("bash", script, str(self.corpus), str(self.data), *options.split())
        return Job("preprocess", command, own_progress=True)

    def pretraining_job(self) -> Job:
        updates = self.size.pretrain_updates
        return self.training("pretrain", "pretrain", self.data, updates, *self.noise(0.25), threads=2)

    def finetuning_jobs(self) -> list[Job]:
        return [self.finetuning(start, modalities) for modalities in MODALITIES for start in STARTS]

    def finetuning(self, start: str, modalities: str) -> Job:
        overrides = [f"task.modalities={modalities}", f"model.w2v_path={self.checkpoint('pretrain')}"]
        if start == "scratch":
            overrides.append("+model.no_pretrained_weights=true")
        if modalities != "video":
            overrides += self.noise(0.5)
        name = f"{start}_{modalities}"
        return self.training("finetune", name, self.labelled, self.size.finetune_updates, *overrides)

    def training(
        self, config: str, name: str, data: Path, updates: int, *overrides: str, threads: int = 1
    ) -> Job:
        command = ["fairseq-hydra-train", "--config-dir", str(HERE / "conf"), "--config-name", config]
        command += [f"task.data={data}", f"common.user_dir={PLUGIN}", f"common.seed={self.seed}"]
        command += [
            f"optimization.max_update={updates}",
            f"checkpoint.save_dir={self.checkpoint(name).parent}",
        ]
        command += [f"hydra.run.dir={self.out / 'hydra' / name}", *overrides]
        return Job(f"train_{name}", tuple(command), threads, updates)

    def noise(self, probability: float) -> list[str]:
        return [f"+task.noise_wav={self.data / 'noise'}", f"+task.noise_prob={probability}"]

    def decoding_jobs(self) -> list[Job]:
        return [self.decoding(start, *condition) for start in STARTS for condition in CONDITIONS]

    def decoding(self, start: str, modalities: str, noise: str) -> Job:
        name = f"{start}_{modalities}"
        command = [
            "fairseq-generate",
            str(self.labelled),
            "--user-dir",
            str(PLUGIN),
            "--task",
            "av_recognition",
        ]
        command += ["--path", str(self.checkpoint(name)), "--results-path", str(self.results(name, noise))]
        command += ["--modalities", modalities]
        command += [
            "--gen-subset",
            "test",
            "--scoring",
            "wer",
            "--beam",
            "8",
            "--max-tokens",
            "4000",
            "--cpu",
        ]
        if noise == "noisy":
            command += [
                "--noise-wav",
                str(self.data / "noise"),
                "--noise-prob",
                "1",
                "--noise-snr",
                str(NOISE_DB),
            ]
        return Job(f"decode_{name}_{noise}", tuple(command))

    def checkpoint(self, name: str) -> Path:
        return self.out / "checkpoints" / name / "checkpoint_last.pt"

    def results(self, name: str, noise: str) -> Path:
        return self.out / "results" / f"{name}_{noise}"

    def word_error_rate(self, start: str, modalities: str, noise: str) -> float:
        text = (self.results(f"{start}_{modalities}", noise) / "generate-test.txt").read_text()
        return float(re.findall(r"WER: ([0-9.]+)", text)[-1])


def report(demo: Demo, runner: Runner, command: str) -> str:
    """The table, as markdown, with what it takes to make it again."""
    size = demo.size
    sound = {"clean": "clean", "noisy": f"{NOISE_DB} dB babble"}
    heads = [MODALITIES[m] if m == "video" else f"{MODALITIES[m]}, {sound[noise]}" for m, noise in CONDITIONS]
    lines = [
        f"Word error rate in %: {size.test} test clips of unheard voices, {size.labelled} labelled clips, "
    ]
    lines[0] += f"{size.train} without labels."
    lines += ["", "| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for start, label in STARTS.items():
        rates = [demo.word_error_rate(start, *condition) for condition in CONDITIONS]
        lines.append(f"| {label} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |")
    minutes = sum(runner.seconds.values()) / 60
    stages = ", ".join(f"{title.lower()} {seconds:.0f} s" for title, seconds in runner.seconds.items())
    lines += ["", f"`{command}`, seed {demo.seed}, {commit()}, {minutes:.1f} min: {stages}. {machine()}"]
    return "\n".join(lines)


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    return f"commit {found.stdout.strip()}" if found.returncode == 0 else "no commit"


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, proves nothing"
    )
    parser.add_argument("--out", type=Path, help="output folder (default: out/demo or out/demo-quick here)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    name = "demo-quick" if args.quick else "demo"
    out = (args.out or REPOSITORY / "out" / name).resolve()
    settings = b"".join(path.read_bytes() for path in sorted((HERE / "conf").glob("*.yaml")))
    demo, runner = Demo(out, QUICK if args.quick else FULL, args.seed), Runner(out, settings)
    runner.run("Talking faces", [demo.corpus_job()])
    runner.run("Mouth crops", [demo.preprocessing_job()])
    runner.run("Pre-training", [demo.pretraining_job()])
    runner.run("Fine-tuning", demo.finetuning_jobs(), at_once=2)
    runner.run("Decoding", demo.decoding_jobs(), at_once=2)
    table = report(demo, runner, f"make {name}")
    rates = {s: {f"{m}_{n}": demo.word_error_rate(s, m, n) for m, n in CONDITIONS} for s in STARTS}
    (out / "results.md").write_text(table + "\n")
    (out / "results.json").write_text(json.dumps(rates, indent=2) + "\n")
    print(f"\n{table}\n\nAlso in {out / 'results.md'}; logs and hypotheses lie beside it.")
    if args.quick:
        print("The quick demo shows that everything runs; its error rates mean nothing.")


if __name__ == "__main__":
    main()
