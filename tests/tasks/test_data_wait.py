"""The meter of the time that training waits for batches."""

import logging
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import FairseqDataset
from fairseq.data.iterators import GroupedIterator
from fairseq.logging import metrics
from omegaconf import OmegaConf

from av_ssl.tasks.audio_visual import AudioVisualTask, AudioVisualTaskConfig
from av_ssl.tasks.data_wait import DataWaitMeter

FRAMES = 50


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


def batch(frames=FRAMES):
    return {"net_input": {"frame_index": torch.arange(frames)}}


def update(meter, read, compute, micro_batches=1):
    """An update of a run: `read` seconds for each micro-batch, then `compute` seconds."""

    def batches():
        while True:
            meter.clock.advance(read)
            yield batch()

    for _ in range(micro_batches):
        meter.fetch(batches())
    meter.clock.advance(compute)
    meter.end_update()


@pytest.fixture
def meter():
    """Has six workers, a verdict every ten updates, and has seen the first update, which does not count."""
    meter = DataWaitMeter(window=10, clock=Clock())
    meter.workers = 6
    update(meter, read=60, compute=1)
    return meter


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_warning_has_the_numbers(meter, caplog):
    for _ in range(10):
        update(meter, read=0.25, compute=0.75, micro_batches=2)
    (warning,) = warnings(caplog)
    assert "waited for data 40 % of the last 10 updates (5.0 of 12.5 s)" in warning
    assert "dataset.num_workers=6 this process got 80 frames/s, the model could take 133." in warning
    assert "Raise it to about 10 " in warning
    assert ".npy" in warning


def test_reckons_workers_where_there_are_none(meter, caplog):
    meter.workers = 0
    for _ in range(10):
        update(meter, read=1.5, compute=1)
    (warning,) = warnings(caplog)
    assert "dataset.num_workers=0 this process got 20 frames/s, the model could take 50." in warning
    assert "Raise it to about 2 " in warning


@pytest.mark.parametrize(("read", "count"), [(0.09, 0), (0.1, 0), (0.12, 1)])
def test_tolerates_a_tenth(meter, caplog, read, count):
    for _ in range(10):
        update(meter, read=read, compute=1 - read)
    assert len(warnings(caplog)) == count


def test_windows_double_with_each_warning(meter, caplog):
    seen = []
    for number in range(1, 151):
        update(meter, read=1, compute=1)
        if len(warnings(caplog)) > len(seen):
            seen.append(number)
    assert seen == [10, 30, 70, 150]


def test_a_window_without_warning_is_forgotten(meter, caplog):
    for _ in range(10):
        update(meter, read=0, compute=1)
    for _ in range(10):
        update(meter, read=1, compute=1)
    (warning,) = warnings(caplog)
    assert "50 % of the last 10 updates (10.0 of 20.0 s)" in warning


def test_metric_is_the_share_of_the_time_of_updates(meter):
    """Not the mean of shares; without what passes between updates, and steps that are taken again."""
    with metrics.aggregate(new_root=True) as logged:
        update(meter, read=9, compute=1)
        meter.clock.advance(500)  # validation, a checkpoint
        update(meter, read=0, compute=90)
        meter.end_update()
    assert logged.get_smoothed_value("data_wait") == 0.09


def test_first_update_does_not_count():
    meter = DataWaitMeter(clock=Clock())
    with metrics.aggregate(new_root=True) as logged:
        update(meter, read=60, compute=1)
    assert "data_wait" not in logged


# -- in fairseq's loop ---------------------------------------------------------------------------------------


class Clips(FairseqDataset):
    """24 clips, one a batch; `read` is called for each that is read."""

    clips = frame_labels = ()
    text = None

    def __init__(self, read=lambda: None, train=True):
        self.read = read
        self.train = train

    def __len__(self):
        return 24

    def __getitem__(self, index):
        self.read()
        return index

    def collater(self, samples):
        return batch()

    def num_tokens(self, index):
        return FRAMES

    def num_tokens_vec(self, indices):
        return np.full(len(indices), FRAMES)

    def ordered_indices(self):
        return np.arange(len(self))


def epochs_of(task, dataset, workers=0, buffered=0):
    return task.get_batch_iterator(
        dataset=dataset, max_tokens=FRAMES, num_workers=workers, data_buffer_size=buffered
    )


@pytest.fixture
def task():
    task = AudioVisualTask(OmegaConf.structured(AudioVisualTaskConfig(data="unused")))
    task.data_wait.window = 10
    return task


def run(task, epochs, step=lambda: None):
    """An epoch as fairseq trains it, two batches an update: number of updates, logged share of waiting."""
    updates = GroupedIterator(epochs.next_epoch_itr(), 2)
    with metrics.aggregate(new_root=True) as logged:
        count = 0
        for _ in updates:
            task.optimizer_step(SimpleNamespace(step=step), model=None, update_num=count)
            count += 1
    return count, logged.get_smoothed_value("data_wait")


@pytest.mark.parametrize(("read", "share"), [(2, 0.8), (0.05, 0.0909)])
def test_warns_where_reading_is_slow(task, caplog, read, share):
    clock = task.data_wait.clock = Clock()
    epochs = epochs_of(task, Clips(partial(clock.advance, read)))
    count, logged = run(task, epochs, partial(clock.advance, 1))
    assert count == 12
    assert logged == pytest.approx(share, abs=1e-3)
    assert len(warnings(caplog)) == (share > 0.1)


def test_waits_for_a_slow_worker(task, caplog):
    epochs = epochs_of(task, Clips(partial(time.sleep, 0.02)), workers=1, buffered=4)
    _, share = run(task, epochs)
    assert share > 0.5
    assert "dataset.num_workers=1 " in warnings(caplog)[0]


def test_validation_is_not_watched(task):
    list(epochs_of(task, Clips(train=False)).next_epoch_itr(shuffle=False))
    with metrics.aggregate(new_root=True) as logged:
        task.optimizer_step(SimpleNamespace(step=lambda: None), model=None, update_num=0)
    assert "data_wait" not in logged


@pytest.mark.parametrize("buffered", [0, 4])
def test_resumes_in_the_middle_of_an_epoch(task, buffered):
    first = epochs_of(task, Clips(), buffered=buffered)
    updates = GroupedIterator(first.next_epoch_itr(), 2)
    for _ in range(5):
        next(updates)
    assert first.iterations_in_epoch == 10
    assert not first.end_of_epoch()

    resumed = epochs_of(task, Clips(), buffered=buffered)
    resumed.load_state_dict(first.state_dict())
    count, _ = run(task, resumed)
    assert count == 7
    assert resumed.end_of_epoch()
    assert resumed.next_epoch_idx == 2
    assert len(resumed) == 24


def test_step_taken_again_is_ignored(meter):
    with metrics.aggregate(new_root=True) as logged:
        update(meter, read=1, compute=3)
        meter.end_update()
    assert logged.get_smoothed_value("data_wait") == 0.25
