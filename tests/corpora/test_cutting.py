"""Long recordings are cut at pauses."""

import itertools
import random

import pytest

from av_ssl.corpora.transcripts import LONGEST, Word, cut_at_pauses


def words(*times):
    return [Word(f"w{number}", start, end) for number, (start, end) in enumerate(times)]


def test_the_last_pause_that_fits_is_taken():
    pieces = cut_at_pauses(words((0.5, 4), (5, 9), (10, 14), (15, 19)))
    assert [piece.transcript for piece in pieces] == ["w0 w1 w2", "w3"]
    assert pieces[0].span == pytest.approx((0.3, 14.2))
    assert pieces[1].span == pytest.approx((14.8, 19.2))


def test_a_pause_of_0_4_seconds_is_not_enough_and_a_longer_one_is():
    # The gap after w0 is wide; the later one after w1 is exactly 0.4 s.
    pieces = cut_at_pauses(words((0, 4), (5, 9), (9.4, 14.5), (14.5, 19)))
    assert [piece.transcript for piece in pieces] == ["w0", "w1 w2 w3"]
    assert [piece.transcript for piece in cut_at_pauses(words((0, 4), (5, 9), (9.5, 14.5), (14.5, 19)))] == [
        "w0 w1",
        "w2 w3",
    ]


def test_without_a_pause_the_longest_gap_is_taken():
    pieces = cut_at_pauses(words((0, 5), (5.3, 10), (10.1, 14), (14.1, 19)))
    assert [piece.transcript for piece in pieces] == ["w0", "w1 w2 w3"]
    assert pieces[0].span[1] == pytest.approx(5.15)
    assert pieces[1].span[0] == pytest.approx(5.15)


def test_a_word_longer_than_the_limit_stays_whole():
    assert [piece.transcript for piece in cut_at_pauses(words((0, 1), (2, 20), (21, 22)))] == [
        "w0",
        "w1",
        "w2",
    ]


def test_pieces_hold_every_word_once_are_short_and_do_not_overlap():
    draw = random.Random(0)
    for _ in range(50):
        time, times = 0.0, []
        for _ in range(draw.randint(1, 200)):
            time += draw.choice([0.0, 0.02, 0.1, 0.3, 0.5, 2.0])
            times.append((time, time + draw.uniform(0.05, 0.8)))
            time = times[-1][1]
        pieces = cut_at_pauses(words(*times))
        assert " ".join(piece.transcript for piece in pieces).split() == [f"w{k}" for k in range(len(times))]
        for piece in pieces:
            assert 0 <= piece.span[0] < piece.span[1]
            assert piece.span[1] - piece.span[0] <= LONGEST + 1e-9
        for before, after in itertools.pairwise(pieces):
            assert before.span[1] <= after.span[0] + 1e-9
