"""Every corpus in its owners' naming: ids, splits, transcripts; and what is refused."""

from collections import Counter

import pytest

from av_ssl.corpora import CORPORA, read_corpus
from av_ssl.corpora.corpus import read_ids
from av_ssl.corpora.grid import sentence
from av_ssl.errors import DataError
from tests.corpora import trees
from tests.corpora.trees import touch

NAMES = sorted(set(CORPORA) - {"folder"})


def refused(name, folder, message):
    with pytest.raises(DataError, match=message):
        read_corpus(name, folder)


def splits(clips):
    return Counter(clip.split for clip in clips.values())


def test_lrs3(tmp_path):
    clips = read_corpus("lrs3", trees.lrs3(tmp_path))
    assert splits(clips) == {"train": 3, None: 20, "test": 2}
    assert clips["trainval/v1/50005"].transcript == "train number 5"
    assert clips["trainval/v1/50005"].part == "trainval"
    assert clips["pretrain/abc/00001"].source.span is None
    first, second = clips["pretrain/abc/00002_00"], clips["pretrain/abc/00002_01"]
    assert (first.transcript, second.transcript) == ("long one", "cut")
    assert first.source.video == second.source.video == tmp_path / "pretrain/abc/00002.mp4"
    assert first.source.recording == second.source.recording == "pretrain/abc/00002"
    assert first.source.span == pytest.approx((0.0, 14.2))
    assert second.source.span == pytest.approx((14.8, 19.2))
    assert first.source.files == (tmp_path / "pretrain/abc/00002.mp4", tmp_path / "pretrain/abc/00002.txt")


@pytest.mark.parametrize("inner", ["", "mvlrs_v1"])
def test_lrs2(tmp_path, inner):
    clips = read_corpus("lrs2", trees.lrs2(tmp_path, inner))
    assert splits(clips) == {"train": 4, "valid": 1, "test": 1}
    assert clips["main/6330/00002"].split == "valid"
    assert clips["main/6330/00003"].transcript == "main 3"
    assert clips["pretrain/6331/00001"].split == "train"


def test_lrs2_lists_that_are_missing_or_name_no_video(tmp_path):
    trees.lrs2(tmp_path)
    (tmp_path / "val.txt").write_text("6330/00002\n6330/99999\n")
    refused("lrs2", tmp_path, r"val\.txt, line 2: .*main/6330/99999\.mp4")
    (tmp_path / "val.txt").write_bytes(b"6330/00002\n\xff/00001\n")
    refused("lrs2", tmp_path, r"val\.txt, line 2: ")
    (tmp_path / "val.txt").unlink()
    refused("lrs2", tmp_path, r"val\.txt: .* valid clips of main")
    trees.lrs2(tmp_path)
    (tmp_path / "test.txt").write_text("6330/00003 NF MV\n6330/00000 NF MV\n")
    refused("lrs2", tmp_path, r"00000\.mp4: .*main/6330/00000")


def test_voxceleb2(tmp_path):
    trees.voxceleb2(tmp_path)
    clips = read_corpus("voxceleb2", tmp_path)
    assert splits(clips) == {None: 6, "test": 1}
    clip = clips["dev/id00012/21Uxsk56VDQ/00002"]
    assert (clip.speaker, clip.transcript, clip.source.sound) == ("id00012", None, None)
    touch(tmp_path, "dev/aac/id00012/21Uxsk56VDQ/00002.m4a")
    clip = read_corpus("voxceleb2", tmp_path)["dev/id00012/21Uxsk56VDQ/00002"]
    assert clip.source.sound == tmp_path / "dev/aac/id00012/21Uxsk56VDQ/00002.m4a"


@pytest.mark.parametrize(
    "line",
    [
        "dev/id1/v/00001",
        "id00012/a-b_c/00001",
        "dev/mp4/id00012/a-b_c/00001.mp4",
        "x/dev/aac/id00012/a-b_c/00001.m4a",
    ],
)
def test_voxceleb2_ids_may_be_written_in_several_ways(line):
    expected = line if line.startswith("dev/id1") else "dev/id00012/a-b_c/00001"
    assert CORPORA["voxceleb2"].clip_id(f"{line}\n") == expected
    assert CORPORA["voxceleb2"].clip_id("test/mp4/id00017/v/00001.mp4") == "test/id00017/v/00001"


def test_grid(tmp_path):
    clips = read_corpus("grid", trees.grid(tmp_path))
    assert list(clips) == ["s1/bbaf2n", "s2/lwwz9s", "s3/sgib8p", "s4/pgixza", "s5/lbbc2a", "s6/swiz3n"]
    assert [clip.split for clip in clips.values()] == ["test", "test", None, None, None, None]
    assert clips["s1/bbaf2n"].transcript == "bin blue at f two now"
    assert clips["s4/pgixza"].transcript == "place green in x zero again"


def test_grid_names_that_are_no_sentence_and_two_copies(tmp_path):
    with pytest.raises(DataError, match=r"holiday\.mpg: "):
        sentence(tmp_path / "s1" / "holiday.mpg")
    trees.grid(tmp_path)
    touch(tmp_path, "s3/video/mpg_vcd/sgib8p.mpg")
    refused("grid", tmp_path, r"sgib8p\.mpg: .*s3/sgib8p")


@pytest.mark.parametrize("archive", ["", "Video_Speech_Actor_01"])
def test_ravdess(tmp_path, archive):
    trees.ravdess(tmp_path / archive)
    clips = read_corpus("ravdess", tmp_path)
    assert splits(clips) == {None: 16}
    clip = clips["Actor_03/01-01-05-01-01-01-03"]
    assert (clip.speaker, clip.transcript) == ("03", "kids are talking by the door")
    assert clip.labels == {"emo": "angry"}
    touch(tmp_path, "Actor_01/01-01-09-01-01-01-01.mp4")
    refused("ravdess", tmp_path, r"01-01-09-01-01-01-01\.mp4: .* 09 ")
    touch(tmp_path, "Actor_01/a.mp4")
    (tmp_path / "Actor_01/01-01-09-01-01-01-01.mp4").unlink()
    refused("ravdess", tmp_path, r"a\.mp4: ")


def test_crema_d(tmp_path):
    trees.crema_d(tmp_path)
    clips = read_corpus("crema_d", tmp_path)
    assert len(clips) == 10
    clip = clips["1001_DFA_ANG_XX"]
    assert (clip.speaker, clip.transcript, clip.labels) == ("1001", "don't forget a jacket", {"emo": "ANG"})
    assert clip.source.sound is None
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    assert read_corpus("crema_d", tmp_path)["1001_DFA_ANG_XX"].source.sound is not None
    touch(tmp_path, "VideoFlash/1001_XYZ_ANG_XX.flv")
    refused("crema_d", tmp_path, r"1001_XYZ_ANG_XX\.flv: ")


def test_voxceleb1(tmp_path):
    trees.voxceleb1(tmp_path / "dev")
    clips = read_corpus("voxceleb1", tmp_path)
    assert splits(clips) == {None: 6, "test": 1}
    clip = clips["id10001/1zcIwhmdeo4/00002"]
    assert (clip.speaker, clip.source.sound) == (
        "id10001",
        tmp_path / "dev/wav/id10001/1zcIwhmdeo4/00002.wav",
    )
    assert CORPORA["voxceleb1"].clip_id("wav/id10001/1zcIwhmdeo4/00002.wav\n") == "id10001/1zcIwhmdeo4/00002"


def test_iemocap(tmp_path):
    trees.iemocap(tmp_path)
    clips = read_corpus("iemocap", tmp_path)
    assert len(clips) == 15  # frustration is none of the four classes
    clip = clips["Ses03F_impro01_M0003"]
    # The last letter speaks, the first one wears the markers.
    assert (clip.speaker, clip.labels, clip.transcript) == ("Ses03M", {"emo": "hap"}, "excuse me.")
    assert clip.source.span == (3.0, 4.5)
    assert clip.source.recording == "Ses03F_impro01"
    evaluation = tmp_path / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt"
    evaluation.write_text("head\n[1.0 - 2.0]\tSes02F\tneu\t[2, 2, 2]\n")
    refused("iemocap", tmp_path, r"Ses02F_impro01\.txt, line 2: Ses02F ")
    (tmp_path / "Session2/dialog/avi/DivX/Ses02F_impro01.avi").unlink()
    refused("iemocap", tmp_path, r"Ses02F_impro01\.txt: .*Ses02F_impro01\.avi")


@pytest.mark.parametrize(
    ("corpus", "folds", "speakers"), [("ravdess", 12, 24), ("crema_d", 5, 91), ("iemocap", 5, 10)]
)
def test_folds_share_no_speaker_and_test_everybody(corpus, folds, speakers):
    known = CORPORA[corpus].folds
    assert len(known) == folds
    assert all(not fold.test & fold.valid for fold in known.values())
    for protocol in {name.split("-")[0] for name in known if "-" in name}:
        tested = [fold.test for name, fold in known.items() if name.startswith(f"{protocol}-")]
        assert len(frozenset.union(*tested)) == sum(map(len, tested)) == speakers


def test_published_folds():
    assert CORPORA["ravdess"].folds["p6-6"].test == {"21", "22", "23", "24"}
    assert CORPORA["ravdess"].folds["p6-6"].valid == {"01", "02", "03", "04"}
    assert CORPORA["ravdess"].folds["p5-2"].test == {"03", "06", "07", "13", "18"}
    assert CORPORA["ravdess"].folds["p1"].valid == {"11", "13", "18", "22"}
    sizes = [len(fold.test) for fold in CORPORA["crema_d"].folds.values()]
    assert sizes == [18, 18, 18, 18, 19]
    assert CORPORA["iemocap"].folds["session-5"].test == {"Ses05F", "Ses05M"}


def test_a_folder(tmp_path):
    touch(
        tmp_path, "pretrain/a/1.mp4", "Test/b/2.avi", "val/c.mp4", "other/train_not/d.mp4", "out/video/x.mp4"
    )
    (tmp_path / "pretrain/a/1.txt").write_text("Hello THERE\n")
    clips = read_corpus("folder", tmp_path, skip=tmp_path / "out")
    assert {name: clip.split for name, clip in clips.items()} == {
        "Test/b/2": "test",
        "other/train_not/d": None,
        "pretrain/a/1": None,
        "val/c": "valid",
    }
    assert clips["pretrain/a/1"].transcript == "hello there"
    assert clips["val/c"].transcript is None
    (tmp_path / "val/c.spk").write_text("ann\n")
    (tmp_path / "val/c.emo").write_text("sad\n")
    clip = read_corpus("folder", tmp_path)["val/c"]
    assert (clip.speaker, clip.labels) == ("ann", {"emo": "sad"})
    (tmp_path / "val/c.emo").write_text("sad angry\n")
    refused("folder", tmp_path, r"c\.emo: .* 2 words")


@pytest.mark.parametrize("present", NAMES)
@pytest.mark.parametrize("wanted", NAMES)
def test_the_folder_of_another_corpus_is_named(tmp_path, present, wanted):
    getattr(trees, present)(tmp_path)
    if present == wanted:
        assert read_corpus(wanted, tmp_path)
        return
    refused(wanted, tmp_path, rf"preprocess/{present}\.sh")


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_none_of_them_and_no_folder(tmp_path, name):
    with pytest.raises(DataError, match=r"preprocess/folder\.sh") as error:
        read_corpus(name, tmp_path)
    assert str(error.value).count("preprocess/") == 1
    refused(name, tmp_path / "absent", "absent: ")


def test_an_empty_corpus(tmp_path):
    (tmp_path / "trainval").mkdir()
    refused("lrs3", tmp_path, r"LRS3.* pretrain/ID/NNNNN")


@pytest.mark.parametrize("corpus", ["lrs3", "lrs2"])
def test_missing_and_empty_transcripts_are_named(tmp_path, corpus):
    getattr(trees, corpus)(tmp_path)
    path = sorted(tmp_path.glob("[mt]*/*/*.txt"))[0]
    path.write_text("Text:\nConf: 3\n")
    refused(corpus, tmp_path, f"{path.name}, line 1: ")
    path.unlink()
    refused(corpus, tmp_path, f"{path.name}: ")


def test_a_folder_as_users_make_it(tmp_path, caplog):
    """Unicode forms of names, suffixes in capitals, byte-order marks, rare and unread kinds of files."""
    composed, decomposed = "jos\u00e9", "jose\u0301"
    touch(tmp_path, f"{decomposed}.ts", "b.QT", "c.f4v", "d.asf", "e.gif", "f.srt", "g.srt")
    (tmp_path / f"{composed}.txt").write_text("hello")
    (tmp_path / "b.TXT").write_text("hello b")
    for name, speaker in ((decomposed, f"\ufeff{decomposed}\r\n"), ("b", composed)):
        (tmp_path / f"{name}.spk").write_text(speaker)
    clips = read_corpus("folder", tmp_path)
    assert list(clips) == ["b", "c", "d", decomposed]
    assert [clips[name].transcript for name in ("b", decomposed)] == ["hello b", "hello"]
    assert clips["b"].speaker == clips[decomposed].speaker == composed
    assert "1 .gif, 2 .srt" in caplog.text
    (tmp_path / "ids").write_text(f"\ufeff{composed}\r\n")
    assert read_ids(tmp_path / "ids", CORPORA["folder"], clips) == {decomposed: 1}
    touch(tmp_path, f"{composed}.mp4")
    refused("folder", tmp_path, r"\.(ts|mp4): has the same id")
