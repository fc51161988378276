"""Who is drawn for validation and test, and lists of ids in files."""

from pathlib import Path

import pytest

from av_ssl.corpora import CORPORA
from av_ssl.corpora.corpus import CorpusClip, Draw, assign_splits, capped, read_ids, require_known
from av_ssl.errors import DataError
from av_ssl.media.sources import ClipSource

TENTHS = Draw(0.1, 0.1)


def clips(*names, split=None, speaker=""):
    return {name: CorpusClip(ClipSource(Path(f"{name}.mp4")), split, speaker) for name in names}


def sizes(splits):
    return [len(splits[split]) for split in ("train", "valid", "test")]


def test_what_the_corpus_leaves_open_is_drawn():
    names = [f"{number:02d}" for number in range(30)]
    corpus = {**clips(*names), **clips("t", split="test"), **clips("p", split="train")}
    splits = assign_splits(corpus, TENTHS, seed=0)
    assert sizes(splits) == [28, 3, 1]
    assert "p" in splits["train"]
    backwards = dict(reversed(corpus.items()))
    assert splits == assign_splits(backwards, TENTHS, seed=0)
    assert splits != assign_splits(corpus, TENTHS, seed=1)


def test_few_clips_still_give_every_split_one_and_zero_gives_none():
    assert sizes(assign_splits(clips(*"abcd"), TENTHS, 0)) == [2, 1, 1]
    assert sizes(assign_splits(clips(*"abc"), Draw(0, 0), 0)) == [3, 0, 0]
    with pytest.raises(DataError, match="1 are for validation, 1 for test"):
        assign_splits(clips("a", "b"), Draw(1, 1), 0)
    with pytest.raises(DataError, match=r"itself assigns all 1 .* a; "):
        assign_splits(clips("a", split="test"), TENTHS, 0)


def test_a_number_is_a_number_and_is_lowered_only_where_it_is_a_default():
    corpus = clips(*(f"{number:03d}" for number in range(100)))
    assert sizes(assign_splits(corpus, Draw(40, 0), 0)) == [60, 40, 0]
    assert capped(Draw(1200, 0), corpus) == Draw(10, 0)
    assert capped(Draw(5, 0), corpus) == Draw(5, 0)
    assert capped(Draw(0.3, 0), corpus) == Draw(0.3, 0)


LRS3 = CORPORA["lrs3"]


def test_ids_and_their_lines(tmp_path):
    path = tmp_path / "ids"
    path.write_text("trainval/a/00001\n\ntrainval/b/00002.mp4\r\n")
    ids = read_ids(path, LRS3)
    assert ids == {"trainval/a/00001": 1, "trainval/b/00002": 3}
    with pytest.raises(DataError, match=r"ids, line 3: .*trainval/b/00002"):
        require_known(path, ids, {"trainval/a/00001"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "ids: "),
        (b"\n\n", "ids: "),
        (b"a\nb\na.mp4\n", "ids, line 3: a .* line 1"),
        (b"a\n\xff", "ids, line 2: .*UTF-8"),
    ],
)
def test_broken_lists_are_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_ids(tmp_path / "ids", LRS3)


def test_no_speaker_is_in_two_splits():
    corpus = {}
    for speaker in range(10):
        corpus.update(clips(*(f"{speaker}/{number}" for number in range(3)), speaker=f"{speaker}"))
    splits = assign_splits(corpus, Draw(0.2, 0.1, by_speaker=True), seed=0)
    assert sizes(splits) == [21, 6, 3]
    speakers = [{name[0] for name in splits[split]} for split in ("train", "valid", "test")]
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 10
