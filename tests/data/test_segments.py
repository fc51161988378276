"""Segments of clips."""

import pytest
import torch

from av_ssl.data.classes import Segmentation
from av_ssl.errors import DataError


@pytest.mark.parametrize(("hop", "counts"), [(25, [1, 1, 2, 2, 3, 4, 5]), (12, [1, 1, 2, 4, 6, 8, 8])])
def test_how_many(hop, counts):
    starts = [Segmentation(25, hop).starts(frames) for frames in (10, 25, 26, 50, 75, 100, 103)]
    assert list(map(len, starts)) == counts
    assert starts[-1][-1] == 103 - 25
    assert starts[2] == [0, 1]


def test_index_tensors_cut_the_segments():
    lengths, frames = [7, 2, 4], 7
    batch = Segmentation(4, 3).segments(lengths, frames)
    assert batch["empty"].tolist() == [[False, False], [False, True], [False, True]]
    assert batch["slots"].tolist() == [0, 1, 2, 4]
    numbers = torch.arange(3 * frames)  # frame t of clip b is 7 b + t
    cut = numbers[batch["frames"]]
    assert cut.tolist()[0] == [0, 1, 2, 3]
    assert cut.tolist()[1] == [3, 4, 5, 6]
    assert cut[2][~batch["padding_mask"][2]].tolist() == [7, 8]
    assert cut.tolist()[3] == [14, 15, 16, 17]
    assert (batch["frames"] < 3 * frames).all()
    torch.testing.assert_close(batch["frame_index"], (~batch["padding_mask"]).flatten().nonzero().squeeze(1))


@pytest.mark.parametrize(("length", "hop"), [(0, 1), (25, 0), (25, 26)])
def test_windows_that_lose_frames_are_refused(length, hop):
    with pytest.raises(DataError, match=rf"task\.segment_frames={length}, task\.segment_hop={hop}"):
        Segmentation(length, hop)
