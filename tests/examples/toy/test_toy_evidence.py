from __future__ import annotations

import json
from pathlib import Path

import pytest
from evidence import Evidence, commands, document, main, parse, report
from jobs import Runner
from methods import AV2VEC, METHODS, SCRATCH
from sizes import QUICK

from .pretend import finish, finish_jobs


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """The second seed of AV2vec was interrupted."""
    evidence = Evidence(tmp_path, QUICK, [1, 2])
    finish(*evidence.seeds[1], SCRATCH, 70)
    finish(*evidence.seeds[2], SCRATCH, 72)
    finish(*evidence.seeds[1], AV2VEC, 50, "commit def")
    finish(*evidence.seeds[2], AV2VEC, 40)
    experiment, runner = evidence.seeds[2]
    runner.mark(experiment.decoding(AV2VEC, ("av", "noisy"))).unlink()
    return evidence


def test_only_whole_seeds_are_in(evidence: Evidence) -> None:
    runs = evidence.runs()
    assert {method.name: sorted(of_method) for method, of_method in runs.items() if of_method} == {
        "scratch": [1, 2],
        "av2vec": [1],
    }
    assert set(runs[AV2VEC][1].rates.values()) == {50.0}


def test_the_report_says_seeds_versions_and_costs(evidence: Evidence) -> None:
    text = report(evidence, evidence.runs(), ["python evidence.py"])
    assert "| from scratch |" + " 71.0 (70.0 to 72.0) |" * 5 + " 1, 2 |" in text
    assert "| AV2vec |" + " 50.0 |" * 5 + " 1 |" in text
    assert "| AV2vec |" + " -20.0 (1 of 1) |" * 5 in text
    assert "| AV2vec | 12 | 6,000 | 10 | - | - | - | - | - | - | 30 |" in text
    assert "Trained and decoded at commit abc, commit def" in text
    assert "`python evidence.py`" in text
    assert "AV-HuBERT, 2nd" not in text


def test_methods_with_the_same_seeds_share_a_command(evidence: Evidence) -> None:
    assert commands(evidence.runs(), quick=True) == [
        "python examples/toy/evidence.py --quick --seeds 1 2 --methods scratch",
        "python examples/toy/evidence.py --quick --seeds 1 --methods av2vec",
    ]
    experiment, runner = evidence.seeds[2]
    finish_jobs(runner, [experiment.decoding(AV2VEC, ("av", "noisy"))])
    (command,) = commands(evidence.runs(), quick=False)
    assert command == "python examples/toy/evidence.py --seeds 1 2 --methods scratch av2vec"


def test_the_json_holds_every_number(evidence: Evidence) -> None:
    found = json.loads(document(evidence, evidence.runs(), ["python evidence.py"]))
    assert found["size"]["pretrain_updates"] == 12
    av2vec = found["methods"]["av2vec"]["seeds"]
    assert list(av2vec) == ["1"]
    assert av2vec["1"]["rates"]["audio_noisy"] == 50.0
    assert av2vec["1"]["cost"]["training"] == {"updates": 12, "frames": 6000, "seconds": 10.0}
    assert set(found["methods"]) == set(METHODS)


def test_seeds_share_the_corpus_and_nothing_else(evidence: Evidence) -> None:
    (first, _), (second, _) = evidence.seeds.values()
    assert first.corpus is second.corpus
    assert first.out != second.out
    assert first.pretraining(AV2VEC.stage).fingerprint() != second.pretraining(AV2VEC.stage).fingerprint()


def test_a_finished_run_only_writes_its_tables(
    evidence: Evidence, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = evidence.corpus
    finish_jobs(Runner(evidence.out, "commit abc"), [corpus.making(), corpus.preprocessing()])
    main(["--quick", "--seeds", "2", "--methods", "scratch", "--out", str(evidence.out)])
    text = (evidence.out / "RESULTS.md").read_text()
    assert "| from scratch |" + " 72.0 |" * 5 + " 2 |" in text
    assert "--methods scratch" in text.splitlines()[2]
    found = json.loads((evidence.out / "RESULTS.json").read_text())
    assert list(found["methods"]["scratch"]["seeds"]) == ["2"]
    assert "mean nothing" in capsys.readouterr().out


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    args = parse(["--seeds", "4", "5", "--methods", "scratch", "av2vec"])
    assert (args.seeds, args.methods, args.quick) == ([4, 5], ["scratch", "av2vec"], False)
    assert parse([]).methods == list(METHODS)
    with pytest.raises(SystemExit):
        parse(["--methods", "hubert"])
    assert "hubert" in capsys.readouterr().err
