"""The whole job on a corpus that is made on the spot: `make demo`, or `make demo-quick` for a look at the machinery.

Makes talking faces, crops their mouths, pre-trains AV2vec on them without labels, fine-tunes recognisers for video,
audio and both with few labels, once from AV2vec and once from scratch, and prints the word error rates, clean and in
babble noise. What is finished is not done again; `--out` says where it lies.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
MODALITIES = {"video": "VSR", "audio": "ASR", "av": "AVSR"}
STARTS = {"scratch": "from scratch", "av2vec": "AV2vec"}
NOISE_DB = 0


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: int
    test: int
    labelled: int
    speakers: int
    pretrain_updates: int
    finetune_updates: int
    beam: int = 8


FULL = Size(train=700, test=100, labelled=60, speakers=40, pretrain_updates=800, finetune_updates=300)
QUICK = Size(train=40, test=8, labelled=16, speakers=6, pretrain_updates=12, finetune_updates=12)


@dataclass(frozen=True)
class Job:
    """A command whose output goes to a log, and how its progress is read from there."""

    name: str
    command: tuple[str, ...]
    threads: int
    updates: int = 0


class Runner:
    """Runs jobs side by side, shows their progress, and skips those that an earlier run finished."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seconds: dict[str, float] = {}
        (out / "logs").mkdir(parents=True, exist_ok=True)
        (out / "finished").mkdir(exist_ok=True)

    def run(self, title: str, jobs: list[Job], at_once: int = 1) -> None:
        """Run the jobs, ``at_once`` at a time; the first failure ends everything with the end of its log."""
        started = time.time()
        waiting = [job for job in jobs if not self.finished(job)]
        total = sum(job.updates or 1 for job in waiting)
        if not waiting:
            print(f"{title}: finished before")
            self.seconds[title] = self.recorded_seconds(title)
            return
        running: dict[Job, subprocess.Popen[bytes]] = {}
        progress = tqdm(total=total, desc=title, unit="update" if jobs[0].updates else "job", mininterval=2)
        done = 0
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[job] = self.start(job)
            time.sleep(0.2)
            for job, process in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    self.finish(job, process.returncode)
                    done += job.updates or 1
            progress.update(done + sum(self.updates_done(job) for job in running) - progress.n)
        progress.close()
        self.seconds[title] = time.time() - started
        (self.out / "finished" / f"{slug(title)}.seconds").write_text(str(self.seconds[title]))

    def start(self, job: Job) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "PYTHONUNBUFFERED": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        log = self.log(job).open("wb")
        log.write(f"$ {shlex.join(job.command)}\n".encode())
        log.flush()
        return subprocess.Popen(job.command, stdout=log, stderr=log, env=environment, cwd=REPOSITORY)

    def finish(self, job: Job, status: int) -> None:
        if status:
            tail = "\n".join(self.log(job).read_text(errors="replace").splitlines()[-25:])
            sys.exit(f"\n{job.name} failed (exit status {status}):\n{tail}\nThe whole log: {self.log(job)}")
        self.mark(job).write_text(fingerprint(job))

    def finished(self, job: Job) -> bool:
        return self.mark(job).is_file() and self.mark(job).read_text() == fingerprint(job)

    def updates_done(self, job: Job) -> int:
        found = re.findall(rb'"num_updates": "(\d+)"', self.log(job).read_bytes()) if job.updates else []
        return int(found[-1]) if found else 0

    def recorded_seconds(self, title: str) -> float:
        file = self.out / "finished" / f"{slug(title)}.seconds"
        return float(file.read_text()) if file.is_file() else 0.0

    def mark(self, job: Job) -> Path:
        return self.out / "finished" / job.name

    def log(self, job: Job) -> Path:
        return self.out / "logs" / f"{job.name}.log"


def slug(title: str) -> str:
    return re.sub(r"\W+", "_", title)


def fingerprint(job: Job) -> str:
    """Changes when the job's command or a configuration of the demo changes."""
    configs = b"".join(path.read_bytes() for path in sorted((HERE / "conf").glob("*.yaml")))
    return hashlib.sha256("\0".join(job.command).encode() + configs).hexdigest()


class Demo:
    """The jobs of each stage."""

    def __init__(self, out: Path, size: Size, seed: int) -> None:
        self.size, self.seed = size, seed
        self.corpus, self.data = out / "corpus", out / "data"
        self.labelled = self.data / f"labelled_{size.labelled}"
        self.out = out

    def corpus_jobs(self) -> list[Job]:
        size = self.size
        command = [sys.executable, str(HERE / "make_corpus.py"), str(self.corpus), "--train", str(size.train)]
        command += ["--valid", "8", "--test", str(size.test), "--speakers", str(size.speakers)]
        command += ["--seed", str(self.seed), "--workers", "2"]
        return [Job("corpus", tuple(command), threads=1)]

    def preprocessing_jobs(self) -> list[Job]:
        command = ["bash", str(REPOSITORY / "preprocess" / "folder.sh"), str(self.corpus), str(self.data)]
        command += [
            "--workers",
            "2",
            "--size",
            "48",
            "--vocab-size",
            "40",
            "--labelled",
            str(self.size.labelled),
        ]
        command += ["--seed", str(self.seed)]
        return [Job("preprocess", tuple(command), threads=1)]

    def pretraining_jobs(self) -> list[Job]:
        updates = self.size.pretrain_updates
        command = self.hydra_train("pretrain", "pretrain", self.data, updates)
        return [Job("pretrain", tuple(command), threads=2, updates=updates)]

    def finetuning_jobs(self) -> list[Job]:
        jobs = []
        updates = self.size.finetune_updates
        for modalities in MODALITIES:
            for start in STARTS:
                name = f"{start}_{modalities}"
                command = self.hydra_train("finetune", name, self.labelled, updates)
                command += [f"task.modalities={modalities}", f"model.w2v_path={self.checkpoint('pretrain')}"]
                command += [f"+model.no_pretrained_weights={str(start == 'scratch').lower()}"]
                if modalities != "video":
                    command += [
                        f"+task.noise_wav={self.data / 'noise'}",
                        "+task.noise_prob=0.5",
                        "+task.noise_snr='0'",
                    ]
                jobs.append(Job(f"finetune_{name}", tuple(command), threads=1, updates=updates))
        return jobs

    def hydra_train(self, config: str, name: str, data: Path, updates: int) -> list[str]:
        command = ["fairseq-hydra-train", "--config-dir", str(HERE / "conf"), "--config-name", config]
        command += [
            f"task.data={data}",
            f"common.user_dir={REPOSITORY / 'av_ssl'}",
            f"common.seed={self.seed}",
        ]
        command += [
            f"optimization.max_update={updates}",
            f"checkpoint.save_dir={self.out / 'checkpoints' / name}",
        ]
        return [*command, f"hydra.run.dir={self.out / 'hydra' / name}"]

    def decoding_jobs(self) -> list[Job]:
        return [
            Job(f"decode_{start}_{modalities}_{noise}", tuple(self.generate(start, modalities, noise)), threads=1)
            for start in STARTS
            for modalities, noise in conditions()
        ]

    def generate(self, start: str, modalities: str, noise: str) -> list[str]:
        name = f"{start}_{modalities}"
        command = ["fairseq-generate", str(self.labelled), "--user-dir", str(REPOSITORY / "av_ssl")]
        command += [
            "--task",
            "av_recognition",
            "--path",
            str(self.checkpoint(name)),
            "--gen-subset",
            "test",
            "--cpu",
        ]
        command += ["--modalities", modalities, "--scoring", "wer", "--beam", str(self.size.beam)]
        command += ["--max-tokens", "4000", "--results-path", str(self.results(name, noise))]
        if noise == "noisy":
            command += [
                "--noise-wav",
                str(self.data / "noise"),
                "--noise-prob",
                "1",
                "--noise-snr",
                str(NOISE_DB),
            ]
        return command

    def checkpoint(self, name: str) -> Path:
        return self.out / "checkpoints" / name / "checkpoint_last.pt"

    def results(self, name: str, noise: str) -> Path:
        return self.out / "results" / f"{name}_{noise}"

    def word_error_rate(self, start: str, modalities: str, noise: str) -> float:
        text = (self.results(f"{start}_{modalities}", noise) / "generate-test.txt").read_text()
        return float(re.findall(r"WER: ([0-9.]+)", text)[-1])


def conditions() -> list[tuple[str, str]]:
    """Modalities and noise; noise does not change what a lip-reader sees."""
    return [("video", "clean"), ("audio", "clean"), ("av", "clean"), ("audio", "noisy"), ("av", "noisy")]


def report(demo: Demo, runner: Runner, name: str) -> str:
    """The table, as markdown, with what it takes to make it again."""
    size = demo.size
    heads = [
        f"{MODALITIES[m]} ({m}), {'clean' if n == 'clean' else f'babble {NOISE_DB} dB'}"
        for m, n in conditions()
    ]
    lines = [f"Word error rate in %, {size.test} test clips, {size.labelled} labelled training clips:", ""]
    lines += ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for start, label in STARTS.items():
        rates = [demo.word_error_rate(start, *condition) for condition in conditions()]
        lines.append(f"| {label} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |")
    minutes = sum(runner.seconds.values()) / 60
    stages = ", ".join(f"{title} {seconds:.0f} s" for title, seconds in runner.seconds.items())
    lines += [
        "",
        f"Made by `{name}` (seed {demo.seed}) at {commit()} in {minutes:.1f} min: {stages}.",
        machine(),
    ]
    return "\n".join(lines)


def commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True
    )
    return f"commit {found.stdout.strip()}" if found.returncode == 0 else "no commit"


def machine() -> str:
    cpu = "unknown processor"
    if Path("/proc/cpuinfo").exists():
        cpu = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text() + "\nmodel name: unknown")[
            0
        ]
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that everything runs, proves nothing"
    )
    parser.add_argument(
        "--out", type=Path, help="output folder (default: demo or demo-quick in the repository)"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    name = "demo-quick" if args.quick else "demo"
    out = (args.out or REPOSITORY / "out" / name).resolve()
    demo, runner = Demo(out, QUICK if args.quick else FULL, args.seed), Runner(out)
    runner.run("talking faces", demo.corpus_jobs())
    runner.run("mouth crops and manifests", demo.preprocessing_jobs())
    runner.run("pre-training (AV2vec)", demo.pretraining_jobs())
    runner.run("fine-tuning (6 models)", demo.finetuning_jobs(), at_once=2)
    runner.run("decoding (10 sets)", demo.decoding_jobs(), at_once=2)
    table = report(demo, runner, f"make {name}")
    (out / "results.md").write_text(table + "\n")
    (out / "results.json").write_text(json.dumps(
        {start: {f"{m}_{n}": demo.word_error_rate(start, m, n) for m, n in conditions()} for start in STARTS}, indent=2
    ) + "\n")  # fmt: skip
    print(f"\n{table}\n\nAlso in {out / 'results.md'}; logs and hypotheses lie beside it.")
    if args.quick:
        print("The quick demo shows that everything runs; its error rates mean nothing.")


if __name__ == "__main__":
    main()
