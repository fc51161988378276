from __future__ import annotations

import numpy as np
import pytest
import torch

from av_ssl.data.masking import UnimodalMasking
from av_ssl.data.spans import SpanMask

RNG = np.random.default_rng
RAVEN = SpanMask(0.2, 3, min_spans=1)
LENGTHS = [60, 45, 7]


def draw(seed: int, training: bool = True, **settings):
    masking = UnimodalMasking(**{"audio": RAVEN, "video": RAVEN, **settings})
    return masking.draw(LENGTHS, 64, RNG(seed), training=training)


def test_shapes_and_types() -> None:
    masks = draw(0)
    assert masks.keys() == {"audio", "video", "audio_index", "video_index"}
    for stream in ("audio", "video"):
        assert (masks[stream].shape, masks[stream].dtype) == ((3, 64), torch.bool)
        assert masks[f"{stream}_index"].dtype == torch.int64
        assert masks[f"{stream}_index"].tolist() == torch.where(masks[stream].flatten())[0].tolist()


def test_streams_are_masked_independently() -> None:
    """Frames masked in both streams are as many as chance has them."""
    masking, rng = UnimodalMasking(RAVEN, RAVEN), RNG(0)
    audio, video, both = np.mean(
        [
            [masks["audio"].float().mean(), masks["video"].float().mean(), overlap.float().mean()]
            for masks in (masking.draw([300] * 8, 300, rng) for _ in range(60))
            for overlap in [masks["audio"] & masks["video"]]
        ],
        axis=0,
    )
    assert both == pytest.approx(audio * video, abs=0.003)
    assert not torch.equal(draw(0)["audio"], draw(0)["video"])


def test_streams_may_differ_in_setting() -> None:
    masks = draw(0, audio=SpanMask(0.4, 3, min_spans=1), video=SpanMask(0, 3))
    assert not masks["video"].any()
    assert len(masks["video_index"]) == 0
    assert masks["audio"].any()


def test_same_generator_same_masks_in_training_and_validation() -> None:
    first, second = draw(3), draw(3, training=False)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["audio"], draw(4)["audio"])
