from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest
from fairseq.data import Dictionary

from av_ssl.data.labels import FrameLabels, TextLabels, keep_agreeing
from av_ssl.data.text import TextEncoder
from av_ssl.errors import DataError
from tests.data_folder import listed_clips
from tests.dictionaries import dictionary_of

WORDS = TextEncoder(dictionary_of(["a", "b", "ü", "groß"]))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -- transcripts ---------------------------------------------------------------------------------------------


def test_lines_are_found_behind_non_ascii_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "train.wrd", "ü ü groß\na b\r\n\nb groß\n")
    labels = TextLabels(path, WORDS, listed_clips(1, 1, 1, 1))
    assert len(labels) == 4
    end = WORDS.dictionary.eos()
    assert [labels[k].tolist() for k in range(4)] == [[6, 6, 7, end], [4, 5, end], [end], [5, 7, end]]


def test_byte_order_marks_are_no_symbols(tmp_path: Path) -> None:
    path = write(tmp_path / "train.wrd", "\ufeffa b\r\n\ufeffb a\r\n")
    labels = TextLabels(path, WORDS, listed_clips(1, 1))
    assert [labels[k].tolist()[:-1] for k in range(2)] == [[4, 5], [5, 4]]
    ids = FrameLabels(
        write(tmp_path / "train.km", "\ufeffa a\nb\n"), WORDS.dictionary, listed_clips(2, 1), 25
    )
    assert ids[0].tolist() == [4, 4]
    path.write_bytes("a b\nb a\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"train\.wrd: .*UTF-16"):
        TextLabels(path, WORDS, listed_clips(1, 1))


@pytest.mark.parametrize("form", ["NFC", "NFD"], ids=["symbols composed", "symbols apart"])
@pytest.mark.parametrize("text", ["NFC", "NFD"], ids=["text composed", "text apart"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_accents_and_encodings_of_other_editors(tmp_path: Path, form: str, text: str, encoding: str) -> None:
    """A word is the same word whether its accent is a code point of its own or not; so is its class."""
    words = TextEncoder(dictionary_of(normalize(form, symbol) for symbol in ("a", "ü", "groß")))
    path = tmp_path / "train.wrd"
    path.write_bytes(normalize(text, "ü groß\na ü\n").encode(encoding))
    labels = TextLabels(path, words, listed_clips(1, 1))
    assert [labels[k].tolist()[:-1] for k in range(2)] == [[5, 6], [4, 5]]
    assert labels.file.line(1) == "a ü"
    assert words.decode(words.dictionary.string(labels[1])) == "a ü"


@pytest.mark.parametrize(("split", "refused"), [("train", True), ("test", False)])
def test_empty_transcripts_are_reported(
    tmp_path: Path, split: str, refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, clips = write(tmp_path / f"{split}.wrd", "a\n\nb\n \n"), listed_clips(1, 1, 1, 1)
    text = ""
    if refused:
        with pytest.raises(DataError) as error:
            TextLabels(path, WORDS, clips)
        text = str(error.value)
    else:
        TextLabels(path, WORDS, clips)
    assert f"{path}: 2 of 4 transcripts are empty, the first of them on line 2" in text + caplog.text


def test_last_line_may_lack_its_end(tmp_path: Path) -> None:
    labels = TextLabels(write(tmp_path / "train.wrd", "a\nb"), WORDS, listed_clips(1, 1))
    assert labels[1].tolist() == [5, WORDS.dictionary.eos()]


def test_selected_clips_keep_their_lines(tmp_path: Path) -> None:
    labels = TextLabels(write(tmp_path / "train.wrd", "a\nb\nü\n"), WORDS, listed_clips(1, 2, 3))
    selected = labels.select([2, 0])
    assert [selected[0].tolist(), selected[1].tolist(), len(selected)] == [[6, 2], [4, 2], 2]
    assert len(labels) == 3


def test_empty_lines_at_the_end_are_no_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "train.wrd", "a b\nb\n\n\n")
    labels = TextLabels(path, WORDS, listed_clips(1, 1))
    assert (len(labels), labels.file.symbol_counts.tolist()) == (2, [2, 1])
    with pytest.raises(DataError, match=r"train\.wrd has 4 lines, train\.tsv lists 1 clips"):
        TextLabels(path, WORDS, listed_clips(1))


def test_ids_before_the_transcripts_are_refused(tmp_path: Path) -> None:
    """As lists of other tools have them; with a tokenizer they would be words."""
    path = write(tmp_path / "train.wrd", "clip0 a b\nclip1\tb\n")
    with pytest.raises(DataError, match=r"train\.wrd, line 1: .*'clip0'"):
        TextLabels(path, WORDS, listed_clips(1, 1))


def test_missing_line_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "valid.wrd", "a\nb\n")
    with pytest.raises(DataError, match=r"valid\.wrd has 2 lines, valid\.tsv lists 3 clips"):
        TextLabels(path, WORDS, listed_clips(1, 1, 1))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"valid\.wrd: "):
        TextLabels(tmp_path / "valid.wrd", WORDS, listed_clips(1))


def test_many_unknown_symbols_are_refused_few_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = write(tmp_path / "few.wrd", "a b a b a b a b a b\na c a b a b a b a b\n")
    assert TextLabels(few, WORDS, listed_clips(1, 1))[1][1] == WORDS.dictionary.unk()
    assert "few.wrd: 4.5% of the labels" in caplog.text
    assert "line 2" in caplog.text
    many = write(tmp_path / "many.wrd", "a b\nA B\n")
    with pytest.raises(DataError, match=r"many\.wrd: 33\.3% of the labels"):
        TextLabels(many, WORDS, listed_clips(1, 1))


# -- frame labels --------------------------------------------------------------------------------------------


def clusters(n: int) -> Dictionary:
    return dictionary_of(range(n))


def test_first_cluster_has_index_4(tmp_path: Path) -> None:
    labels = FrameLabels(write(tmp_path / "train.km", "0 1 9\n"), clusters(10), listed_clips(3), 25)
    assert labels[0].tolist() == [4, 5, 13]


def test_labels_at_100_hz_give_every_fourth(tmp_path: Path) -> None:
    path = write(tmp_path / "train.mfcc", " ".join(map(str, range(18))) + "\n")
    labels = FrameLabels(path, clusters(18), listed_clips(5), 100)
    assert (labels[0] - 4).tolist() == [0, 4, 8, 12]


def test_dictionary_file_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "train.km", "0 1\n")
    with pytest.raises(DataError, match=r"dict\.km\.txt: "):
        FrameLabels.load(path, tmp_path / "dict.km.txt", listed_clips(2), 25)
    write(tmp_path / "dict.km.txt", "0 1\n1 1\n")
    assert FrameLabels.load(path, tmp_path / "dict.km.txt", listed_clips(2), 25)[0].tolist() == [4, 5]


def test_sequence_label_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label_rate is -1"):
        FrameLabels(write(tmp_path / "train.km", "0\n"), clusters(1), listed_clips(1), -1)


def test_clips_whose_labels_last_as_long_are_kept(tmp_path: Path) -> None:
    clips = listed_clips(10, 10, 10)
    write(tmp_path / "a.mfcc", "".join("0 " * count + "\n" for count in (40, 31, 30)))
    write(tmp_path / "a.km", "".join("0 " * count + "\n" for count in (12, 10, 10)))
    fast = FrameLabels(tmp_path / "a.mfcc", clusters(1), clips, 100)
    same = FrameLabels(tmp_path / "a.km", clusters(1), clips, 25)
    assert keep_agreeing(clips, [fast], [0, 1, 2]) == [0, 1]  # 0.09 s are within bounds, 0.1 s not
    assert keep_agreeing(clips, [fast, same], [0, 1]) == [0, 1]
    assert keep_agreeing(clips, [same], [2]) == [2]


def test_wrong_label_rate_is_refused(tmp_path: Path) -> None:
    labels = FrameLabels(write(tmp_path / "a.km", "0 " * 40 + "\n"), clusters(1), listed_clips(10), 25)
    with pytest.raises(DataError, match=r"a\.km .*clip0 has 10 frames at 25 Hz and 40 labels.*label_rate"):
        keep_agreeing(listed_clips(10), [labels], [0])


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "valid.wrd").write_bytes("a\nü\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"valid\.wrd, line 2: is not UTF-8"):
        TextLabels(tmp_path / "valid.wrd", WORDS, listed_clips(1, 1))


def test_dictionary_without_cluster_0_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "train.km", " ".join(map(str, range(20))) + "\n")
    FrameLabels(path, dictionary_of(range(1, 20)), listed_clips(20), 25)
    assert "5.0% of the labels" in caplog.text
    assert "they count as <unk>" in caplog.text
