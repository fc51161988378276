"""The script that chains self-training, with commands that only say how they were called."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples/self_training/run.sh"

# Dies where the test wants it to.
SAY = '#!/bin/bash\necho "$(basename "$0") $*" >>"$CALLS"\n[[ "$*" != *"$DIE_AT"* ]] || exit 1\n'
TRAIN = SAY + 'mkdir -p "$(sed "s/.*save_dir=\\([^ ]*\\).*/\\1/" <<<"$*")"\n'
GENERATE = (
    SAY + 'folder=$(sed "s/.*results-path \\([^ ]*\\).*/\\1/" <<<"$*")\n'
    'mkdir -p "$folder" && echo "WER: 12.5" >"$folder/generate-test.txt"\n'
)


@pytest.fixture
def run(tmp_path: Path):
    """Calls the script; gives the commands that it ran, its output and its exit status."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("av-ssl", SAY), ("fairseq-hydra-train", TRAIN), ("fairseq-generate", GENERATE)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    for folder in ("un labelled", "labelled"):
        (tmp_path / folder).mkdir()
    (tmp_path / "labelled" / "test.wrd").write_text("bin blue\n")
    for file in ("asr.pt", "encoder.pt"):
        (tmp_path / file).write_text("")
    calls = tmp_path / "calls"

    def call(
        *options: str | Path, die_at: str = "nowhere", given: str = "asr.pt,un labelled,labelled,encoder.pt"
    ):
        calls.write_text("")
        path = f"{commands}:{os.environ['PATH']}"
        positional = [tmp_path / word for word in given.split(",")]
        done = subprocess.run(
            [SCRIPT, *positional, tmp_path / "out", *options], capture_output=True, text=True, cwd="/",
            env={**os.environ, "PATH": path, "CALLS": str(calls), "DIE_AT": die_at},
        )  # fmt: skip
        return calls.read_text().splitlines(), done.stdout + done.stderr, done.returncode

    return call


def test_the_chain(run, tmp_path: Path):
    calls, output, status = run("--gpus", "2", "--keep", "0.8", "--min-confidence", "0.5", "--", "a.b=c d")
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
    for override in (
        f"task.data={out}/data",
        "task.modalities=video",
        f"model.w2v_path={tmp_path}/encoder.pt",
        "distributed_training.distributed_world_size=2",
        "a.b=c d",
    ):
        assert override in train
    assert f"--path {out}/model/checkpoint_best.pt --gen-subset test --modalities video" in generate
    assert output.endswith("WER: 12.5\n")


def test_goes_on_where_it_was_killed(run):
    calls, _, status = run(die_at="hydra.run.dir")
    assert (len(calls), status) == (3, 1)
    calls, output, _ = run()
    assert [call.split()[0] for call in calls] == ["av-ssl"] * 2 + ["fairseq-hydra-train", "fairseq-generate"]
    calls, output, _ = run()
    assert [call.split()[0] for call in calls] == ["av-ssl"] * 2 + ["fairseq-generate"]
    assert "the model is trained" in output
    assert len(run("--updates", "5")[0]) == 4  # another number is asked for: it is not finished


def test_trial_on_a_cpu_without_test_clips(run, tmp_path: Path):
    (tmp_path / "labelled" / "test.wrd").unlink()
    calls, _, _ = run("--gpus", "0", "--updates", "20", "--subset", "part", "--beam", "3")
    assert len(calls) == 3
    assert "--subset part" in calls[0]
    assert "--beam 3" in calls[0]
    assert "--device cpu --workers 1" in calls[0]
    for override in ("max_update=20", "common.cpu=true", "common.fp16=false"):
        assert override in calls[2]


def test_recipes_of_av_hubert_get_its_keys(run, tmp_path: Path):
    config = SCRIPT.parents[1] / "av_hubert/conf/finetune/self_large_vox_433h.yaml"
    calls, _, _ = run("--config", config)
    data = tmp_path / "out" / "data"
    keys = f"task.modalities=[video] task.label_dir={data} task.tokenizer_bpe_model={data}/spm.model"
    assert (
        f"--config-dir {config.parent} --config-name self_large_vox_433h task.data={data} {keys}" in calls[2]
    )
    calls, _, _ = run("--config", config, "--modalities", "av", "--updates", "1")
    assert "task.modalities=[audio,video]" in calls[2]
    assert "--modalities av" in calls[3]


def test_print_runs_nothing(run, tmp_path: Path):
    calls, output, status = run("--print")
    assert (calls, status) == ([], 0)
    assert len(re.findall(r"^\+ ", output, re.MULTILINE)) == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu", "1"], "unknown option --gpu"),
        (["--keep"], "--keep needs a value"),
        (["--gpus", "two"], "--gpus is two"),
        (["--modalities", "lips"], "--modalities is lips; take video, audio or av"),
        (["--config", "/none/such.yaml"], "/none/such.yaml: there is no such file"),
        (["--config", str(SCRIPT)], "take a .yaml file"),
        (["--updates", "1e5"], "--updates is 1e5"),
        (["sixth"], "Usage"),
    ],
)
def test_mistakes_are_named(run, options, message):
    calls, output, status = run(*options)
    assert (calls, status) == ([], 2)
    assert message in output


@pytest.mark.parametrize("missing", ["asr.pt", "un labelled", "labelled", "encoder.pt"])
def test_input_must_be_there(run, missing):
    given = "asr.pt,un labelled,labelled,encoder.pt".replace(missing, f"no {missing}", 1)
    if missing == "labelled":
        given = "asr.pt,un labelled,no labelled,encoder.pt"
    calls, output, status = run(given=given)
    assert (calls, status) == ([], 2)
    assert f"no {missing}: there is no such" in output
