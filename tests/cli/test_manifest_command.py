"""Splits, transcripts and lists."""

import pytest

from av_ssl.cli.main import main
from av_ssl.cli.splits import assign_splits
from av_ssl.cli.transcripts import read_transcript
from av_ssl.errors import DataError

FRACTIONS = {"valid": 0.1, "test": 0.1}


def prepared(tmp_path, names, text="Text:  HELLO {}\nConf:  4\n"):
    """Folders as av-ssl crop leaves them, and a transcript for each clip."""
    out, source = tmp_path / "out", tmp_path / "talks"
    out.mkdir()
    rows = [f"{name}\tvideo/{name}.mp4\taudio/{name}.wav\t75\t48000" for name in names]
    (out / "clips.tsv").write_text("\n".join(["id\tvideo\taudio\tframes\tsamples", *rows]) + "\n")
    for name in names:
        path = source / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(name.upper()))
    return source, out


def test_lists_and_transcripts_fit(tmp_path, capsys):
    source, out = prepared(tmp_path, [f"s/{k:02d}" for k in range(20)])
    assert main(["manifest", str(source), str(out), "--valid", "0.1", "--test", "0.2"]) == 0
    names = []
    for split, count in (("train", 14), ("valid", 2), ("test", 4)):
        root, *rows = (out / f"{split}.tsv").read_text().splitlines()
        words = (out / f"{split}.wrd").read_text().splitlines()
        assert root == str(out.resolve())
        assert len(rows) == len(words) == count
        for row, transcript in zip(rows, words, strict=True):
            name, video, audio, frames, samples = row.split("\t")
            assert transcript == f"hello {name}"
            assert (video, audio) == (f"video/{name}.mp4", f"audio/{name}.wav")
            assert (frames, samples) == ("75", "48000")
            names.append(name)
    assert len(set(names)) == 20
    assert "14 clips, all with transcripts" in capsys.readouterr().out


def test_folders_decide(tmp_path):
    names = ["pretrain/a/1", "trainval/a/2", "test/b/1", "valid/c/1", "Test/b/2", "other/train_not/1"]
    splits = assign_splits(names, FRACTIONS, seed=0)
    assert splits == {
        "train": ["other/train_not/1", "pretrain/a/1", "trainval/a/2"],
        "valid": ["valid/c/1"],
        "test": ["Test/b/2", "test/b/1"],
    }


def test_a_split_that_no_folder_names_is_drawn_from_the_training_clips():
    names = [f"pretrain/{k}" for k in range(30)] + ["test/1"]
    splits = assign_splits(names, FRACTIONS, seed=0)
    assert [len(splits[split]) for split in ("train", "valid", "test")] == [27, 3, 1]
    assert splits == assign_splits(names[::-1], FRACTIONS, seed=0)
    assert splits != assign_splits(names, FRACTIONS, seed=1)


def test_few_clips_still_give_every_split_one_and_zero_gives_none():
    assert [len(c) for c in assign_splits(["a", "b", "c", "d"], FRACTIONS, 0).values()] == [2, 1, 1]
    assert [len(c) for c in assign_splits(["a", "b", "c"], {"valid": 0, "test": 0}, 0).values()] == [3, 0, 0]
    with pytest.raises(DataError, match="no clip is left for training"):
        assign_splits(["test/a"], FRACTIONS, 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Text:  HELLO  THERE\nConf:  3\n\nWORD START END\nHELLO 0.1 0.2\n", "hello there"),
        (b"Hello\nthere\t\xc3\x89mile\n", "hello there émile"),
        (b"\xef\xbb\xbfText: Bom", "bom"),
        (b"Text:\nConf: 3\n", None),
        (b" \n", None),
    ],
)
def test_transcripts(tmp_path, content, expected):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_transcript(tmp_path / "a.txt") == expected
    assert read_transcript(tmp_path / "absent.txt") is None


def test_a_transcript_in_another_encoding_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"a\.txt: is not UTF-8"):
        read_transcript(tmp_path / "a.txt")


def test_a_split_with_a_missing_transcript_has_no_wrd_even_when_an_earlier_run_left_one(tmp_path, capsys):
    source, out = prepared(tmp_path, ["train/a", "train/b", "valid/c", "test/d"])
    assert main(["manifest", str(source), str(out)]) == 0
    assert (out / "train.wrd").exists()
    (source / "train/b.txt").unlink()
    assert main(["manifest", str(source), str(out)]) == 0
    assert not (out / "train.wrd").exists()
    assert (out / "valid.wrd").exists()
    assert "1 without transcript (e.g. train/b)" in capsys.readouterr().out


def test_labelled_is_a_folder_of_its_own_with_n_training_clips(tmp_path, capsys):
    source, out = prepared(tmp_path, [f"{k:02d}" for k in range(20)])
    (out / "spm.model").write_bytes(b"model")
    for name in (out / "clips.tsv").read_text().split()[5::5][:2]:
        (source / f"{name}.txt").unlink()
    assert main(["manifest", str(source), str(out), "--labelled", "5"]) == 0
    everything = (out / "train.tsv").read_text().splitlines()
    root, *rows = (out / "labelled_5" / "train.tsv").read_text().splitlines()
    words = (out / "labelled_5" / "train.wrd").read_text().splitlines()
    assert root == everything[0]
    assert len(rows) == len(words) == 5
    assert set(rows) < set(everything)
    assert (out / "labelled_5" / "valid.tsv").read_text() == (out / "valid.tsv").read_text()
    assert (out / "labelled_5" / "spm.model").read_bytes() == b"model"
    assert main(["manifest", str(source), str(out), "--labelled", "50"]) == 1
    assert "--labelled 50: only" in capsys.readouterr().err


def test_broken_clip_lists_are_named(tmp_path, capsys):
    source, out = prepared(tmp_path, ["a"])
    (out / "clips.tsv").write_text("id\tvideo\taudio\tframes\tsamples\na\tb\n")
    assert main(["manifest", str(source), str(out)]) == 1
    assert "clips.tsv, line 2" in capsys.readouterr().err
    (out / "clips.tsv").unlink()
    assert main(["manifest", str(source), str(out)]) == 1
    assert "run av-ssl crop first" in capsys.readouterr().err
    assert main(["manifest", str(tmp_path / "absent"), str(out)]) == 1
