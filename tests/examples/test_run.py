"""Running steps by make, and tables of what they left."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import report
from corpora import Corpus, read_corpus
from methods import Methods
from report import collect, cost_table, write
from run import main, make, write_plan
from steps import Step, Steps

METHODS = Methods()
EPOCH = '[x][train][INFO] - {{"epoch": {}, "train_wpb": "{}", "train_num_updates": "{}"}}\n'
INNER = '[x][train_inner][INFO] - {"epoch": 1, "wpb": "9", "num_updates": "5"}\n'


# Steps. They add to RESULT/file: one sees how often they ran and what was there.


def append(out: Path, name: str, *after: Step, text: str = "x", code: str = "") -> Step:
    result = out / name
    code = f"mkdir -p {result}; printf {text} >> {result}/file; {code}"
    return Step(name, "training", ("bash", "-c", code), after, result)


def content(step: Step) -> str:
    return (step.result / "file").read_text()


def run(out: Path, *steps: Step) -> None:
    write_plan(out, steps)
    make(out, jobs=2)


def test_finished_steps_are_not_run_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = append(tmp_path, "one")
    two = append(tmp_path, "two", one)
    run(tmp_path, two)
    assert "two: done in " in capfd.readouterr().out
    run(tmp_path, two)
    assert (content(one), content(two)) == ("x", "x")
    assert "done in" not in capfd.readouterr().out
    note = json.loads((tmp_path / "done" / "two").read_text())
    assert 0 <= note["seconds"] < 30
    assert 0 <= note["cpu"] < 30
    assert note["script"] == hashlib.sha256(two.script.encode()).hexdigest()
    assert (tmp_path / "logs" / "two.log").read_text() == ""


def test_a_changed_command_runs_again_from_nothing_with_all_that_comes_after(tmp_path: Path) -> None:
    one = append(tmp_path, "one")
    two, other = append(tmp_path, "two", one), append(tmp_path, "other")
    run(tmp_path, two, other)
    changed = append(tmp_path, "one", text="y")
    run(tmp_path, append(tmp_path, "two", changed), other)
    assert (content(one), content(two), content(other)) == ("y", "x", "x")
    inputs = [json.loads((tmp_path / "done" / name).read_text())["inputs"] for name in ("one", "two")]
    assert len(set(inputs)) == 2


def test_newer_files_of_the_same_content_change_nothing(tmp_path: Path) -> None:
    one = append(tmp_path, "one")
    run(tmp_path, one)
    written = (tmp_path / "done" / "one").read_text()
    future = time.time() + 60
    os.utime(tmp_path / "commands" / "one.sh", (future, future))
    run(tmp_path, one)
    assert (tmp_path / "done" / "one").read_text() == written
    assert content(one) == "x"


def test_a_killed_step_keeps_its_folder_until_its_command_changes(tmp_path: Path) -> None:
    slow = append(tmp_path, "one", code="[ -e ../go ] || sleep 60")
    write_plan(tmp_path, [slow])
    process = subprocess.Popen(
        [sys.executable, "-c", f"from run import *; make(Path({str(tmp_path)!r}))"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not (tmp_path / "one" / "file").is_file():
        time.sleep(0.05)
    time.sleep(1.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) != 0
    assert not (tmp_path / "done" / "one").exists()
    (tmp_path.parent / "go").touch()
    make(tmp_path)
    assert content(slow) == "xx"
    assert json.loads((tmp_path / "done" / "one").read_text())["seconds"] >= 1  # of both runs
    (tmp_path / "done" / "one").unlink()  # asks for another run
    make(tmp_path)
    assert content(slow) == "x"


def test_a_terminal_that_is_closed_ends_the_step(tmp_path: Path) -> None:
    """It would go on alone, and the same command again would start a second one in its folder."""
    slow = append(tmp_path, "one", code="echo $$ > pid; sleep 60")
    write_plan(tmp_path, [slow])
    heard = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # nohup would have it ignored
    process = subprocess.Popen(["make", "-C", str(tmp_path)], start_new_session=True, preexec_fn=heard)
    pid = tmp_path / "pid"
    while not (pid.is_file() and pid.read_text()):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGHUP)
    process.wait(20)
    for _ in range(100):
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the step continues")


def test_a_failure_shows_the_end_of_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failing = append(tmp_path, "bad", code="echo what went wrong; exit 3")
    with pytest.raises(SystemExit):
        run(tmp_path, append(tmp_path, "later", failing))
    error = capfd.readouterr().err
    assert "what went wrong\nbad failed" in error
    assert str(tmp_path / "logs" / "bad.log") in error
    assert not list((tmp_path / "done").iterdir())
    assert not (tmp_path / "later").exists()


def test_progress_of_trainings_has_the_time_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORT_EVERY", "0.7")
    lines = """echo '"num_updates": "100"'; sleep 1.2; echo '"num_updates": "300"'; sleep 0.8"""
    training = Step("one", "training", ("bash", "-c", lines), updates=900)
    run(
        tmp_path,
        training,
        Step("other", "data", ("printf", "1/9\\r5/9")),
        append(tmp_path, "x", code="sleep 1"),
    )
    printed = capfd.readouterr().out
    assert "one: 100 of 900 updates\n" in printed
    assert "one: 300 of 900 updates, about 0 min left" in printed


def test_shell_files_hold_commands_that_can_be_copied(tmp_path: Path) -> None:
    words = ["x", "--out", "a folder", *(f"key{n}=value" for n in range(20)), "$HOME", "model.teachers=[a,b]"]
    script = Step("one", "training", tuple(words)).script
    assert script.startswith("x \\\n    --out 'a folder' \\\n    key0=value \\\n")
    printed = subprocess.run(
        ["bash", "-c", script.replace("x ", "printf '%s\\n' ", 1)], capture_output=True, text=True
    )
    assert printed.stdout.splitlines() == words[1:]


def test_a_dry_run_writes_a_makefile_for_make(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for corpus in ("toy", "toy_emotions"):
        out = tmp_path / corpus
        main(["--corpus", corpus, "--seeds", "1", "--dry-run", "--out", str(out)])
        assert f"make -C {out} " in capsys.readouterr().out
        listed = subprocess.run(
            ["make", "-n", "-C", str(out)], capture_output=True, text=True, check=True
        ).stdout
        assert listed.count("step.sh") == len(list((out / "commands").iterdir())) > 30
        order = [line.split("done/")[1].split()[0] for line in listed.splitlines() if "step.sh" in line]
        assert order[:2] == ["corpus", "data"]


@pytest.mark.parametrize(
    ("labelled", "validation", "name"),
    [
        (None, False, "results.md"),
        (100, True, "validation.md"),
        (20, False, "results_20.md"),
        (20, True, "validation_20.md"),
    ],
)
def test_each_number_of_labelled_clips_has_tables_of_its_own(
    labelled: int | None, validation: bool, name: str, tmp_path: Path
) -> None:
    assert read_corpus("grid", tmp_path, False, labelled, validation).results == tmp_path / name


def test_unknown_methods_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"tables of toy have scratch, .*not teacher_video"):
        main(["--methods", "teacher_video", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--corpus toy --labelled 50", "--labelled: toy has lists of 100 labelled"),
        (
            "--corpus grid --source DIR --labelled 30",
            "--labelled: grid has lists of 100, 10, 20, 50, 200, 650",
        ),
        ("--corpus grid", "--source: name the folder of GRID"),
        ("--corpus grid --source=", "--source: name the folder of GRID"),
    ],
)
def test_what_a_corpus_does_not_have_is_named(options: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        main([*options.split(), "--dry-run", "--out", str(tmp_path)])


def test_the_environment_may_have_a_space_in_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "a b/$c/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    slow = append(tmp_path, "one", code="command -v python > which")
    write_plan(tmp_path, [slow])
    make(tmp_path)
    assert (tmp_path / "which").read_text() == f"{python}\n"


# Tables.


def pretend(corpus: Corpus, method: str, seed: int, score: float, version: str = "commit abc") -> Steps:
    """Leave what the steps of a method would leave: ten seconds each, one score in all columns."""
    steps = Steps(METHODS, corpus, seed)
    for folder in ("done", "logs"):
        (corpus.out / folder).mkdir(exist_ok=True)
    for scoring in steps.scores(METHODS.methods[method]).values():
        for step in scoring.all_steps():
            script = hashlib.sha256(step.script.encode()).hexdigest()
            note = {"script": script, "seconds": 99.0, "cpu": 10, "version": version}
            (corpus.out / "done" / step.name).write_text(json.dumps(note))
            log = INNER + EPOCH.format(1, 500.5, 10) + EPOCH.format(2, 600, 12)
            (corpus.out / "logs" / f"{step.name}.log").write_text(log)
        text = f"WER: 99.0\nWER: {score}\n"
        if METHODS.methods[method].measure.name == "probe":
            phones, visemes = (
                "".join(f"| layer {layer} | {best - layer} (1 to 2) |\n" for layer in (1, 2))
                for best in (score, score + 5)
            )
            text = f"| phone | x |\n|---|---|\n{phones}\n9 classes\n\n| viseme | x |\n|---|---|\n{visemes}\n"
        elif METHODS.methods[method].measure.name == "recall":
            levels = (("clean", 0), ("0dB", 2), ("-5dB", 4), ("-10dB", 6))
            text = "".join(
                f"{one}: accuracy 9.0 %, unweighted average recall {score - lost} %\n" for one, lost in levels
            )
        if METHODS.methods[method].measure.name == "wer":
            scoring.result.mkdir(parents=True, exist_ok=True)
            (scoring.result / "generate-test.txt").write_text(text)
        else:
            (corpus.out / "logs" / f"{scoring.name}.log").write_text(text)
    return steps


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """The second seed of AV2vec was interrupted."""
    corpus = read_corpus("toy", tmp_path, quick=True)
    pretend(corpus, "scratch", 1, 70)
    pretend(corpus, "scratch", 2, 72)
    pretend(corpus, "av2vec", 1, 50, "commit def")
    pretend(corpus, "av2vec", 2, 40)
    (tmp_path / "done" / "seed_2.score_av2vec_av_0dB_test_16").unlink()
    return corpus


def test_the_report_has_scores_gains_costs_and_versions_of_finished_seeds(corpus: Corpus) -> None:
    text = write(METHODS, corpus, "python run.py")
    assert "| from scratch |" + " 71.0 (70.0 to 72.0) |" * 5 + " 1, 2 |" in text
    assert "| AV2vec |" + " 50.0 |" * 5 + " 1 |" in text
    assert "| AV2vec - from scratch |" + " -20.0 (1 of 1) |" * 5 in text
    assert "| AV2vec | 12 | 6,205 | 10 | 30 |" in text
    assert "| from scratch | - | - | - | 30 |" in text
    assert "`python run.py`" in text
    assert "commit abc, commit def" in text
    assert "AV-HuBERT" not in text
    found = json.loads((corpus.out / "results.json").read_text())
    assert set(found["methods"]) == {"scratch", "av2vec"}
    (seed,) = found["methods"]["av2vec"]["seeds"].values()
    assert (seed["scores"]["test/audio_0dB"], seed["costs"]["frames"]) == (50.0, 6205)


def test_scores_of_another_machine_are_added_but_not_its_costs(corpus: Corpus, tmp_path: Path) -> None:
    write(METHODS, corpus, "x")
    other = read_corpus("toy", tmp_path / "other", quick=True)
    other.out.mkdir()
    pretend(other, "av2vec", 1, 20)  # also in the file, which loses
    pretend(other, "av2vec", 2, 30)
    document = json.loads((corpus.out / "results.json").read_text())
    document["machine"] = "an older one"
    (corpus.out / "results.json").write_text(json.dumps(document))
    text = write(METHODS, other, "x", corpus.out / "results.json")
    assert "| from scratch |" + " 71.0 (70.0 to 72.0) |" * 5 + " 1, 2 |" in text
    assert "| AV2vec |" + " 25.0 (20.0 to 30.0) |" * 5 + " 1, 2 |" in text
    scores, costs = text.split("## Cost")
    assert "an older one; " in scores
    assert "| AV2vec |" in costs
    assert "from scratch" not in costs
    merged = json.loads((other.out / "results.json").read_text())
    assert list(merged["methods"]["scratch"]["seeds"]) == ["1", "2"]
    assert merged["machine"].startswith("an older one; ")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"methods": {}}', '{"machine": "x", "methods": {"none": {"seeds": {}}}}']
)
def test_what_is_added_must_be_results_of_this_corpus(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(SystemExit, match=r"--add: .*results\.json: h"):
        main(["--add", str(tmp_path / "results.json"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_what_was_made_by_another_command_is_not_finished(corpus: Corpus) -> None:
    (corpus.out / "done" / "data").write_text('{"script": "of before"}')
    assert not any(collect(METHODS, corpus).values())


def test_labels_and_teachers_are_counted_separately(tmp_path: Path) -> None:
    corpus = read_corpus("toy", tmp_path, quick=True)
    pretend(corpus, "av_hubert_2", 1, 50)
    pretend(corpus, "distillav", 1, 50)
    runs = collect(METHODS, corpus)
    own = {"updates": 12, "frames": 6205, "seconds": 10, "fine-tuning": 30}
    earlier = {"earlier updates": 12, "earlier frames": 6205, "earlier seconds": 10, "labels": 20}
    taught = {"labels": 10, "teacher": 20, "teacher_targets": 20}
    for name, expected in (("av_hubert_2", own | earlier), ("distillav", own | taught)):
        assert {key: cost for key, cost in runs[name][1]["costs"].items() if cost} == expected
    assert cost_table(METHODS, runs).count("\n") == 3


def test_scores_of_probes_are_those_of_the_best_layer_and_recall_is_better_if_higher(tmp_path: Path) -> None:
    corpus = read_corpus("toy", tmp_path / "toy", quick=True)
    corpus.out.mkdir()
    pretend(corpus, "probe_av2vec", 1, 50)
    scores = collect(METHODS, corpus)["probe_av2vec"][1]["scores"]
    assert {scores[f"test/{streams}_phone"] for streams in ("video", "audio", "av")} == {49.0}
    assert {scores[f"test/{streams}_viseme"] for streams in ("video", "audio", "av")} == {54.0}
    emotions = read_corpus("toy_emotions", tmp_path / "emotions", quick=True)
    emotions.out.mkdir()
    for method, score in (("audio_only_longer", 50), ("soft_labels", 60), ("embeddings", 55)):
        pretend(emotions, method, 1, score)
    text = write(METHODS, emotions, "x")
    assert "| LUPI: embeddings | 55.0 | 53.0 | 51.0 | 1 |" in text
    better, worse = " +5.0 (1 of 1) |" * 3, " -5.0 (0 of 1) |" * 3
    assert f"| LUPI: embeddings - audio only, the updates of LUPI |{better}" in text
    assert f"| LUPI: embeddings - soft labels |{worse}" in text
    assert "positive is better" in text


def test_a_curve_shows_the_points_that_are_finished(tmp_path: Path) -> None:
    corpus = read_corpus("grid", tmp_path, quick=False)
    pretend(corpus, "scratch_labels", 1, 50)
    for score in tmp_path.glob("done/seed_1.score_*_650"):
        score.unlink()
    scores = collect(METHODS, corpus)["scratch_labels"][1]["scores"]
    points = {f"{subset}/video_clean@{n}" for subset in corpus.subsets for n in (10, 20, 50, 100, 200)}
    assert scores == dict.fromkeys(points, 50.0)


def test_the_leaderboard_has_the_minutes_of_all_stages_and_who_reaches_the_rate(tmp_path: Path) -> None:
    corpus = read_corpus("grid", tmp_path, quick=True, validation=True)
    for method, score in (("scratch", 80), ("av2vec", 40), ("av_hubert_2", 30)):
        pretend(corpus, method, 1, score)
    pretend(corpus, "av2vec_mlm", 1, 20)
    (tmp_path / "done" / "seed_1.pretrain_av2vec_mlm").write_text(
        (tmp_path / "done" / "seed_1.pretrain_av2vec_mlm").read_text().replace('"cpu": 10, ', "")
    )
    text = write(METHODS, corpus, "x").partition("## Leaderboard")[2]
    costs = json.loads((tmp_path / "validation.json").read_text())["methods"]["av2vec_mlm"]["seeds"]["1"][
        "costs"
    ]
    assert "seconds" not in costs  # not NaN, which JSON does not have
    assert costs["earlier seconds"] == 10
    rows = [
        line
        for line in text.partition("## Cost")[0].splitlines()
        if line.startswith("| ") and "%" not in line
    ]
    assert rows == [  # two trainings of 10 s each; with two iterations four and two clusterings
        "| AV2vec | 0.2 | 40.0 | yes | 1 |",
        "| AV-HuBERT, 2nd iteration | 0.4 | 30.0 | yes | 1 |",
        "| from scratch | 0.1 | 80.0 | no | 1 |",
    ]


def test_a_score_that_is_missing_is_named(corpus: Corpus) -> None:
    steps = Steps(METHODS, corpus, 1)
    step = next(iter(steps.scores(METHODS.methods["scratch"]).values()))
    (step.result / "generate-test.txt").write_text("killed")
    with pytest.raises(ValueError, match=r"generate-test\.txt holds no score: delete .*done/seed_1"):
        collect(METHODS, corpus)


def test_a_finished_demo_only_prints_its_table(tmp_path: Path) -> None:
    corpus = read_corpus("demo", tmp_path, quick=True)
    for method, score in (("scratch", 72.25), ("av2vec", 52.25)):
        pretend(corpus, method, 3, score)
    demo = Path(report.__file__).parents[1] / "toy" / "demo.py"
    # make sees nothing to do: it is given a program that does nothing, and results of before.
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "make").write_text("#!/bin/sh\n")
    (fake / "make").chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(demo), "--quick", "--seed", "3", "--out", str(tmp_path)]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[:6] == [
        "Word error rate in %: 8 test clips of unseen speakers, 16 labelled clips, 40 without labels; "
        "AV2vec's teacher gets audio alone.",
        "",
        "| | VSR | ASR, clean | AVSR, clean | ASR, 0 dB babble | AVSR, 0 dB babble | seeds |",
        "|---|---|---|---|---|---|---|",
        "| from scratch |" + " 72.2 |" * 5 + " 3 |",
        "| AV2vec |" + " 52.2 |" * 5 + " 3 |",
    ]
    assert lines[7].startswith("`make demo-quick`, seed 3, ")
    assert "5. Decoding" in printed
