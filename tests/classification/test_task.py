"""The classification task: its data, and training by the stock commands, teacher to student to scores."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import av_ssl
from av_ssl.cli.main import main
from av_ssl.errors import DataError
from av_ssl.tasks import classification
from av_ssl.tasks.classification import (
    ClassificationConfig,
    ClassificationTask,
    ValidationEER,
    balanced_clips,
)
from tests.classification.labelled_clips import EMOTIONS, write_folder
from tests.data_folder import listed_clips
from tests.stock import REPOSITORY, stock

TINY = [
    "model.frontend_dim=16", "model.audio_width=2", "model.embed_dim=8", "task.image_crop_size=22",
    "dataset.max_tokens=200", "dataset.num_workers=0", "dataset.validate_interval=1", "common.log_interval=1",
    "task.max_trim_sample_size=20", "lr_scheduler.warmup_updates=30",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clips"))


def make_task(folder: Path, **options) -> ClassificationTask:
    cfg = OmegaConf.structured(ClassificationConfig(data=str(folder), seed=1, image_crop_size=22))
    return ClassificationTask(OmegaConf.merge(cfg, options))


def read(folder: Path, split: str = "train", **options):
    task = make_task(folder, **options)
    task.load_dataset(split)
    return task.dataset(split)


def train(folder: Path, recipe: str, save: Path, updates: int, *overrides: str) -> str:
    """A recipe of the toy corpus, cut down."""
    return stock(
        "fairseq-hydra-train", "--config-dir", REPOSITORY / "examples/lupi/conf/toy", "--config-name", recipe,
        f"common.user_dir={REPOSITORY / 'av_ssl'}", f"checkpoint.save_dir={save}", f"task.data={folder}",
        f"hydra.run.dir={save / 'hydra'}", f"optimization.max_update={updates}", *TINY, *overrides,
    )  # fmt: skip


def logged(output: str, kind: str) -> list[dict]:
    return [json.loads(line) for line in re.findall(rf'\{{"epoch".*"{kind}_loss".*\}}', output)]


# -- data ----------------------------------------------------------------------------------------------------


def test_training_takes_crops_and_evaluation_whole_clips(folder):
    for split in ("train", "valid"):
        dataset = read(folder, split=split, max_trim_sample_size=20)
        batch = dataset.collater([dataset[index] for index in range(4)])
        frames = batch["net_input"]["padding_mask"].shape[1]
        assert frames == (20 if split == "train" else max(dataset.sizes[:4]))
        assert batch["target"].tolist() == [0, 1, 2, 0]


def test_crops_and_batches_differ_from_epoch_to_epoch(folder):
    dataset = read(folder, max_trim_sample_size=20)
    orders, crops = [], []
    for epoch in (1, 2, 1):
        dataset.set_epoch(epoch)
        orders.append(dataset.ordered_indices().tolist())
        crops.append(dataset.collater([dataset[0], dataset[1]])["net_input"]["source"]["audio"])
    assert orders[0] == orders[2] != orders[1]
    assert torch.equal(crops[0], crops[2])
    assert not torch.equal(crops[0], crops[1])
    assert not dataset.can_reuse_epoch_itr_across_epochs


def test_class_balanced_sampling(folder, tmp_path):
    skewed = tmp_path / "skewed"
    shutil.copytree(folder, skewed)
    (skewed / "train.emo").write_text("calm\n" * 20 + "glad\n" * 3 + "sour\n")
    dataset = read(skewed, class_balanced=True)
    drawn = dataset.ordered_indices()
    assert Counter(dataset.classes[drawn].tolist()) == {0: 8, 1: 8, 2: 8}
    assert len(set(drawn[dataset.classes[drawn] == 0].tolist())) == 8
    assert Counter(drawn[dataset.classes[drawn] == 1].tolist()).most_common(1)[0][1] == 3
    assert sorted(read(skewed, split="valid", class_balanced=True).ordered_indices()) == list(range(6))


def test_segments_reach_the_batch(folder):
    dataset = read(folder, segment_frames=10, segment_hop=5, max_trim_sample_size=20)
    net_input = dataset.collater([dataset[0], dataset[1]])["net_input"]
    assert net_input["segments"]["frames"].shape == (6, 10)
    with pytest.raises(DataError, match=r"task\.segment_frames=10, task\.segment_hop=11"):
        read(folder, segment_frames=10, segment_hop=11)


def test_clips_without_video(folder):
    assert read(folder, split="test", modalities="audio").sizes.tolist() == [
        int(line.split("\t")[4]) // 640 for line in (folder / "test.tsv").read_text().splitlines()[1:]
    ]
    with pytest.raises(DataError, match=r"test\.tsv: no clip has audio and video; set task\.modalities"):
        read(folder, split="test")


def test_clips_without_labels(folder):
    dataset = read(folder, label="")
    assert dataset.collater([dataset[0], dataset[1]])["target"].tolist() == [-1, -1]


def test_speakers_outside_training_are_unknown(folder, caplog):
    assert set(read(folder, split="valid", label="spk").classes) == {-1}
    assert "the classes of 6 of 6 clips are not in" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.emo.txt", None, r"classes\.emo\.txt: .* task\.label"),
        ("classes.emo.txt", "\n", r"classes\.emo\.txt: has no class"),
        ("classes.emo.txt", "calm\nglad\ncalm\n", r"classes\.emo\.txt: .*calm"),
        ("classes.emo.txt", "up\ndown\n", r"train\.emo: .*'calm' on line 1, .*classes\.emo\.txt"),
        ("train.emo", "calm\n" * 24, r"train\.emo: .*one class, 'calm'"),
        ("train.emo", "calm\n", r"train\.emo has 1 lines, train\.tsv lists 24 clips"),
    ],
)
def test_broken_labels_are_named(folder, tmp_path, name, text, message):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / name).unlink()
    if text is not None:
        (broken / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read(broken)


def test_the_classes_of_a_checkpoint(folder, tmp_path):
    state = make_task(folder).state_dict()
    assert state == {"class_names": list(EMOTIONS)}
    bare = make_task(tmp_path)
    bare.load_state_dict(state)
    assert bare.require_classes().names == list(EMOTIONS)
    with pytest.raises(DataError, match=r"trained with other classes \(2: up, down"):
        make_task(folder).load_state_dict({"class_names": ["up", "down"]})
    with pytest.raises(DataError, match=r"classes\.emo\.txt"):
        make_task(tmp_path).require_classes()


def test_clips_for_the_error_rate_are_balanced_over_speakers():
    speakers = {
        f"{who}/{number:02}": who
        for who, clips in (("a", 50), ("b", 50), ("c", 3))
        for number in range(clips)
    }
    chosen = balanced_clips(speakers, 23)
    assert chosen == sorted(chosen) == balanced_clips(dict(reversed(speakers.items())), 23)
    assert Counter(speakers[name] for name in chosen) == {"a": 10, "b": 10, "c": 3}
    assert chosen != [*sorted(speakers)[:10], *sorted(speakers)[50:60], *sorted(speakers)[100:]]
    assert balanced_clips(speakers, 1000) == sorted(speakers)


def test_the_error_rate_of_a_large_validation_set(monkeypatch):
    rng = np.random.default_rng(0)
    eer = ValidationEER()
    eer.speakers = {f"{who}/{number}": who for who in "abc" for number in range(8)}
    centre = {who: rng.normal(size=4).astype(np.float32) for who in "abc"}
    embeddings = {name: centre[who] + np.float32(0.001) for name, who in eer.speakers.items()}
    assert eer.rate(embeddings) == 0
    monkeypatch.setattr(classification, "MOST_CLIPS", 6)  # the first six are of one speaker
    assert eer.rate(embeddings) == 0


@pytest.mark.parametrize("speakers", ["aab", "aaa", "abc", "a"])
def test_validation_speakers_of_an_error_rate_are_checked_when_they_are_read(speakers):
    eer = ValidationEER()
    clips = listed_clips(*[10] * len(speakers))
    eer.speakers = {clip.id: who for clip, who in zip(clips, speakers, strict=True)}
    refused = pytest.raises(DataError, match=r"valid\.spk: .*eer")
    with contextlib.nullcontext() if speakers == "aab" else refused:
        eer.check(Path("valid.spk"), clips)


def test_the_error_rate_needs_labels_of_speakers():
    with pytest.raises(DataError, match=r"task\.eer=true: set task\.label"):
        ClassificationTask(ClassificationConfig(data="/none", label="", eer=True))


# -- teacher, student, scores --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(folder, tmp_path_factory):
    save = tmp_path_factory.mktemp("teacher")
    output = train(folder, "teacher", save, 6, "model.video_width=2", "+task.segment_frames=10")
    valid = logged(output, "valid")
    assert len(valid) > 1
    assert {"valid_accuracy", "valid_uar", "valid_macro_f1", "valid_best_uar"} <= valid[-1].keys()
    return save / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def unlabelled(folder, tmp_path_factory):
    """The clips alone: no labels, no list of classes."""
    copy = tmp_path_factory.mktemp("unlabelled") / "data"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.emo", "*.spk", "classes.*"))
    for split in ("train", "valid"):
        lines = (copy / f"{split}.tsv").read_text().splitlines()
        (copy / f"{split}.tsv").write_text("\n".join([str(copy), *lines[1:]]) + "\n")
    return copy


def embed(folder, teacher, save):
    """Train the embeddings of a student; leaves a checkpoint in the middle of the first epoch, too."""
    overrides = [f"model.teacher_path={teacher}", "+task.segment_frames=10"]
    return train(folder, "student_embed", save, 8, *overrides, "checkpoint.save_interval_updates=2")


@pytest.fixture(scope="module")
def embedded(unlabelled, teacher, tmp_path_factory):
    save = tmp_path_factory.mktemp("embedded")
    output = embed(unlabelled, teacher, save)
    valid = logged(output, "valid")
    assert {"valid_cos_enc", "valid_cos_agg", "valid_loss_distill"} <= valid[-1].keys()
    assert float(valid[-1]["valid_best_loss_distill"]) < float(valid[0]["valid_loss_distill"])
    assert "valid_accuracy" not in valid[-1]
    return save / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def student(folder, embedded, tmp_path_factory):
    """Trained on a folder without video, its teacher out of reach."""
    bare = tmp_path_factory.mktemp("bare") / "data"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("*.npy"))
    for split in ("train", "valid"):
        lines = (bare / f"{split}.tsv").read_text().replace(".npy", ".gone").splitlines()
        (bare / f"{split}.tsv").write_text("\n".join([str(bare), *lines[1:]]) + "\n")
    save = tmp_path_factory.mktemp("student")
    overrides = [f"model.init_student_from={embedded}", "+task.segment_frames=10"]
    train(bare, "student_head", save, 4, *overrides)
    return save / "checkpoint_last.pt"


@pytest.mark.slow
def test_a_student_is_used_without_teacher_and_video(folder, student, embedded, tmp_path, capsys):
    moved = tmp_path / "student.pt"
    shutil.copy(student, moved)
    model = av_ssl.load(moved)
    assert model.class_names == list(EMOTIONS)
    assert not [name for name in model.state_dict() if "teacher" in name or "video" in name]
    before = av_ssl.load(embedded).encoder.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    out = tmp_path / "found.tsv"
    command = ["score", "classify", moved, folder / "test.tsv", folder / "test.emo", "--out", out]
    assert main(list(map(str, command))) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("6 clips: accuracy")
    assert len(printed.splitlines()) == 1 + 4
    rows = [line.split("\t") for line in out.read_text().splitlines()]
    assert [row[1] for row in rows] == (folder / "test.emo").read_text().split()
    accuracy = np.mean([truth == found for _, truth, found in rows])
    assert f"accuracy {100 * accuracy:.2f} %" in printed
    output = stock(
        "fairseq-validate", folder, "--user-dir", REPOSITORY / "av_ssl", "--task", "av_classification",
        "--path", moved, "--valid-subset", "test", "--modalities", "audio", "--max-tokens", "200", "--cpu",
        "--image-crop-size", "22", "--log-format", "simple",
    )  # fmt: skip
    assert f"accuracy {round(100 * accuracy, 2):g}" in output


@pytest.mark.slow
def test_a_resumed_student_equals_an_uninterrupted_one(unlabelled, teacher, embedded, tmp_path):
    shutil.copy(embedded.parent / "checkpoint_1_2.pt", tmp_path / "checkpoint_last.pt")
    assert "Loaded checkpoint" in embed(unlabelled, teacher, tmp_path)
    straight, resumed = (torch.load(each) for each in (embedded, tmp_path / "checkpoint_last.pt"))
    assert straight["model"].keys() == resumed["model"].keys()
    assert all(torch.equal(tensor, resumed["model"][name]) for name, tensor in straight["model"].items())


@pytest.mark.slow
def test_checkpoints_are_chosen_by_the_equal_error_rate(folder, tmp_path):
    """Over two validations and a resumption; fairseq reads the metric before a task may write it."""
    overrides = [
        "task.modalities=audio", "+task.label=spk", "+task.eer=true", "checkpoint.best_checkpoint_metric=eer",
        "checkpoint.maximize_best_checkpoint_metric=false", "+model.header=aam",
    ]  # fmt: skip
    output = train(folder, "audio_only", tmp_path, 6, *overrides)
    valid = logged(output, "valid")
    rates = [float(each["valid_eer"]) for each in valid]
    assert len(rates) >= 2
    assert all(0 <= rate < 100 for rate in rates)
    assert float(valid[-1]["valid_best_eer"]) == min(rates)
    assert "train_eer" not in output
    resumed = logged(train(folder, "audio_only", tmp_path, 9, *overrides), "valid")
    assert float(resumed[-1]["valid_best_eer"]) == min(
        [*rates, *(float(each["valid_eer"]) for each in resumed)]
    )
