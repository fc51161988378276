"""Targets on disk: found by id, cut as clips are cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from av_ssl.data.teacher_batch import OnlineTeacher
from av_ssl.errors import DataError
from av_ssl.manifest import Clip
from av_ssl.targets.teacher_targets import StoredFeatures, TeacherFolder, TeacherTargets
from tests.targets.teacher_folders import DIM, write_teacher_folder

FRAMES = {"train": {"a": 10, "b": 7, "c": 12}, "valid": {"d": 9}}


def clips(*names: str) -> list[Clip]:
    frames = {**FRAMES["train"], **FRAMES["valid"]}
    return [Clip(name, None, None, frames.get(name, 5), 0, 2) for name in names]


@pytest.fixture
def folder(tmp_path: Path) -> TeacherFolder:
    return TeacherFolder.read(write_teacher_folder(tmp_path / "teacher", FRAMES))


def test_clips_are_found_by_id_in_any_split_and_order(folder: TeacherFolder):
    stored = StoredFeatures(folder, "train", clips("c", "d", "a"))
    first = np.load(folder.path / "train_0_2.npy")
    np.testing.assert_array_equal(stored.read(2), first[:19])
    np.testing.assert_array_equal(stored.read(0), np.load(folder.path / "train_1_2.npy"))
    np.testing.assert_array_equal(stored.read(1), np.load(folder.path / "valid_0_2.npy"))
    assert stored.read(0).dtype == np.float16
    assert isinstance(stored.read(0), np.memmap)


def test_the_same_id_in_two_splits(tmp_path: Path):
    folder = TeacherFolder.read(
        write_teacher_folder(tmp_path / "t", {"train": {"a": 10}, "valid": {"a": 10}})
    )
    for split in ("train", "valid"):
        found = StoredFeatures(folder, split, clips("a")).read(0)
        np.testing.assert_array_equal(found, np.load(folder.path / f"{split}_0_2.npy"))


def test_available_targets_from_any_start(folder: TeacherFolder):
    stored = StoredFeatures(folder, "train", clips("a"))
    targets = stored.read(0)  # 19 of 10 frames
    assert [stored.available(targets, start, 10 - start) for start in (0, 4, 9)] == [19, 11, 1]
    assert stored.available(targets, 0, 5) == 10  # those behind the cut are there
    assert stored.available(targets, 12, 3) == 0


def test_clips_that_were_not_dumped(folder: TeacherFolder):
    message = r"holds no targets of 2 of 3 clips of test: x, y; it has the splits train, valid"
    with pytest.raises(DataError, match=message):
        StoredFeatures(folder, "test", clips("a", "x", "y"))


def test_a_split_that_is_not_finished_does_not_count(folder: TeacherFolder):
    (folder.path / "train_1_2.len").unlink()
    with pytest.raises(DataError, match=r"it has the splits valid\."):
        StoredFeatures(folder, "train", clips("a"))


@pytest.mark.parametrize(("source", "online"), [("online", [True, True]), ("mixed", [False, True])])
def test_teachers_that_run_in_training(source, online, folder: TeacherFolder, tmp_path: Path):
    bare = TeacherFolder.read(write_teacher_folder(tmp_path / "bare", missing=0))
    inputs = TeacherTargets([folder, bare], source).inputs("train", clips("a"))
    assert [isinstance(each, OnlineTeacher) for each in inputs] == online
    assert inputs[1] == OnlineTeacher(2, 0)


def test_targets_of_the_frames_that_count(folder: TeacherFolder):
    features = torch.randn(2, 6, DIM, generator=torch.Generator().manual_seed(0)).half()
    teachers = {"index": [torch.tensor([1, 3])], "features": [features]}
    (found,) = TeacherTargets([folder], temperature=0.3)({}, teachers)
    vectors = torch.cat([features[0, 2:4], features[1, :2]]).float()
    distances = torch.cdist(vectors, torch.from_numpy(folder.centroids())).square()
    assert torch.equal(found.vectors, vectors)
    torch.testing.assert_close(found.posteriors, (-distances / (0.3 * folder.inertia)).softmax(1))


def test_damaged_folders(folder: TeacherFolder, tmp_path: Path):
    with pytest.raises(DataError, match=r"teacher\.json: cannot be read .*av-ssl targets teacher"):
        TeacherFolder.read(tmp_path)
    np.save(folder.path / "centroids.npy", np.zeros((3, DIM), np.float32))
    with pytest.raises(DataError, match=r"centroids\.npy: has shape \(3, 6\)"):
        folder.centroids()
    (folder.path / "clusters.json").write_text(json.dumps({"clusters": 3}))
    with pytest.raises(DataError, match="lacks 'inertia'"):
        TeacherFolder.read(folder.path)
    (folder.path / "teacher.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        TeacherFolder.read(folder.path)
