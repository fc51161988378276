"""The scripts that chain AV-HuBERT's iterations and self-training, with commands that only say how they were
called."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
AV_HUBERT = EXAMPLES / "av_hubert/run.sh"
SELF_TRAINING = EXAMPLES / "self_training/run.sh"
FOLDERS = {AV_HUBERT: "data", SELF_TRAINING: "asr.pt,un labelled,labelled,encoder.pt"}

# Dies where the test wants it to.
SAY = '#!/bin/bash\necho "$(basename "$0") $*" >>"$CALLS"\n[[ "$*" != *"$DIE_AT"* ]] || exit 1\n'
TRAIN = SAY + 'mkdir -p "$(sed "s/.*save_dir=\\([^ ]*\\).*/\\1/" <<<"$*")"\n'
GENERATE = (
    SAY + 'folder=$(sed "s/.*results-path \\([^ ]*\\).*/\\1/" <<<"$*")\n'
    'mkdir -p "$folder" && echo "WER: 12.5" >"$folder/generate-test.txt"\n'
)

Run = Callable[..., tuple[list[str], str, int]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Calls a script; gives the commands that it ran, its output and its exit status."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("av-ssl", SAY), ("fairseq-hydra-train", TRAIN), ("fairseq-generate", GENERATE)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    for folder in ("data", "un labelled", "labelled"):
        (tmp_path / folder).mkdir()
    (tmp_path / "labelled" / "test.wrd").write_text("bin blue\n")
    for file in ("asr.pt", "encoder.pt"):
        (tmp_path / file).write_text("")
    calls = tmp_path / "calls"

    def call(
        script: Path, *options: str | Path, die_at: str = "nowhere", given: str | None = None
    ) -> tuple[list[str], str, int]:
        calls.write_text("")
        path = f"{commands}:{os.environ['PATH']}"
        positional = [tmp_path / word for word in (given or FOLDERS[script]).split(",")]
        done = subprocess.run(
            [script, *positional, tmp_path / "out", *options], capture_output=True, text=True, cwd="/",
            env={**os.environ, "PATH": path, "CALLS": str(calls), "DIE_AT": die_at},
        )  # fmt: skip
        return calls.read_text().splitlines(), done.stdout + done.stderr, done.returncode

    return call


def test_five_iterations(run: Run, tmp_path: Path) -> None:
    calls, _, status = run(AV_HUBERT, "--gpus", "4")
    assert status == 0
    targets, trainings = calls[::2], calls[1::2]
    clusters = [re.search(r"--clusters (\d+)", call)[1] for call in targets]
    assert clusters == ["100", "100", "500", "1000", "2000"]
    assert "--label-name mfcc" in targets[0]
    assert "--checkpoint" not in targets[0]
    for iteration, layer in ((2, 9), (3, 12), (4, 12), (5, 12)):
        checkpoint = tmp_path / f"out/iteration{iteration - 1}/checkpoint_last.pt"
        assert f"--checkpoint {checkpoint} --layer {layer} --device cuda" in targets[iteration - 1]
    for iteration, call in enumerate(trainings, start=1):
        assert f"--config-name base_lrs3_iter{iteration} " in call
        assert f"task.label_dir={tmp_path}/out/labels{iteration} " in call
        assert "distributed_training.distributed_world_size=4" in call
        assert "max_update" not in call


def test_iterations_go_on_where_they_were_killed(run: Run) -> None:
    calls, _, status = run(AV_HUBERT, "--iterations", "3", die_at="base_lrs3_iter2")
    assert status == 1
    assert len(calls) == 4
    calls, output, status = run(AV_HUBERT, "--iterations", "3")
    assert status == 0
    assert "iteration 1 is trained" in output
    trained = [re.search(r"base_lrs3_iter\d", call)[0] for call in calls if call.startswith("fairseq")]
    assert trained == ["base_lrs3_iter2", "base_lrs3_iter3"]


def test_trial_of_an_iteration_on_a_cpu(run: Run) -> None:
    trial = ("--iterations", "1", "--gpus", "0", "--corpus", "vox", "--updates")
    calls, _, _ = run(AV_HUBERT, *trial, "200", "--", "a.b=c d")
    assert "--config-name base_vox_iter1" in calls[1]
    for override in ["max_update=200", "total_num_update=200", "warmup_updates=16", "common.cpu=true"]:
        assert override in calls[1]
    assert "a.b=c d" in calls[1]
    assert (
        len(run(AV_HUBERT, *trial, "300", "--", "a.b=c d")[0]) == 2
    )  # more are asked for: it is not finished
    calls, output, status = run(AV_HUBERT, *trial, "300", "--", "a.b=e")
    assert (len(calls), status) == (1, 2)
    assert "out/iteration1: was trained with other settings" in output


def test_self_training(run: Run, tmp_path: Path) -> None:
    options = ("--gpus", "2", "--keep", "0.8", "--min-confidence", "0.5", "--", "a.b=c d")
    calls, output, status = run(SELF_TRAINING, *options)
    assert status == 0
    transcribe, pseudo_labels, train, generate = calls
    out = tmp_path / "out"
    assert transcribe.startswith(
        f"av-ssl transcribe {tmp_path}/asr.pt {tmp_path}/un labelled --subset train --out {out}/transcripts"
    )
    assert "--min-frames 10 --max-frames 600 --device cuda --workers 2" in transcribe
    assert pseudo_labels == (
        f"av-ssl data pseudo-labels {tmp_path}/un labelled {out}/transcripts --subset train --labelled "
        f"{tmp_path}/labelled --min-confidence 0.5 --keep 0.8 --out {out}/data"
    )
    assert "--config-name base_433h task" in train
    assert f"task.data={out}/data task.modalities=video model.w2v_path={tmp_path}/encoder.pt" in train
    assert "distributed_training.distributed_world_size=2" in train
    assert "a.b=c d" in train
    assert f"--path {out}/model/checkpoint_best.pt --gen-subset test --modalities video" in generate
    assert output.endswith("WER: 12.5\n")


def test_self_training_goes_on_where_it_was_killed(run: Run) -> None:
    calls, _, status = run(SELF_TRAINING, die_at="hydra.run.dir")
    assert (len(calls), status) == (3, 1)
    calls, output, _ = run(SELF_TRAINING)
    assert [call.split()[0] for call in calls] == ["av-ssl"] * 2 + ["fairseq-hydra-train", "fairseq-generate"]
    calls, output, _ = run(SELF_TRAINING)
    assert [call.split()[0] for call in calls] == ["av-ssl"] * 2 + ["fairseq-generate"]
    assert "the model is trained" in output
    assert len(run(SELF_TRAINING, "--updates", "5")[0]) == 4  # more are asked for: it is not finished
    calls, output, status = run(SELF_TRAINING, "--modalities", "audio")
    assert status == 2
    assert not any(call.startswith("fairseq") for call in calls)
    assert "out/model: was trained with other settings" in output


def test_self_training_on_a_cpu_without_test_clips(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labelled" / "test.wrd").unlink()
    calls, _, _ = run(SELF_TRAINING, "--gpus", "0", "--subset", "part")
    assert len(calls) == 3
    assert "--subset part" in calls[0]
    assert "--device cpu --workers 1" in calls[0]
    assert "common.cpu=true" in calls[2]


def test_recipes_of_av_hubert_get_its_keys(run: Run, tmp_path: Path) -> None:
    config = EXAMPLES / "av_hubert/conf/finetune/self_large_vox_433h.yaml"
    calls, _, _ = run(SELF_TRAINING, "--config", config)
    data = tmp_path / "out" / "data"
    keys = f"task.modalities=[video] task.label_dir={data} task.tokenizer_bpe_model={data}/spm.model"
    chosen = f"--config-dir {config.parent} --config-name self_large_vox_433h"
    assert f"{chosen} task.data={data} {keys}" in calls[2]
    shutil.rmtree(tmp_path / "out")
    calls, _, _ = run(SELF_TRAINING, "--config", config, "--modalities", "av", "--updates", "1")
    assert "task.modalities=[audio,video]" in calls[2]
    assert "--modalities av" in calls[3]


@pytest.mark.parametrize(("script", "options"), [(AV_HUBERT, ["--iterations", "2"]), (SELF_TRAINING, [])])
def test_print_runs_nothing(run: Run, tmp_path: Path, script: Path, options: list[str]) -> None:
    calls, output, status = run(script, "--print", *options)
    assert (calls, status) == ([], 0)
    assert len(re.findall(r"^\+ ", output, re.MULTILINE)) == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        *[
            (script, options, message)
            for script in (AV_HUBERT, SELF_TRAINING)
            for options, message in (
                (["--gpu", "1"], "unknown option --gpu"),
                (["--gpus"], "--gpus needs a value"),
                (["--gpus", "two"], "--gpus is two"),
                (["--updates", "1e5"], "--updates is 1e5"),
                (["one too many"], "Usage"),
            )
        ],
        (AV_HUBERT, ["--iterations", "6"], "--iterations is 6; take 1 to 5"),
        (AV_HUBERT, ["--corpus", "lrs2"], "take lrs3 or vox"),
        (AV_HUBERT, ["--clusters", "10,20"], "--clusters names 2 numbers for 5 iterations"),
        (SELF_TRAINING, ["--modalities", "lips"], "--modalities is lips; take video, audio or av"),
        (SELF_TRAINING, ["--config", "/none/such.yaml"], "/none/such.yaml: there is no such file"),
        (SELF_TRAINING, ["--config", str(SELF_TRAINING)], "take a .yaml file"),
    ],
)
def test_mistakes_are_named(run: Run, script: Path, options: list[str], message: str) -> None:
    calls, output, status = run(script, *options)
    assert (calls, status) == ([], 2)
    assert message in output


@pytest.mark.parametrize(
    ("script", "given", "missing"),
    [
        (AV_HUBERT, "none/such", "none/such"),
        (SELF_TRAINING, "none,un labelled,labelled,encoder.pt", "none"),
        (SELF_TRAINING, "asr.pt,none,labelled,encoder.pt", "none"),
        (SELF_TRAINING, "asr.pt,un labelled,none,encoder.pt", "none"),
        (SELF_TRAINING, "asr.pt,un labelled,labelled,none", "none"),
    ],
)
def test_input_must_be_there(run: Run, script: Path, given: str, missing: str) -> None:
    calls, output, status = run(script, given=given)
    assert (calls, status) == ([], 2)
    assert f"{missing}: there is no such" in output
