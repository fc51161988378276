"""`av-ssl plan`: numbers worked out by hand for a small folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from av_ssl.analysis.plan import (
    Epoch,
    Speed,
    build_on_no_device,
    checkpoints_kept,
    memory,
    multiply_adds,
    read_recipe,
)
from av_ssl.checkpoints.files import write_stored
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.cli.main import main
from av_ssl.errors import DataError
from av_ssl.modules.spectrogram_frontend import SpectrogramResNet
from benchmarks.training_step import forward_multiply_adds
from tests.models.classifiers import classifier

REPOSITORY = Path(__file__).resolve().parents[2]
TOY = REPOSITORY / "examples" / "toy" / "conf" / "pretrain.yaml"
BASE = REPOSITORY / "examples" / "av2vec" / "conf" / "pretrain" / "base_lrs3.yaml"
LUPI = REPOSITORY / "examples" / "lupi" / "conf" / "emotion"
FINETUNE = REPOSITORY / "examples" / "toy" / "conf" / "finetune.yaml"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """100 clips of 100 frames and one that is too long, in a folder whose name hydra could not quote."""
    folder = tmp_path / "my data, v=1"
    folder.mkdir()
    lengths = [100] * 100 + [900]
    rows = [f"{k}\tv{k}.mp4\ta{k}.wav\t{frames}\t{640 * frames}" for k, frames in enumerate(lengths)]
    (folder / "train.tsv").write_text("\n".join([str(folder), *rows]) + "\n")
    for name, size in (("v", 3000), ("a", 128044)):
        for number in range(101):
            (folder / f"{name}{number}.{'mp4' if name == 'v' else 'wav'}").write_bytes(b"0" * size)
    return folder


def plan(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, str]:
    assert main(["plan", *map(str, words)]) == 0
    return {line[:28].strip(): line[28:] for line in capsys.readouterr().out.splitlines()}


def test_updates_hours_and_disk(data, capsys):
    lines = plan(capsys, data, TOY, "dataset.max_tokens=500", "optimization.max_update=40", "--tflops", "10")
    assert lines["clips"].startswith("100 of 101 ")
    assert lines["hours"].startswith("0.1, padding adds 0.0%")
    assert lines["batches an epoch"] == "20 of up to 500 frames"
    assert lines["updates an epoch"] == "20 (1 GPUs x 1 micro-batches)"
    assert lines["updates"] == "40 = 2.0 epochs"
    assert "ESTIMATE: 30% of 10 TFLOP/s" in lines["speed"]
    assert lines["disk, clips"] == "0.0 GB, from the files of 100 clips"


def test_measured_step_times(data, tmp_path, capsys):
    file = tmp_path / "step.json"
    row = {"step": "as shipped", "frames_per_second": 34, "peak_memory_gb": 8, "share_of_matrix_peak": 0.41}
    machine = {"machine": "Xeon", "size": "base", "dtype": "float32", "matrix_peak_gflops": 202.0}
    content = {**machine, "real_frames": 1040, "padded_frames": 1300, "rows": [row]}
    file.write_text(json.dumps(content))
    lines = plan(capsys, "--measured", file, data, BASE, "distributed_training.distributed_world_size=1")
    # The benchmark measured this very model, so its frames/s come out again.
    speed = float(lines["speed"].split()[0])
    assert speed == pytest.approx(34, abs=1)
    assert "measured on Xeon" in lines["speed"]
    updates, frames = 200_000, float(lines["frames an update"].split()[0].replace(",", ""))
    printed = float(lines["GPU-hours"].split(", so")[0].replace(",", ""))
    assert printed == pytest.approx(updates * frames / speed / 3600, rel=0.03)


@pytest.mark.parametrize("content", ["", "[]", '{"rows": []}', '{"rows": [{"step": "as shipped"}]}'])
def test_other_files_are_no_measurement(tmp_path, content):
    (tmp_path / "step.json").write_text(content)
    with pytest.raises(DataError, match=r"step\.json: holds no step time"):
        Speed.measured(tmp_path / "step.json")


@pytest.mark.slow
def test_what_is_wrong_is_named(data, tmp_path, capsys):
    broken = tmp_path / "broken.yaml"
    broken.write_text("# @package _group_\ntask: [\n")
    (data / "dict.wrd.txt").write_text("a 1\n")
    for words, text in (
        ((data, tmp_path / "absent.yaml"), "absent.yaml: there is no such file"),
        ((data, broken), "broken.yaml: is no recipe"),
        ((data, TOY, "dataset.no_such_key=1"), "no_such_key"),
        ((tmp_path, TOY), "train.tsv: cannot be read"),
        ((data, FINETUNE, "task.modalities=av"), "model.w2v_path=CHECKPOINT"),
    ):
        assert main(["plan", *map(str, words)]) == 1
        assert text in capsys.readouterr().err


def test_batches_are_those_of_fairseq():
    epoch = Epoch.of([100] * 9 + [50] * 2, max_tokens=400, max_clips=None, multiple=1)
    assert epoch == Epoch(clips=11, batches=3, frames=1000, padded_frames=1100)
    assert [epoch.updates(*setup) for setup in ((1, 1), (2, 1), (1, 2), (2, 2), (8, 4))] == [3, 2, 2, 1, 1]
    assert [Epoch.of([100] * 17, 2000, None, multiple).batches for multiple in (1, 8)] == [1, 2]
    assert Epoch.of([100] * 9, None, 4, multiple=1).batches == 3


@pytest.fixture(scope="module")
def base():
    """Configuration and model of the Base recipe."""
    cfg = read_recipe(BASE, Path("/none"))
    return cfg, build_on_no_device(cfg, BASE)[1]


def test_multiply_adds_agree_with_the_benchmark_s_formula(base):
    cfg, model = base
    assert multiply_adds(model, 88) == pytest.approx(forward_multiply_adds(cfg.model, 1), rel=0.01)
    assert multiply_adds(model, 44) < 0.5 * multiply_adds(model, 88)
    assert all(parameter.device == torch.device("meta") for parameter in model.parameters())


def test_memory_is_near_to_what_was_measured(base):
    """8.0 GB for 1040 real of 1300 frames, float32, on a CPU (benchmarks/README.md)."""
    estimate = memory(base[1], 88, 1040, half=False, averaged=True)
    assert (estimate.states + estimate.activations) / 1e9 == pytest.approx(8.0, rel=0.2)
    assert memory(base[1], 88, 2080, half=True).activations == pytest.approx(estimate.activations)


def test_checkpoints_are_counted(base):
    cfg = base[0].copy()
    assert checkpoints_kept(cfg, 200_000, 100) == 3  # last, best, one of those every 25000 updates
    cfg.checkpoint.keep_interval_updates = -1
    assert checkpoints_kept(cfg, 200_000, 100) == 10
    cfg.checkpoint.no_epoch_checkpoints = False
    assert checkpoints_kept(cfg, 200_000, 20_000) == 20
    cfg.checkpoint.keep_last_epochs = 3
    assert checkpoints_kept(cfg, 200_000, 20_000) == 13


def test_convolutions_over_a_spectrogram_are_counted():
    resnet = SpectrogramResNet(16, 26, width=4, blocks=(1, 2, 1, 1)).eval()
    counted = []

    def count(layer, _, output):
        positions = output.shape[1:].numel() // layer.out_channels if output.dim() == 4 else output.shape[1]
        counted.append(layer.weight.numel() * positions)

    for layer in resnet.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    resnet(torch.zeros(1, 104, 10), torch.zeros(1, 10, dtype=torch.bool))
    assert multiply_adds(resnet, 88) == sum(counted) / 10
    assert memory(resnet, 88, 100, half=False).activations > 0


@pytest.fixture
def emotions(data):
    (data / "classes.emo.txt").write_text("calm\nglad\n")
    return data


def test_students_are_planned_without_files_that_are_not_given(emotions, capsys):
    embed = plan(capsys, emotions, LUPI / "student_embed.yaml")
    assert "without the teacher, whose file is not given" in embed["multiply-adds"]
    per_frame = int(embed["multiply-adds"].split(" M")[0])
    assert per_frame > 3  # convolutions, which were once left out
    head = plan(capsys, emotions, LUPI / "student_head.yaml")
    assert head["multiply-adds"] == f"{per_frame} M a frame and forward pass"
    # Nothing but the header is trained, so that there is one pass in place of three.
    speeds = [float(lines["speed"].split()[0].replace(",", "")) for lines in (embed, head)]
    assert speeds[1] == pytest.approx(3 * speeds[0], rel=0.01)


def test_what_cannot_be_built_ends_with_one_line(emotions, capsys):
    words = ("plan", emotions, LUPI / "student_embed.yaml", "+model.hint_dim=4")
    assert main([str(word) for word in words]) == 1
    error = capsys.readouterr().err
    assert "student_embed.yaml: its model cannot be built: model.hint_dim" in error
    assert len(error.splitlines()) == 1


def test_a_teacher_costs_a_pass(emotions, tmp_path, capsys):
    teacher = classifier(embed_dim=256)
    cfg = {**OmegaConf.to_container(teacher.cfg, enum_to_str=True), "_name": "av_classifier"}
    kept = {
        "_name": "av_classification", "normalize": False, "image_crop_size": 88, "audio_input": "filterbank",
        "segment_frames": 0, "segment_hop": 0, "image_mean": 0.421, "image_std": 0.165,
    }  # fmt: skip
    path = tmp_path / "teacher.pt"
    stored = StoredModel(path, {"model": cfg, "task": kept}, dict(teacher.state_dict()), None, [], ["calm"])
    write_stored(stored, path)
    lines = plan(capsys, emotions, LUPI / "student_embed.yaml", f"model.teacher_path={path}")
    cost = multiply_adds(teacher.encoder.backbone, 88) / 1e6
    assert lines["multiply-adds"].endswith(f" M a frame and forward pass; {cost:,.0f} M of the teacher")
