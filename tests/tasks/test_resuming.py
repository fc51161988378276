"""A run that is resumed on other data, on another number of GPUs, or from a torn checkpoint."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data.iterators import EpochBatchIterator

from av_ssl.errors import DataError
from av_ssl.tasks.resuming import ResumableEpochs, data_digest
from tests.data_folder import listed_clips


def epochs(batches: int = 12, shards: int = 1, data: str = "same") -> ResumableEpochs:
    dataset = torch.utils.data.TensorDataset(torch.arange(batches))
    return ResumableEpochs(
        EpochBatchIterator(dataset, list, [[k] for k in range(batches)], num_shards=shards), data
    )


def after(updates: int, **division: int) -> dict:
    """The state after some updates."""
    running = epochs(**division)
    batches = running.next_epoch_itr(shuffle=False)
    for _ in range(updates):
        next(batches)
    return running.state_dict()


def test_the_same_run_continues_where_it_stopped():
    resumed = epochs()
    resumed.load_state_dict(after(5))
    assert resumed.iterations_in_epoch == 5
    assert next(resumed.next_epoch_itr(shuffle=False))[0][0] == 5


@pytest.mark.parametrize(
    ("division", "place"), [({"shards": 2}, 3), ({"batches": 24}, 12), ({"batches": 3}, 1)]
)
def test_another_division_is_noticed(caplog, division, place):
    resumed = epochs(**division)
    with caplog.at_level(logging.WARNING):
        resumed.load_state_dict(after(6))
    assert resumed.iterations_in_epoch == place
    assert "12 batches an epoch on 1 GPUs" in caplog.text


def test_other_data_is_refused():
    with pytest.raises(DataError, match=r"task\.data: .*checkpoint\.reset_dataloader=true"):
        epochs(data="other").load_state_dict(after(5))
    older = {
        key: value for key, value in after(5).items() if key in ("epoch", "version", "iterations_in_epoch")
    }
    epochs(data="other").load_state_dict(older)


def test_the_digest_is_of_clips_and_labels_not_of_folders(tmp_path):
    def digest(*frames: int, labels: str = "0 1", lines: int = 1) -> str:
        (tmp_path / "train.km").write_text(labels)
        one = SimpleNamespace(
            file=SimpleNamespace(path=tmp_path / "train.km"), lines=torch.arange(lines).numpy()
        )
        return data_digest(SimpleNamespace(clips=listed_clips(*frames), text=None, frame_labels=[one]))

    first = digest(10, 20)
    assert first == digest(10, 20)
    assert (
        len({first, digest(20, 10), digest(10), digest(10, 20, labels="0 2"), digest(10, 20, lines=2)}) == 5
    )


def test_a_torn_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint_last.pt"
    checkpoint_utils.torch_persistent_save({"model": {"a": torch.randn(500)}, "extra_state": {}}, str(path))
    content = path.read_bytes()
    for torn in (content[:-1000], content[:900] + bytes(4) + content[904:], b""):
        path.write_bytes(torn)
        with pytest.raises(DataError, match=r"checkpoint_last\.pt: .*copy or download"):
            checkpoint_utils.load_checkpoint_to_cpu(str(path))


def test_a_copy_appears_when_it_is_complete(tmp_path, monkeypatch):
    (tmp_path / "checkpoint_1.pt").write_bytes(b"new")
    (tmp_path / "checkpoint_last.pt").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint_utils.PathManager.copy(
            str(tmp_path / "checkpoint_1.pt"), str(tmp_path / "checkpoint_last.pt"), overwrite=True
        )
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == b"old"


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint_last.pt"
    checkpoint_utils.torch_persistent_save({"model": {}, "extra_state": {}}, str(path))
    before, attempts = path.read_bytes(), []

    def full(state: object, file: object) -> None:
        attempts.append(file)
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match=r"checkpoint_last\.pt.*cannot be written .*free space"):
        checkpoint_utils.torch_persistent_save({"model": {}}, str(path))
    assert path.read_bytes() == before
    assert len(attempts) == 1
