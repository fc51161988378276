"""``av-ssl model plan``: numbers worked out by hand for a small folder, and steps that are really trained."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from av_ssl.analysis import plan as plan_module
from av_ssl.analysis.plan import Epoch, build, checkpoints_kept, read_recipe

from .conftest import call

REPOSITORY = Path(__file__).resolve().parents[2]
TOY = REPOSITORY / "examples" / "toy" / "conf" / "pretrain.yaml"
BASE = REPOSITORY / "examples" / "av2vec" / "conf" / "pretrain" / "base_lrs3.yaml"
LUPI = REPOSITORY / "examples" / "lupi" / "conf" / "emotion"
FINETUNE = REPOSITORY / "examples" / "toy" / "conf" / "finetune.yaml"
TINY = [
    "model.encoder_layers=2", "model.encoder_embed_dim=16", "model.encoder_ffn_embed_dim=32",
    "model.encoder_attention_heads=2", "model.conv_pos=8", "model.conv_pos_groups=2", "model.resnet_width=4",
    "model.average_top_k_layers=2", "task.image_crop_size=22",
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """100 clips of 100 frames and one that is too long, in a folder whose name hydra could not quote."""
    folder = tmp_path / "my data, v=1"
    folder.mkdir()
    lengths = [100] * 100 + [900]
    rows = [f"{k}\tv{k}.npy\ta{k}.wav\t{frames}\t{640 * frames}" for k, frames in enumerate(lengths)]
    (folder / "train.tsv").write_text("\n".join([str(folder), *rows]) + "\n")
    return folder


def plan(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, str]:
    assert call("model", "plan", *words) == 0
    return {line[:28].strip(): line[28:] for line in capsys.readouterr().out.splitlines()}


def test_updates_and_disk(data, capsys):
    words = ["dataset.max_tokens=500", "optimization.max_update=40", "--measure", 0]
    lines = plan(capsys, data, TOY, *words)
    assert lines["clips"].startswith("100 of 101 ")
    assert lines["hours of video"] == "0.1, padding adds 0.0%"
    assert lines["batches an epoch"] == "20 of up to 500 frames"
    assert lines["updates an epoch"] == "20 (1 GPUs x 1 micro-batches)"
    assert lines["updates"] == "40 = 2.0 epochs"
    assert "hours" not in lines


def test_recipes_of_larger_corpora(data, refused, capsys):
    words = ["dataset.max_tokens=500", "optimization.max_update=20020", "--measure", 0]
    assert "max_update=20000 " in plan(capsys, data, TOY, *words)["updates"]
    recipe = REPOSITORY / "examples" / "av2vec" / "conf" / "finetune" / "base_433h.yaml"
    words = ["task.modalities=av", "model.w2v_path=/none", "optimization.max_update=20"]
    assert "scaled to it: lr_scheduler." in refused(call("model", "plan", data, recipe, *words))


def test_base_has_its_published_size(data, capsys):
    lines = plan(capsys, data, BASE, "--measure", 0)
    assert lines["parameters"] == "103.2 M"
    assert "8 GPUs" in lines["updates an epoch"]


@pytest.mark.slow
def test_steps_are_trained_and_timed(data, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(101):
        np.save(data / f"v{number}.npy", rng.integers(0, 256, (100, 24, 24), dtype=np.uint8))
        wave = rng.normal(0, 3000, 64000).astype(np.int16)
        soundfile.write(data / f"a{number}.wav", wave, 16000)
    seconds = iter(range(100))
    monkeypatch.setattr(plan_module, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    words = ["dataset.max_tokens=400", "optimization.max_update=7200", *TINY]
    (data / "v0.npy").write_bytes(b"")
    monkeypatch.chdir(data)
    before = sorted(data.iterdir())
    lines = plan(capsys, data, TOY, *words)
    assert sorted(data.iterdir()) == before  # not even a list of bad clips
    assert lines["seconds a micro-batch"].startswith("1.00, mean of 2 on ")
    assert lines["hours"].startswith("2.0 on 1 ")
    assert float(lines["peak memory"].removesuffix(" GB")) > 0.1


@pytest.mark.parametrize(
    ("recipe", "overrides", "where"),
    [
        ("absent.yaml", (), r"absent\.yaml"),
        ("broken.yaml", (), r"broken\.yaml"),
        (TOY, ("dataset.no_such_key=1",), "no_such_key"),
        (FINETUNE, ("task.modalities=av",), r"model\.w2v_path=CHECKPOINT"),
        (LUPI / "student_embed.yaml", (), r"model\.teacher_path=CHECKPOINT"),
    ],
)
def test_what_is_wrong_is_named(recipe, overrides, where, data, tmp_path, refused):
    (tmp_path / "broken.yaml").write_text("# @package _group_\ntask: [\n")
    error = refused(call("model", "plan", data, tmp_path / recipe, *overrides))
    assert re.search(where, error)
    assert len(error.splitlines()) == 1


def test_a_missing_manifest_is_named(tmp_path, refused):
    assert str(tmp_path / "train.tsv") in refused(call("model", "plan", tmp_path, TOY, "--measure", "0"))


def test_batches_are_those_of_fairseq():
    epoch = Epoch.of([100] * 9 + [50] * 2, max_tokens=400, max_clips=None, multiple=1)
    assert epoch == Epoch(clips=11, batches=3, frames=1000, padded_frames=1100, largest=400)
    assert [epoch.updates(*setup) for setup in ((1, 1), (2, 1), (1, 2), (2, 2), (8, 4))] == [3, 2, 2, 1, 1]
    assert [Epoch.of([100] * 17, 2000, None, multiple).batches for multiple in (1, 8)] == [1, 2]
    assert Epoch.of([100] * 9, None, 4, multiple=1).batches == 3


def test_without_measurement_the_model_has_no_memory():
    cfg = read_recipe(BASE, Path("/none"))
    _, model = build(cfg, BASE, with_memory=False)
    assert all(parameter.device.type == "meta" for parameter in model.parameters())


def test_checkpoints_are_counted():
    cfg = read_recipe(BASE, Path("/none"))
    assert checkpoints_kept(cfg, 200_000, 100) == 3  # last, best, one of those every 25000 updates
    cfg.checkpoint.keep_interval_updates = -1
    assert checkpoints_kept(cfg, 200_000, 100) == 10
    cfg.checkpoint.no_epoch_checkpoints = False
    assert checkpoints_kept(cfg, 200_000, 20_000) == 20
    cfg.checkpoint.keep_last_epochs = 3
    assert checkpoints_kept(cfg, 200_000, 20_000) == 13
