"""Figures of experiments."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import figures
import numpy as np
import pytest

from tests.data_folder import write_data


def test_label_curves_are_means_over_seeds() -> None:
    scores = [{"test/video_clean@100": 30.0, "test/video_clean@10": 60.0, "valid/video_clean@10": 1.0}]
    scores.append({"test/video_clean@10": 50.0, "test/video_clean@100": 20.0, "test/video_clean": 99.0})
    seeds = {str(number): {"scores": each} for number, each in enumerate(scores)}
    results = {"methods": {"a": {"title": "A", "seeds": seeds}, "b": {"title": "B", "seeds": {}}}}
    (axis,) = figures.draw_labels(results, "test").axes
    (line,) = axis.lines
    assert line.get_label() == "A"
    assert line.get_xydata().tolist() == [[10, 55], [100, 25]]
    assert axis.get_xscale() == "log"


def test_noise_curves_are_of_methods_with_several_levels() -> None:
    """What was scored clean, and under the same title at several levels, is one curve; all seeds count."""
    rows = {
        "a": [
            {
                "test/audio_clean": 20.0,
                "test/audio_0dB": 50.0,
                "test/video_clean": 1.0,
                "test/audio_long": 2.0,
            }
        ],
        "a_noise": [{"test/audio_-5dB": 80.0, "test/audio_0dB": 51.0}, {"test/audio_-5dB": 90.0}],
        "b": [{"test/audio_clean": 20.0, "test/audio_0dB": 50.0}],
    }
    methods = {
        name: {"title": name[0].upper(), "seeds": {str(n): {"scores": one} for n, one in enumerate(scores)}}
        for name, scores in rows.items()
    }
    curves = figures.noise_curves({"methods": methods}, "test")
    assert curves == {"A, ASR": {-5: [80, 90], 0: [50], math.inf: [20]}}


@pytest.mark.parametrize(("count", "shown"), [(2, [0, 1]), (9, [0, 1, 2])])
def test_lips_show_what_was_said_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, shown: list[int]
) -> None:
    data = write_data(tmp_path, {"test": 3})
    texts = ["bin blue", "lay red", "set white"]
    (data / "test.wrd").write_text("\n".join(texts) + "\n")
    word = SimpleNamespace(word="bin", score=0.5)
    transcript = SimpleNamespace(segments=[SimpleNamespace(words=[word])])
    model = SimpleNamespace(transcribe=lambda video, **options: transcript)
    monkeypatch.setattr(figures, "load", lambda path: model)
    axes = figures.draw_lips(Path("model.pt"), data, "test", count).axes
    assert [axis.get_title() for axis in axes] == [f"said: {texts[one]}    read: bin 50%" for one in shown]
    assert all(np.ptp(axis.images[0].get_array()) > 0 for axis in axes)
