from __future__ import annotations

import numpy as np
import pytest
import torch

from av_ssl.data.collate import (
    MEAN_GRAY,
    Extent,
    Sample,
    collate_frame_labels,
    collate_streams,
    collate_text,
)

RNG = np.random.default_rng


def sample(frames: int, labels: tuple[list[int], ...] = (), audio: bool = True, video: bool = True) -> Sample:
    features = np.arange(frames * 104, dtype=np.float32).reshape(frames, 104)
    images = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None], (frames, 4, 4))
    return Sample(
        0,
        "a",
        features if audio else None,
        None,
        images if video else None,
        [torch.tensor(row) for row in labels],
    )


def fit(
    lengths: list[int], max_frames: int | None, pad: bool, random_crop: bool = False, seed: int = 0
) -> Extent:
    return Extent.fit(lengths, max_frames, pad, random_crop, RNG(seed))


def test_padding_to_the_longest() -> None:
    assert fit([7, 5], None, pad=True) == Extent([0, 0], [7, 5], 7)
    assert fit([7, 5], 6, pad=True) == Extent([0, 0], [6, 5], 6)


def test_cutting_to_the_shortest() -> None:
    assert fit([7, 5], None, pad=False) == Extent([0, 0], [5, 5], 5)
    assert fit([7, 5], 4, pad=False) == Extent([0, 0], [4, 4], 4)


def test_random_starts_reach_both_ends() -> None:
    starts = {tuple(fit([7, 5], None, False, True, seed).starts) for seed in range(40)}
    assert starts == {(0, 0), (1, 0), (2, 0)}


def test_streams_are_cut_and_padded_alike() -> None:
    net_input = collate_streams([sample(6), sample(2)], Extent([1, 0], [4, 2], 4))
    audio, video = net_input["source"]["audio"], net_input["source"]["video"]
    assert (audio.shape, audio.dtype) == ((2, 104, 4), torch.float32)
    assert (video.shape, video.dtype) == ((2, 1, 4, 4, 4), torch.uint8)
    assert audio[0, 0].tolist() == [104, 208, 312, 416]
    assert video[0, 0, :, 0, 0].tolist() == [1, 2, 3, 4]
    assert audio[1, 1].tolist() == [1, 105, 0, 0]
    assert video[1, 0, :, 3, 3].tolist() == [0, 1, MEAN_GRAY, MEAN_GRAY]
    assert net_input["padding_mask"].tolist() == [[False] * 4, [False, False, True, True]]
    assert net_input["frame_index"].tolist() == [0, 1, 2, 3, 4, 5]
    assert "audio_clean" not in net_input["source"]


@pytest.mark.parametrize("stream", ["audio", "video"])
def test_one_stream_defines_the_length(stream: str) -> None:
    one = sample(3, audio=stream == "audio", video=stream == "video")
    assert one.frames == 3
    source = collate_streams([one], Extent([0], [3], 3))["source"]
    assert source[stream] is not None
    assert source["video" if stream == "audio" else "audio"] is None


def test_frame_labels_are_cut_with_the_frames() -> None:
    labels = [torch.arange(10), torch.arange(100, 106)]
    target = collate_frame_labels(labels, Extent([2, 0], [6, 6], 6), pad=1)
    assert target.tolist() == [[2, 3, 4, 5, 6, 7], [100, 101, 102, 103, 104, 105]]


def test_padded_frame_labels() -> None:
    labels = [torch.arange(4, 10), torch.arange(4, 7)]
    target = collate_frame_labels(labels, Extent([0, 0], [5, 3], 5), pad=1)
    assert target.tolist() == [[4, 5, 6, 7, 8], [4, 5, 6, 1, 1]]


def test_frames_without_label_are_cut_off() -> None:
    video = np.zeros((5, 8, 8), np.uint8)
    full = Sample(0, "clip", np.ones((5, 104), np.float32), None, video, [torch.arange(4)])
    cut = full.cut(4)
    assert (cut.frames, len(cut.audio), cut.audio_clean, len(cut.labels[0])) == (4, 4, None, 4)


def test_transcripts() -> None:
    samples = [sample(3, ([5, 6, 2],)), sample(2, ([7, 2],))]
    net_input = collate_streams(samples, Extent([0, 0], [3, 2], 3))
    batch = collate_text(samples, net_input, pad=1, eos=2)
    assert batch["target"].tolist() == [[5, 6, 2], [7, 2, 1]]
    assert batch["ntokens"] == 5
    assert net_input["prev_output_tokens"].tolist() == [[2, 5, 6], [2, 7, 1]]
    assert net_input["src_tokens"].tolist() == [[4, 4, 4], [4, 4, 1]]
    assert net_input["src_lengths"].tolist() == [3, 2]
