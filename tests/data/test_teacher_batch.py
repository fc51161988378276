"""What teachers get of a batch: valid frames, cuts, clean waveforms."""

from __future__ import annotations

import numpy as np
import torch

from av_ssl.data.collate import Extent, Sample
from av_ssl.data.teacher_batch import OnlineTeacher, collate_teachers


class Stored:
    """Targets whose value is their number."""

    per_frame = 2

    def available(self, stored, start, length):
        return max(0, min(2 * length, len(stored) - 2 * start))


def samples(*counts: int | None) -> list[Sample]:
    stored = [
        None if count is None else np.arange(count, dtype=np.float16)[:, None].repeat(3, 1)
        for count in counts
    ]
    return [Sample(k, str(k), None, None, None, (), teachers=[each]) for k, each in enumerate(stored)]


def test_the_last_frame_lacks_a_target_at_50_hz_without_padding():
    batch = collate_teachers(
        samples(None, None), [OnlineTeacher(2, 1), OnlineTeacher(2, 0)][:1], Extent([0, 0], [4, 2], 4)
    )
    assert batch["index"][0].tolist() == [0, 1, 2, 4]
    assert batch["features"] == [None]
    assert batch["lengths"] == [4, 2]


def test_teachers_may_have_other_frames():
    both = [OnlineTeacher(2, 1), OnlineTeacher(2, 0)]
    clips = [Sample(0, "0", None, None, None, (), teachers=[None, None])]
    batch = collate_teachers(clips, both, Extent([0], [3], 5))
    assert [index.tolist() for index in batch["index"]] == [[0, 1], [0, 1, 2]]


def test_a_cut_takes_the_targets_of_its_frames():
    """Frames [s, s + T) take targets [2 s, 2 (s + T)), also where the clip was cut before its end."""
    batch = collate_teachers(samples(19, 7), [Stored()], Extent([3, 0], [5, 4], 5))
    features = batch["features"][0]
    assert features.dtype == torch.float16
    assert features.shape == (2, 10, 3)
    assert features[0, :, 0].tolist() == list(range(6, 16))
    assert features[1, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 0, 0]
    assert batch["index"][0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    end = collate_teachers(samples(19), [Stored()], Extent([5], [5], 5))
    assert end["index"][0].tolist() == [0, 1, 2, 3]


def test_a_clip_whose_targets_could_not_be_made_does_not_count():
    batch = collate_teachers(samples(0, 8), [Stored()], Extent([0, 0], [4, 4], 4))
    assert batch["index"][0].tolist() == [4, 5, 6, 7]


def test_masks_may_restrict_the_frames():
    masks = {"loss_index": torch.tensor([1, 3, 5])}
    batch = collate_teachers(samples(7, 8), [Stored()], Extent([0, 0], [4, 4], 4), masks)
    assert batch["index"][0].tolist() == [1, 5]
