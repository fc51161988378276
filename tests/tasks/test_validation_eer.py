"""The equal error rate of a validation: which clips count, and what it needs."""

from collections import Counter

import numpy as np
import pytest

from av_ssl.errors import DataError
from av_ssl.tasks import classification as validation_eer
from av_ssl.tasks.classification import (
    ClassificationConfig,
    ClassificationTask,
    ValidationEER,
    spread_over_speakers,
)


def test_every_speaker_is_heard_as_often():
    speakers = {
        f"{who}/{number:02}": who
        for who, clips in (("a", 50), ("b", 50), ("c", 3))
        for number in range(clips)
    }
    chosen = spread_over_speakers(speakers, 23)
    assert chosen == sorted(chosen) == spread_over_speakers(dict(reversed(speakers.items())), 23)
    assert Counter(speakers[name] for name in chosen) == {"a": 10, "b": 10, "c": 3}
    assert chosen != [*sorted(speakers)[:10], *sorted(speakers)[50:60], *sorted(speakers)[100:]]
    assert spread_over_speakers(speakers, 1000) == sorted(speakers)


def test_a_large_validation_set_is_sampled(monkeypatch):
    rng = np.random.default_rng(0)
    eer = ValidationEER()
    eer.names = {f"{who}/{number}": who for who in "abc" for number in range(8)}
    centre = {who: rng.normal(size=4).astype(np.float32) for who in "abc"}
    embeddings = {name: centre[who] + np.float32(0.001) for name, who in eer.names.items()}
    assert eer.rate(embeddings) == 0
    monkeypatch.setattr(validation_eer, "MOST_CLIPS", 6)  # the first six would be of one speaker
    assert eer.rate(embeddings) == 0


def test_it_needs_to_know_who_speaks():
    with pytest.raises(DataError, match=r"task\.eer=true: set task\.label"):
        ClassificationTask(ClassificationConfig(data="/none", label="", eer=True))
