from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from corpus.clip import FRAME_RATE, SILENCE, Clip, Settings, Slot, Studio
from corpus.photographs import Portrait


def test_pictures_and_sound_last_equally_long(clips: list[Clip]) -> None:
    for clip in clips:
        assert clip.frames.dtype == np.uint8
        assert clip.frames.shape[1:] == (160, 160, 3)
        assert clip.wave.dtype == np.int16
        assert len(clip.wave) * FRAME_RATE == len(clip.frames) * clip.rate
        assert len(clip.track) == len(clip.lips.gap) == len(clip.frames)


def test_times_lie_within_the_clip_with_silence_around(clips: list[Clip]) -> None:
    for clip in clips:
        duration = len(clip.frames) / FRAME_RATE
        assert clip.words[0].start >= SILENCE[0]
        assert clip.words[-1].end <= duration - SILENCE[0]
        assert all(one.end <= other.start for one, other in pairwise(clip.words))
        silence = clip.wave[: int(clip.words[0].start * clip.rate) - 100]
        assert silence.std() < 100 < clip.wave.std()


def test_the_mouth_is_shut_before_it_speaks_and_opens_while_it_does(clips: list[Clip]) -> None:
    for clip in clips:
        assert clip.lips.gap[0] < 2
        assert clip.lips.gap.max() > 6


def test_lips_shut_for_bilabials(clips: list[Clip]) -> None:
    shut = [
        clip.lips.gap[int((phone.start + phone.end) / 2 * FRAME_RATE)]
        for clip in clips
        for phone in clip.phones
        if phone.label in {"p", "b", "m"}
    ]
    assert len(shut) >= 3
    assert np.median(shut) < 2 < np.mean([clip.lips.gap.mean() for clip in clips])


def test_a_clip_does_not_depend_on_those_before(portraits: list[Portrait], clips: list[Clip]) -> None:
    again = Studio(Settings(difficulty=0), portraits).record(Slot("test", 2, 4))
    np.testing.assert_array_equal(again.frames, clips[2].frames)
    np.testing.assert_array_equal(again.wave, clips[2].wave)
    assert again.words == clips[2].words


def test_speakers_and_splits_differ(clips: list[Clip]) -> None:
    assert [clip.slot.name for clip in clips] == [f"test/t{k:03d}/{k:05d}" for k in range(4)]
    assert len({clip.voice.name.split("+")[-1] for clip in clips}) == 4
    assert len({clip.photograph.removesuffix("_mirrored") for clip in clips}) == 2


def test_held_out_splits_have_a_fifth_of_the_speakers() -> None:
    settings = Settings(speakers=40)
    assert [settings.speakers_in(split) for split in ("pretrain", "valid", "test")] == [40, 8, 8]
    assert Settings(speakers=2).speakers_in("test") == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"speakers": 0}, "speakers is 0"),
        ({"difficulty": 1.5}, r"difficulty is 1\.5"),
        ({"difficulty": float("nan")}, "difficulty is nan"),
        ({"frame_size": 90}, "frame size is 90"),
        ({"frame_size": 1024}, "frame size is 1024"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)  # type: ignore[arg-type]
