from __future__ import annotations

import json
from pathlib import Path

import pytest
from evidence_lupi import LupiEvidence, document, logged_score, main, parse, report
from jobs import Runner
from lupi_experiment import QUICK
from lupi_methods import EMOTION, NAMES, SPEAKER, Task

from .pretend import finish_jobs


def finish(evidence: LupiEvidence, task: Task, name: str, seed: int, score: float) -> None:
    """Everything of a method, with one score in all conditions."""
    (method,) = (one for one in task.methods if one.name == name)
    experiment, runner = evidence.experiment(task, seed), evidence.runners[seed]
    finish_jobs(runner, experiment.jobs(method))
    for job in experiment.scorings([method]):
        runner.log(job).write_text(
            f"200 clips: accuracy 1.00 %, unweighted average recall {score:.2f} %, macro F1 2 %\n"
            if task is EMOTION
            else f"cosine: 40 trials (20 target, 20 non-target): EER {score:.3f} %, minDCF(0.01) 1.0000\n"
        )


@pytest.fixture
def evidence(tmp_path: Path) -> LupiEvidence:
    """The second seed was interrupted."""
    evidence = LupiEvidence(tmp_path, QUICK, [1, 2])
    for task in (EMOTION, SPEAKER):
        finish(evidence, task, "audio_only", 1, 40)
        finish(evidence, task, "embeddings", 1, 46)
    finish(evidence, EMOTION, "audio_only", 2, 42)
    return evidence


def test_only_whole_seeds_are_in(evidence: LupiEvidence) -> None:
    found = {
        method.name: sorted(of_method) for method, of_method in evidence.scores(EMOTION).items() if of_method
    }
    assert found == {"audio_only": [1, 2], "embeddings": [1]}


def test_the_report_says_what_is_better(evidence: LupiEvidence) -> None:
    text = report(evidence, "python evidence_lupi.py")
    assert "| audio only | 41.0 (40.0 to 42.0) | 41.0 (40.0 to 42.0) | 1, 2 |" in text
    assert "| audio only | 40.0 | 40.0 | 1 |" in text
    emotions, speakers = text.split("## Verification")
    assert "positive is better" in emotions
    assert "| LUPI: embeddings | +6.0 (1 of 1) | +6.0 (1 of 1) |" in emotions
    assert "negative is better" in speakers
    assert "| LUPI: embeddings | +6.0 (0 of 1) | +6.0 (0 of 1) |" in speakers
    assert "Trained and scored at commit abc; " in text
    assert "`python evidence_lupi.py`" in text
    assert "video alone" not in text


def test_a_task_without_a_finished_method_has_no_table(tmp_path: Path) -> None:
    evidence = LupiEvidence(tmp_path, QUICK, [1])
    finish(evidence, SPEAKER, "teacher", 1, 12)
    text = report(evidence, "python evidence_lupi.py")
    assert "## Emotions" not in text
    assert "| teacher: audio and video | 12.0 | 12.0 | 1 |" in text


def test_the_json_holds_every_number(evidence: LupiEvidence) -> None:
    found = json.loads(document(evidence, "python evidence_lupi.py"))
    assert found["versions"] == ["commit abc"]
    assert set(found["tasks"]) == {"emotion", "speaker"}
    assert set(found["tasks"]["emotion"]) == set(NAMES)
    seeds = found["tasks"]["emotion"]["embeddings"]["seeds"]
    assert seeds == {"1": {"rates": {"clean": 46.0, "noisy": 46.0}, "seconds": 30.0}}


def test_a_log_without_a_score_is_named(tmp_path: Path) -> None:
    (tmp_path / "score.log").write_text("killed")
    with pytest.raises(ValueError, match=r"score\.log holds no score"):
        logged_score(tmp_path / "score.log", EMOTION.pattern)


def test_a_finished_run_only_writes_its_tables(
    evidence: LupiEvidence, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = evidence.corpus
    jobs = [corpus.making(), corpus.preprocessing(), corpus.mispairing(), corpus.drawing_trials()]
    finish_jobs(Runner(evidence.out, "commit abc"), jobs)
    main(["--quick", "--seeds", "1", "--methods", "audio_only", "embeddings", "--out", str(evidence.out)])
    text = (evidence.out / "RESULTS_LUPI.md").read_text()
    assert "| audio only | 40.0 | 40.0 | 1 |" in text
    assert "--methods audio_only embeddings" in text.splitlines()[2]
    assert list(json.loads((evidence.out / "RESULTS_LUPI.json").read_text())["tasks"]) == [
        "emotion",
        "speaker",
    ]
    assert "mean nothing" in capsys.readouterr().out


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    args = parse(["--seeds", "4", "--at-once", "1"])
    assert (args.seeds, args.at_once, args.quick, args.methods) == ([4], 1, False, list(NAMES))
    with pytest.raises(SystemExit):
        parse(["--methods", "labels"])
    assert "labels" in capsys.readouterr().err
