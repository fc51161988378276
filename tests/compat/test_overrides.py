"""Overrides of ``fairseq-hydra-train``: with or without a plus sign, unknown keys, mistakes in one line."""

from __future__ import annotations

import argparse
import copy
import os
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.trainer import Trainer
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from av_ssl.analysis.plan import read_recipe
from av_ssl.errors import DataError
from av_ssl.layout import START_FOLDER, start_folder
from av_ssl.recognition.search import SearchConfig
from av_ssl.tasks.recognition import RecognitionConfig
from av_ssl_fairseq_hook.checkpoints import read_file
from av_ssl_fairseq_hook.mistakes import Mistake, check_recipe, check_schedule, explain_options, one_line
from av_ssl_fairseq_hook.paths import resolve_paths
from tests.stock import PLUGIN, REPOSITORY, stock

RECIPE = REPOSITORY / "examples" / "av2vec" / "conf" / "pretrain" / "base_lrs3.yaml"


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task.noise_prob", 0.25),
        ("model.encoder_layers", 3),
        ("common.cpu", True),
        ("optimization.max_update", 7),
    ],
)
def test_a_key_takes_a_plus_or_none(plus: str, key: str, value: object) -> None:
    section, name = key.split(".")
    cfg = read_recipe(RECIPE, Path("/data"), [f"{plus}{key}={value}"])
    assert cfg[section][name] == value


@pytest.mark.parametrize("override", ["common.no_such_key=1", "~task.no_such_key", "dataset.max_tokens.x=1"])
def test_what_fairseq_lacks_is_refused(override: str) -> None:
    with pytest.raises(DataError, match=override.strip("~").split("=")[0].split(".")[1]):
        read_recipe(RECIPE, Path("/data"), [override])


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("modalities=av", "task.modalities"),
        ("+max_updates=3", "did you mean optimization.max_update?"),
        ("qqq=5", "task.qqq"),
        ("optimisation.max_update=3", "no section optimisation; did you mean optimization?"),
    ],
)
def test_a_key_without_its_section_is_refused(override: str, fix: str) -> None:
    """Fairseq would pass it over."""
    with pytest.raises(DataError, match=f"{override.lstrip('+').split('=')[0]}: .*{re.escape(fix)}"):
        read_recipe(RECIPE, Path("/data"), [override])


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("--task.noise_prob=0.25", "--task.noise_prob=0.25: .*KEY=VALUE"),
        ("task.noise_prob = 0.25", "task.noise_prob = 0.25: .*KEY=VALUE"),
        ("task.noise_prob:0.25", "task.noise_prob:0.25: .*KEY=VALUE"),
        ("optimizer.adam_betas=(0.9,0.98)", "adam_betas=.*KEY="),
        ("task.labels=wrd,km", r"task.labels=wrd,km: .*\[a,b\]"),
        ("task.labels=km", r"task.labels: .*task.labels=\["),
        ("optimization.lr=0.001", r"optimization.lr: .*optimization.lr=\["),
        ("optimization.max_update=1e5", "optimization.max_update: .*100000.0"),
        ("dataset.max_token=5", "dataset.max_token: .*did you mean max_tokens?"),
        ("model=av2vec", "model._name="),
    ],
)
def test_an_override_that_hydra_cannot_read(override: str, fix: str) -> None:
    with pytest.raises(DataError, match=fix) as error:
        read_recipe(RECIPE, Path("/data"), [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path",
    [
        "/tmp/données", "数据", "/data/x (copy)", "a=b", "[1]", "/a/[1]/b", "~/data", "007", "1", "true",
        "/a'b/c", '/a"b/c', "/a b/c  d", "/a;b&c#d!e", "/a,b", "/a,/b", "/é:1", "/a\\b/c", "C(1)/{x}",
    ],
)  # fmt: skip
def test_paths_hold_any_characters(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fairseq-hydra-train"])
    keys = ("task.data", "+task.label_dir", "model.w2v_path", "checkpoint.save_dir", "hydra.run.dir")
    parsed = OverridesParser.create().parse_overrides([f"{key}={path}" for key in keys])
    assert [override.value() for override in parsed] == [path] * len(keys)


def test_several_runs_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fairseq-hydra-train", "-m"])
    (override,) = OverridesParser.create().parse_overrides(["task.data=/a,/b"])
    assert override.is_sweep_override()


def test_what_a_command_of_fairseq_misses() -> None:
    """The metric of the best checkpoint, after a validation; an option that it needs."""
    module: dict[str, Any] = {"__name__": "fairseq_cli.train"}
    exec(
        "def validate(stats, metric): return stats[metric]\ndef main(path): assert path, '--path needed'",
        module,
    )
    with pytest.raises(KeyError) as error:
        module["validate"]({"loss": 1.0, "wer": 2.0}, "wrr")
    assert "checkpoint.best_checkpoint_metric=wrr: validation measures loss, wer" in str(
        one_line(error.value)
    )
    with pytest.raises(AssertionError) as missing:
        module["main"](None)
    assert one_line(missing.value) == "--path needed"
    assert one_line(AssertionError("--path needed")) is None


def test_resuming_with_another_model() -> None:
    """Fairseq's trainer hides why."""

    def fail(text: str) -> BaseException:
        try:
            try:
                torch.nn.Linear(2, 2).load_state_dict(torch.nn.Linear(2, 3).state_dict())
            except Exception:
                raise Exception(text)  # noqa: B904 - as the trainer does
        except Exception as error:
            return error

    text = "Cannot load model parameters from checkpoint /s/checkpoint_last.pt; please ensure that the ..."
    line = str(one_line(fail(text)))
    assert line.startswith("/s/checkpoint_last.pt: ")
    assert "size mismatch for weight" in line
    assert "checkpoint.save_dir" in line
    assert "\n" not in line
    assert one_line(fail("another error")) is None


def test_parts_of_a_configuration_are_copied_alone() -> None:
    whole = OmegaConf.create({"task": {"rate": 25, "labels": ["wrd"]}, "model": {"rate": "${task.rate}"}})
    part = copy.deepcopy(whole.model)
    assert part.rate == 25
    assert vars(part)["_parent"] is whole
    both = copy.deepcopy({"part": whole.task, "whole": whole})
    both["part"].rate, both["whole"].task.rate, both["whole"].task.labels[0] = 50, 100, "km"
    assert both["whole"].model.rate == 100  # that of its own parent
    assert (whole.task.rate, list(whole.task.labels)) == (25, ["wrd"])
    assert vars(both["whole"].task)["_parent"] is both["whole"]


def test_other_values_are_parsed_as_before() -> None:
    texts = [
        "task.label_dir=null", "task.labels=[km]", "model.teachers=[/é/a, '/b c']", "optimization.lr=[0.1]",
        "task.data='/a b'",
    ]  # fmt: skip
    values = [override.value() for override in OverridesParser.create().parse_overrides(texts)]
    assert values[:2] + values[3:] == [None, ["km"], [0.1], "/a b"]
    assert list(map(str, values[2])) == ["/é/a", "/b c"]
    with pytest.raises(OverrideParseException):
        OverridesParser.create().parse_overrides(["task.labels=[km"])


def test_relative_paths_start_where_the_command_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a job that hydra runs in another folder."""
    (tmp_path / "données (1)").mkdir()
    (tmp_path / "run" / "old").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    sections = {
        "task": {"data": "données (1)", "label_dir": "${task.data}", "noise_wav": None, "_name": "x"},
        "model": {"w2v_path": "old", "teachers": ["run", "/"]},
        "checkpoint": {"restore_file": "checkpoint_last.pt", "save_dir": "old"},
        "common": {"user_dir": "???"},
    }

    def job(cfg: DictConfig) -> tuple[Any, str]:
        return OmegaConf.to_container(cfg, resolve=True), str(start_folder())

    module = SimpleNamespace(run_job=lambda config, task: (os.chdir("run"), task(config))[1])
    resolve_paths(module)
    config = OmegaConf.create(sections)
    OmegaConf.set_struct(config, True)
    found, start = module.run_job(config, job)
    assert start == str(tmp_path)
    assert found["task"]["data"] == found["task"]["label_dir"] == str(tmp_path / "données (1)")
    assert found["model"] == {
        "w2v_path": "old",
        "teachers": [str(tmp_path / "run"), "/"],
    }  # in hydra's folder
    assert found["checkpoint"] == sections["checkpoint"]
    monkeypatch.chdir(tmp_path)
    for section, key in (("task", "data"), ("model", "w2v_path")):
        with pytest.raises(SystemExit) as error:
            module.run_job(OmegaConf.create({section: {key: "nowhere"}}), job)
        assert str(error.value).startswith(f"error: {section}.{key}=nowhere: ")
        assert str(tmp_path) in str(error.value)
        monkeypatch.chdir(tmp_path)
    assert START_FOLDER not in os.environ


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.mask_prob_audo=0.5", ("mask_prob_audo", "mask_prob_audio")),
        ("task.modalites=av", ("modalites", "modalities")),
        ("task.modalities=visual", ("task.modalities", "visual", "audio, video, av")),
        ("common.cpuu=true", ("common.cpuu", "did you mean cpu?")),
        ("optimization.max_update=many", ("optimization.max_update", "many")),
        ("optimizer.adam_betaz=1", ("optimizer.adam_betaz", "adam_betas")),
        ("criterion._name=av2vek", ("criterion._name=av2vek", "av2vec")),
        ("task.data=nowhere", ("nowhere", "where the command was started")),
        (
            "distributed_training.distributed_world_size=99",
            ("distributed_world_size=99", "distributed_world_size="),
        ),
    ],
)
def test_a_mistake_is_one_line(override: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    output = stock(
        "fairseq-hydra-train", "--config-dir", RECIPE.parent, "--config-name", RECIPE.stem, "common.cpu=true",
        "common.fp16=false", f"common.user_dir={PLUGIN}", f"hydra.run.dir={tmp_path}", "task.data=/",
        "distributed_training.distributed_world_size=1", "model.encoder_layers=1",
        "model.average_top_k_layers=1",
        "model.encoder_embed_dim=16", "model.encoder_ffn_embed_dim=16", "model.encoder_attention_heads=2",
        override, expect=1,
    )  # fmt: skip
    line = next(line for line in output.splitlines() if line.startswith("error: "))
    assert all(part in line for part in parts)
    assert "Traceback" not in output


PHASES = {"_name": "tri_stage", "phase_ratio": [0.3, 0.5, 0.2]}


def trainer_config(**changes: object) -> DictConfig:
    cfg = read_recipe(RECIPE, Path("/data"), ["common.cpu=true", "common.fp16=false"])
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"common__fp16": True}, ("common.fp16=true", "common.fp16=false")),
        ({"optimization__max_update": 3, "lr_scheduler": PHASES}, ("max_update=3", "phase_ratio")),
    ],
)
def test_a_recipe_for_another_machine_or_length_is_refused(
    changes: dict[str, object], parts: tuple[str, ...]
) -> None:
    with pytest.raises(Mistake) as error:
        Trainer(trainer_config(**changes), None, torch.nn.Linear(1, 1), None)
    assert all(part in str(error.value) for part in parts)


@pytest.mark.parametrize(
    "schedule", [None, {"_name": "polynomial_decay"}, {"_name": "tri_stage", "phase_ratio": None}]
)
def test_other_schedules_are_not_checked(schedule: dict[str, object] | None) -> None:
    with pytest.raises(AttributeError, match=r"datasets|'NoneType'"):  # the trainer has begun, without a task
        Trainer(trainer_config(lr_scheduler=schedule), None, torch.nn.Linear(1, 1), None)


TRI_STAGE = {"_name": "tri_stage", "phase_ratio": None, "warmup_steps": 40, "decay_steps": 80}
POLYNOMIAL = {"_name": "polynomial_decay", "warmup_updates": 32, "total_num_update": 400}
COSINE = {"_name": "cosine", "warmup_updates": 30, "lr_period_updates": 90}


@pytest.mark.parametrize(
    ("schedule", "updates", "frozen", "scaled"),
    [
        (TRI_STAGE, 12, 60, "warmup_steps=4 lr_scheduler.decay_steps=8 model.freeze_finetune_updates=6"),
        (TRI_STAGE, 60, 60, "warmup_steps=20 lr_scheduler.decay_steps=40 model.freeze_finetune_updates=30"),
        (COSINE, 12, 0, "warmup_updates=3 lr_scheduler.lr_period_updates=9"),
        (POLYNOMIAL, 4, 0, "total_num_update=4"),
        (TRI_STAGE, 61, 60, None),  # ends early, but trains
        (TRI_STAGE, 120, 120, None),  # only the head is trained, by intention
        (COSINE, 30, 0, None),
        (None, 3, 60, None),
    ],
)
def test_a_schedule_for_a_longer_run_is_scaled(
    schedule: dict[str, object] | None, updates: int, frozen: int, scaled: str | None, caplog
) -> None:
    model = {"freeze_finetune_updates": frozen}
    cfg = OmegaConf.create(
        {"optimization": {"max_update": updates}, "lr_scheduler": schedule, "model": model}
    )
    if frozen < updates or scaled is None:
        check_schedule(cfg)
        assert (scaled is None) == (not caplog.text)
        assert scaled is None or scaled in caplog.text
        return
    with pytest.raises(Mistake, match=f"optimization.max_update={updates} .*scaled to it: .*{scaled}"):
        check_schedule(cfg)


def test_a_recipe_that_does_not_exist(tmp_path: Path) -> None:
    check_recipe(str(RECIPE.parent), RECIPE.stem)
    with pytest.raises(Mistake, match=r"base_lrs4.*did you mean base_lrs3"):
        check_recipe(str(RECIPE.parent), "base_lrs4")
    with pytest.raises(Mistake, match=f"--config-dir {tmp_path}: "):
        check_recipe(str(tmp_path), "base_lrs3")


def test_which_errors_are_mistakes(tmp_path: Path) -> None:
    """Not those of Python or of bugs, whose traceback is needed."""

    def lengths() -> None:
        list(zip([1], [], strict=True))

    for error in (KeyError("x"), RuntimeError("x"), ValueError("x")):
        assert one_line(error) is None
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        lengths()
    assert one_line(caught.value) is None
    assert one_line(DataError("train.tsv, line 3: x")) == "train.tsv, line 3: x"
    assert "/x: is a folder" in str(one_line(IsADirectoryError(21, "Is a directory", "/x")))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert "av-ssl model convert" in str(one_line(IsADirectoryError(21, "Is a directory", str(tmp_path))))
    with pytest.raises(DataError, match=r"model\.safetensors: is read by av-ssl, .*av-ssl model convert"):
        read_file(tmp_path / "model.safetensors")
    assert "gone.pt" in str(one_line(OSError("Model file not found: gone.pt")))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SearchConfig(beam=0)
    assert "beam is 0" in str(one_line(caught.value))


class Unreadable(torch.utils.data.Dataset[int]):
    def __getitem__(self, index: int) -> int:
        raise DataError(f"2 clips cannot be read:\n  {index}: cut off")

    def __len__(self) -> int:
        return 1


def test_the_error_of_another_process_is_without_its_traceback() -> None:
    with pytest.raises(DataError) as caught:
        list(torch.utils.data.DataLoader(Unreadable(), num_workers=1))
    assert one_line(caught.value) == "2 clips cannot be read:\n  0: cut off"
    raised = type("ProcessRaisedException", (Exception,), {})
    assert one_line(raised(f"Traceback\n{DataError.__module__}.DataError: {caught.value}")) == one_line(
        caught.value
    )
    assert one_line(raised("Traceback\nValueError: x")) is None


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--task", "av_recognition"], ("av_recognition", "--user-dir")),
        (["--beamm", "4"], ("--beamm", "--beam?")),
        (["--user-dir", "x", "--arch", "model_17x"], ("model_17x", "did you mean model_17")),
    ],
)
def test_options_of_commands_without_hydra(
    words: list[str],
    parts: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=["translation"])
    parser.add_argument("--beam")
    parser.add_argument("--user-dir")
    parser.add_argument("--arch", choices=[f"model_{number}" for number in range(40)])
    monkeypatch.setattr("sys.argv", words)
    module = ModuleType("options")
    module.get_parser = lambda: parser  # type: ignore[attr-defined]
    explain_options(module)
    with pytest.raises(SystemExit):
        module.get_parser().parse_args(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts)


def test_a_key_that_is_not_set_is_named_with_its_section() -> None:
    cfg = OmegaConf.structured(RecognitionConfig)
    with pytest.raises(MissingMandatoryValue) as caught:
        _ = cfg.data
    assert one_line(caught.value) == "task.data is not set: add task.data=VALUE to the command"
