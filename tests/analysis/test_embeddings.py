"""What a student can learn from its teacher's embeddings, on drawn data."""

from __future__ import annotations

import numpy as np
import pytest

from av_ssl.analysis.embeddings import embedding_report, embedding_scores
from av_ssl.errors import DataError

CLIPS, CHANNELS = 80, 6
LABELS = ["a", "b"] * (CLIPS // 2)


def drawn(separation: float) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(CLIPS, CHANNELS))
    x[::2] += separation
    return x


def test_a_student_that_copies_its_teacher_predicts_everything():
    teacher = drawn(4.0)
    scores = embedding_scores(teacher, 3 * teacher + 1, LABELS)
    assert scores.between == pytest.approx(0.8, abs=0.06)  # 4 of 4 + 1
    assert scores.teacher_probe == scores.student_probe == 1.0
    assert scores.explained == pytest.approx(np.ones(CHANNELS))
    assert scores.error == pytest.approx((0, 0), abs=1e-9)
    assert scores.cosine == pytest.approx((1, 1))


def test_channels_that_the_student_does_not_predict_are_told():
    teacher, rng = drawn(0.0), np.random.default_rng(1)
    student = rng.normal(size=teacher.shape)
    student[:, :2] = teacher[:, :2] + rng.normal(size=(CLIPS, 2))
    scores = embedding_scores(teacher, student, LABELS)
    assert scores.between < 0.1
    assert 0.3 < scores.teacher_probe < 0.7
    assert scores.predicted == pytest.approx(2 / CHANNELS)
    assert scores.explained[:2] == pytest.approx([0.5, 0.5], abs=0.15)
    assert scores.error[1] < scores.error[0]
    assert scores.cosine[1] > scores.cosine[0]
    text = embedding_report(scores)
    assert "channels predicted: 33.3 %" in text
    assert f"variance predicted: {100 * scores.explained.mean():.1f} %" in text


def test_a_student_of_another_teacher_is_refused():
    with pytest.raises(DataError, match=r"\(80, 6\), the student's \(80, 5\)"):
        embedding_scores(drawn(0.0), drawn(0.0)[:, 1:], LABELS)
    constant = np.zeros((CLIPS, CHANNELS))
    assert np.isnan(embedding_scores(drawn(1.0), constant, LABELS).error[1])
