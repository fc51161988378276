"""Lists and transcripts from a corpus and its crops."""

import pytest

from av_ssl.corpora import read_corpus
from tests.corpora import trees

from .conftest import call


def prepared(tmp_path, names, text="Text:  HELLO {}\nConf:  4\n"):
    """Folders as av-ssl crop leaves them, and a transcript for each clip."""
    source, out = tmp_path / "talks", trees.clip_list(tmp_path / "out", names)
    for name in names:
        path = source / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(name.upper()))
        trees.touch(source, f"{name}.mp4")
    return source, out


def cropped(tmp_path, corpus):
    """A corpus in its owners' naming, and a folder in which all of its clips are cropped."""
    source = getattr(trees, corpus)(tmp_path / "in")
    return source, trees.clip_list(tmp_path / "out", list(read_corpus(corpus, source)))


def names(path):
    """Ids in a list."""
    return [row.split("\t")[0] for row in path.read_text().splitlines()[1:]]


def test_lists_and_transcripts_fit(tmp_path, capsys):
    source, out = prepared(tmp_path, [f"s/{k:02d}" for k in range(20)])
    assert call("data", "manifest", source, out, "--valid", "0.1", "--test", "0.2") == 0
    listed = []
    for split, count in (("train", 14), ("valid", 2), ("test", 4)):
        root, *rows = (out / f"{split}.tsv").read_text().splitlines()
        words = (out / f"{split}.wrd").read_text().splitlines()
        assert root == "/"
        assert len(rows) == len(words) == count
        for row, transcript in zip(rows, words, strict=True):
            name, video, audio, frames, samples = row.split("\t")
            assert transcript == f"hello {name}"
            assert (video, audio) == (f"{out}/video/{name}.mp4", f"{out}/audio/{name}.wav")
            assert (frames, samples) == ("75", "48000")
            listed.append(name)
    assert len(set(listed)) == 20
    assert "14 clips, all with transcripts" in capsys.readouterr().out


def test_a_split_with_a_missing_transcript_has_no_wrd_even_when_an_earlier_run_left_one(tmp_path, capsys):
    source, out = prepared(tmp_path, ["train/a", "train/b", "valid/c", "test/d"])
    assert call("data", "manifest", source, out) == 0
    assert (out / "train.wrd").exists()
    (source / "train/b.txt").unlink()
    capsys.readouterr()
    assert call("data", "manifest", source, out) == 0
    assert not (out / "train.wrd").exists()
    assert (out / "train.wrd.old").read_text() == "hello train/a\nhello train/b\n"
    assert (out / "valid.wrd").exists()
    assert "1 without transcript (e.g. train/b)" in capsys.readouterr().out


def test_transcripts_of_the_user_are_not_lost(tmp_path, capsys):
    source, out = prepared(tmp_path, ["train/a", "train/b", "valid/c", "test/d"])
    for text in source.rglob("*.txt"):
        text.unlink()
    assert call("data", "manifest", source, out) == 0
    (out / "train.wrd").write_text("mine\nmine, too\n")
    assert call("data", "manifest", source, out) == 0
    assert (out / "train.wrd").read_text() == "mine\nmine, too\n"
    assert f"{out / 'train.wrd'}: is left as it was" in capsys.readouterr().out
    for number in range(2):
        (source / f"train/b{number}.mp4").touch()
        trees.clip_list(out, ["train/a", f"train/b{number}", "valid/c", "test/d"])
        (out / "train.wrd").write_text(f"mine {number}\nmine, too\n")
        assert call("data", "manifest", source, out) == 0
        assert not (out / "train.wrd").exists()
    assert f"{out / 'train.wrd'}: is now train.wrd.old1" in capsys.readouterr().out
    assert (out / "train.wrd.old").read_text() == "mine 0\nmine, too\n"


def test_labelled_is_a_folder_of_its_own_with_n_training_clips(tmp_path, refused):
    source, out = prepared(tmp_path, [f"{k:02d}" for k in range(20)])
    (out / "spm.model").write_bytes(b"model")
    for name in (out / "clips.tsv").read_text().split()[5::5][:2]:
        (source / f"{name}.txt").unlink()
    assert call("data", "manifest", source, out, "--labelled", "5") == 0
    everything = (out / "train.tsv").read_text().splitlines()
    root, *rows = (out / "labelled_5" / "train.tsv").read_text().splitlines()
    words = (out / "labelled_5" / "train.wrd").read_text().splitlines()
    assert root == everything[0]
    assert len(rows) == len(words) == 5
    assert set(rows) < set(everything)
    assert (out / "labelled_5" / "valid.tsv").read_text() == (out / "valid.tsv").read_text()
    assert (out / "labelled_5" / "spm.model").read_bytes() == b"model"
    assert "--labelled 50: only" in refused(call("data", "manifest", source, out, "--labelled", "50"))


def test_broken_clip_lists_are_named(tmp_path, refused):
    source, out = prepared(tmp_path, ["a"])
    (out / "clips.tsv").unlink()
    assert "run av-ssl crop first" in refused(call("data", "manifest", source, out))
    assert call("data", "manifest", tmp_path / "absent", out) == 1


def test_lrs3_gives_the_lists_of_433_and_30_hours_to_the_byte(tmp_path):
    source, out = cropped(tmp_path, "lrs3")
    ids = tmp_path / "valid.ids"
    ids.write_text("trainval/v0/50000\ntrainval/v4/50019\n")
    assert call("data", "manifest", "--corpus", "lrs3", "--valid-ids", ids, source, out) == 0
    row = "{0}\t{1}/video/{0}.mp4\t{1}/audio/{0}.wav\t75\t48000\n"
    trainval = [f"trainval/v{number // 4}/5{number:04d}" for number in range(1, 19)]
    pretrain = ["pretrain/abc/00001", "pretrain/abc/00002_00", "pretrain/abc/00002_01"]
    expected = {
        "train": [*pretrain, *trainval],
        "30h_data/train": trainval,
        "valid": ["trainval/v0/50000", "trainval/v4/50019"],
        "30h_data/valid": ["trainval/v0/50000", "trainval/v4/50019"],
        "test": ["test/t/00000", "test/t/00001"],
    }
    for split, clips in expected.items():
        text = "/\n" + "".join(row.format(name, out) for name in clips)
        assert (out / f"{split}.tsv").read_bytes() == text.encode(), split
    words = (out / "train.wrd").read_text().splitlines()
    assert words[:4] == ["short one", "long one", "cut", "train number 1"]
    assert (out / "train.spk").read_text().splitlines()[:4] == ["abc", "abc", "abc", "v0"]
    assert (out / "30h_data" / "train.wrd").read_text().splitlines() == words[3:]
    assert (out / "test.wrd").read_bytes() == b"test 0\ntest 1\n"


def test_lrs3_draws_validation_clips_from_trainval_only(tmp_path):
    source, out = cropped(tmp_path, "lrs3")
    assert call("data", "manifest", "--corpus", "lrs3", source, out) == 0
    assert len(names(out / "valid.tsv")) == 2  # a tenth of this little trainval, in place of 1200
    assert call("data", "manifest", "--corpus", "lrs3", "--valid", "7", source, out) == 0
    assert len(names(out / "valid.tsv")) == 7
    assert all(name.startswith("trainval/") for name in names(out / "valid.tsv"))


def test_tokenizer_files_reach_the_part_lists(tmp_path):
    source, out = cropped(tmp_path, "lrs3")
    assert call("data", "manifest", "--corpus", "lrs3", source, out) == 0
    assert call("data", "vocabulary", "--size", "40", out) == 0
    for name in ("spm.model", "dict.wrd.txt"):
        assert (out / "30h_data" / name).read_bytes() == (out / name).read_bytes()


def test_lrs2_follows_the_lists_of_its_owners(tmp_path):
    source, out = cropped(tmp_path, "lrs2")
    assert call("data", "manifest", "--corpus", "lrs2", source, out) == 0
    pretrain = ["pretrain/6331/00000", "pretrain/6331/00001"]
    main_part = ["main/6330/00000", "main/6330/00001"]
    assert names(out / "train.tsv") == [*main_part, *pretrain]
    assert names(out / "main_data" / "train.tsv") == main_part
    assert names(out / "valid.tsv") == ["main/6330/00002"]
    assert (out / "test.wrd").read_text() == "main 3\n"


@pytest.mark.parametrize(
    ("corpus", "sizes"),
    [
        ("grid", [3, 1, 2]),
        ("ravdess", [12, 2, 2]),
        ("crema_d", [7, 1, 2]),
        ("voxceleb2", [4, 2, 1]),
        ("iemocap", [8, 3, 4]),
    ],
)
def test_no_speaker_is_in_two_splits(tmp_path, corpus, sizes):
    source, out = cropped(tmp_path, corpus)
    assert call("data", "manifest", "--corpus", corpus, source, out) == 0
    speakers = [set((out / f"{split}.spk").read_text().split()) for split in ("train", "valid", "test")]
    assert len(set.union(*speakers)) == sum(map(len, speakers))
    assert [len(names(out / f"{split}.tsv")) for split in ("train", "valid", "test")] == sizes
    assert (out / "train.wrd").exists() == (corpus != "voxceleb2")


def test_emotions_lie_beside_the_clips(tmp_path):
    source, out = cropped(tmp_path, "ravdess")
    assert call("data", "manifest", "--corpus", "ravdess", source, out) == 0
    emotions = (out / "train.emo").read_text().splitlines()
    assert [name.split("/")[1][6:8] for name in names(out / "train.tsv")] == [
        {"angry": "05", "neutral": "01"}[emotion] for emotion in emotions
    ]


def test_folds_are_folders_of_their_own(tmp_path, refused):
    source, out = cropped(tmp_path, "iemocap")
    command = ["data", "manifest", "--corpus", "iemocap", str(source), str(out)]
    assert call(*command, "--fold", "session-2", "--fold", "session-5") == 0
    for session, valid in ((2, 3), (5, 1)):
        folder = out / f"fold_session-{session}"
        assert set((folder / "test.spk").read_text().split()) == {f"Ses{session:02d}F", f"Ses{session:02d}M"}
        assert set((folder / "valid.spk").read_text().split()) == {f"Ses{valid:02d}F", f"Ses{valid:02d}M"}
        assert len(names(folder / "train.tsv")) == len((folder / "train.emo").read_text().split()) == 9
        assert (folder / "classes.emo.txt").read_text().split() == ["ang", "hap", "neu"]
        assert len((folder / "classes.spk.txt").read_text().split()) == 6
    assert "--fold p6-1: IEMOCAP has session-1, session-2" in refused(call(*command, "--fold", "p6-1"))
    assert "has none" in refused(call("data", "manifest", source, out, "--fold", "p6-1"))


def test_recordings_without_video_are_listed_where_they_are(tmp_path, refused):
    source = trees.voxceleb1(tmp_path / "in")
    out = tmp_path / "out"
    command = ["data", "manifest", "--corpus", "voxceleb1", "--valid", "1", str(source), str(out)]
    assert call(*command) == 0
    row = (out / "test.tsv").read_text().splitlines()[1]
    wav = source / "wav/id10270/5r0dWxy17C8/00001.wav"
    assert row == f"id10270/5r0dWxy17C8/00001\t\t{wav}\t25\t16000"
    assert (out / "test.spk").read_text() == "id10270\n"
    assert [len(names(out / f"{split}.tsv")) for split in ("train", "valid", "test")] == [4, 2, 1]
    wav.write_bytes(b"RIFF")
    assert "00001.wav: cannot be read" in refused(call(*command))
    assert "VoxCeleb1 has no videos; " in refused(call("crop", "--corpus", "voxceleb1", source, out))


def test_only_the_clips_of_a_list_of_ids(tmp_path, refused, capsys):
    source, out = cropped(tmp_path, "voxceleb2")
    english = tmp_path / "english"
    english.write_text("id00012/21Uxsk56VDQ/00001\nid00015/21Uxsk56VDQ/00002\ndev/mp4/id00099/v/00001.mp4\n")
    command = f"data manifest --corpus voxceleb2 --valid 1 --ids {english} {source} {out}".split()
    assert call(*command) == 0
    printed = capsys.readouterr().out
    assert "1 of 3 ids are not in" in printed
    assert "dev/id00099/v/00001 on line 3" in printed
    listed = [*names(out / "train.tsv"), *names(out / "valid.tsv")]
    assert sorted(listed) == ["dev/id00012/21Uxsk56VDQ/00001", "dev/id00015/21Uxsk56VDQ/00002"]
    english.write_text("id00099/v/00001\n")
    assert "none of its 1 ids (line 1: dev/id00099/v/00001) is a clip" in refused(call(*command))


def test_a_folder_of_lists_decides_the_splits(tmp_path, refused, capsys):
    source, out = prepared(tmp_path, [f"s/{k:02d}" for k in range(10)])
    (out / "clips.tsv").write_text("".join((out / "clips.tsv").read_text().splitlines(True)[:-1]))
    lists = tmp_path / "lists"
    lists.mkdir()
    parts = {"train": [3, 1, 2, 9], "valid": [4], "test_seen": [5, 6], "labelled_2": [2, 3]}
    for name, numbers in parts.items():
        (lists / f"{name}.txt").write_text("".join(f"s/{number:02d}\n" for number in numbers))
    arguments = ["data", "manifest", str(source), str(out), "--ids", str(lists)]
    assert call(*arguments) == 0
    assert names(out / "train.tsv") == ["s/03", "s/01", "s/02"]
    assert names(out / "test_seen.tsv") == ["s/05", "s/06"]
    assert names(out / "labelled_2/train.tsv") == ["s/02", "s/03"]
    assert names(out / "labelled_2/valid.tsv") == ["s/04"]
    assert (out / "labelled_2/train.wrd").read_text() == "hello s/02\nhello s/03\n"
    assert f"{lists / 'train.txt'}: 1 of its clips" in capsys.readouterr().out

    for option in ("--valid=0", "--test=2", "--labelled=2", f"--valid-ids={lists / 'valid.txt'}", "--fold=1"):
        assert f"{option.partition('=')[0]}: {lists}" in refused(call(*arguments, option))
    (lists / "test_seen.txt").write_text("s/05\ns/6\n")
    for command in (arguments, ["crop", *arguments[2:]]):
        assert f"{lists / 'test_seen.txt'}, line 2: " in refused(call(*command))
    (lists / "test_seen.txt").write_text("s/05\n")

    (lists / "labelled_2.txt").write_text("s/05\n")  # a test clip
    assert f"{lists / 'test_seen.txt'}, line 1: s/05" in refused(call(*arguments))
    (lists / "clips.txt").write_text("s/05\n")
    assert f"{lists / 'clips.txt'}: " in refused(call(*arguments))
    (lists / "clips.txt").unlink()
    (lists / "train.txt").unlink()
    assert str(lists / "train.txt") in refused(call(*arguments))


def test_a_list_of_validation_clips_that_does_not_fit(tmp_path, refused):
    source, out = cropped(tmp_path, "lrs3")
    ids = tmp_path / "ids"
    ids.write_text("trainval/v0/50000\ntrainval/zz/50000\n")
    assert "ids, line 2: the corpus has no clip trainval/zz/50000" in refused(
        call("data", "manifest", "--corpus", "lrs3", "--valid-ids", ids, source, out)
    )


def test_crops_of_another_corpus(tmp_path, refused):
    source, out = cropped(tmp_path, "lrs3")
    trees.clip_list(out, ["s1/bbaf2n"])
    assert "clips.tsv: lists no clip of the corpus" in refused(
        call("data", "manifest", "--corpus", "lrs3", source, out)
    )
