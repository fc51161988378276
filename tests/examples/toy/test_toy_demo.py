from __future__ import annotations

import json
from pathlib import Path

import pytest
from demo import main
from experiment import Corpus, Experiment
from jobs import Runner
from methods import AV2VEC, SCRATCH
from sizes import QUICK

from .pretend import finish, finish_jobs


def test_a_finished_demo_only_prints_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = Corpus(tmp_path, QUICK, 3)
    experiment, runner = Experiment(tmp_path, corpus, 3), Runner(tmp_path, "commit abc")
    finish_jobs(runner, [corpus.making(), corpus.preprocessing()])
    finish(experiment, runner, SCRATCH, 72.25)
    finish(experiment, runner, AV2VEC, 52.25)
    main(["--quick", "--seed", "3", "--out", str(tmp_path)])
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[:6] == [
        "Word error rate in %: 8 test clips of unheard voices, 16 labelled clips, 40 without labels.",
        "",
        "| | VSR | ASR, clean | AVSR, clean | ASR, 0 dB babble | AVSR, 0 dB babble |",
        "|---|---|---|---|---|---|",
        "| from scratch |" + " 72.2 |" * 5,
        "| AV2vec |" + " 52.2 |" * 5,
    ]
    assert lines[7].startswith("`make demo-quick`, seed 3, ")
    assert "talking faces 0 s, mouth crops 0 s, pre-training 0 s, fine-tuning 0 s, decoding 0 s" in lines[7]
    assert json.loads((tmp_path / "results.json").read_text())["av2vec"]["av_noisy"] == 52.25
    assert "Pre-training: finished before" in capsys.readouterr().out
