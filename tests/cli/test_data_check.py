"""`av-ssl data check`: a sound folder passes, and every damage is reported with file and line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from av_ssl.data import check as data_check
from av_ssl.media.audio import write_audio
from av_ssl.media.video import write_video
from tests.media.synthetic import run_in_process

from .conftest import call

FRAMES = 10


def write_split(data: Path, split: str, clips: int) -> None:
    """Clips of ten frames, transcripts, cluster labels at 25 Hz."""
    rng = np.random.default_rng(len(split))
    rows, words, labels = [str(data)], [], []
    for number in range(clips):
        name = f"{split} {number}"
        write_video(data / "video" / f"{name}.mp4", rng.integers(0, 255, (FRAMES, 96, 96), np.uint8))
        write_audio(data / "audio" / f"{name}.wav", rng.integers(-99, 99, 640 * FRAMES).astype(np.int16))
        rows.append(f"{name}\tvideo/{name}.mp4\taudio/{name}.wav\t{FRAMES}\t{640 * FRAMES}")
        words.append("bin blue")
        labels.append(" ".join(str(frame % 3) for frame in range(FRAMES)))
    for suffix, lines in (("tsv", rows), ("wrd", words), ("km", labels)):
        (data / f"{split}.{suffix}").write_text("\n".join(lines) + "\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder without a mistake."""
    for split, clips in (("train", 3), ("valid", 1)):
        write_split(tmp_path, split, clips)
    (tmp_path / "dict.wrd.txt").write_text("bin 1\nblue 1\n")
    (tmp_path / "dict.km.txt").write_text("0 1\n1 1\n2 1\n")
    (tmp_path / "clips.tsv").write_text("id\tvideo\taudio\tframes\tsamples\n")
    (tmp_path / "noise").mkdir()
    for split in ("train", "valid"):
        (tmp_path / "noise" / f"{split}.tsv").write_text(f"{tmp_path / 'audio' / 'train 0.wav'}\n")
    return tmp_path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opens files in this process; workers would import torch."""
    monkeypatch.setattr(data_check, "run_isolated", run_in_process)


def check(data: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    """Exit status and printed lines."""
    status = call("data", "check", data, "--workers", "1", *options)
    return status, capsys.readouterr().out.splitlines()


def edit(path: Path, line: int, old: str, new: str) -> None:
    lines = path.read_text().split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_text("\n".join(lines))


def test_a_sound_folder_has_no_problem(data, capsys):
    status, lines = check(data, capsys)
    assert status == 0
    assert lines[-1] == f"{data}: no problem"
    assert f"{data / 'train.tsv'}: 3 clips, 0.00 hours" in lines


def test_every_line_of_a_manifest_is_looked_at(data, capsys):
    manifest = data / "train.tsv"
    edit(manifest, 2, "\t6400", "\tmany")
    edit(manifest, 3, "train 1\t", "train 2\t")
    edit(manifest, 4, "\taudio/train 2.wav", "\t")
    with manifest.open("a") as file:
        file.write("valid 0\tvideo/valid 0.mp4\taudio/valid 0.wav\t10\t9600\nonly two\tcolumns\n")
    status, lines = check(data, capsys, "--lists-only")
    assert status == 1
    problems = [line for line in lines if line.startswith(f"{manifest}, line")]
    text = "\n".join(problems)
    assert "line 2: lengths '10' and 'many' are not whole numbers" in text
    assert "line 4: id 'train 2' is also on line 3" in text
    assert "line 4: has no audio, other clips have" in text
    assert "line 5: 10 frames at 25 Hz and 9600 samples at 16 kHz: the audio is 0.20 s longer" in text
    assert "line 6: 2 columns instead of 5" in text
    assert f"{data / 'valid.tsv'}, line 2: id 'valid 0' stands in train.tsv, line 5, too" in "\n".join(lines)
    assert lines[-1].endswith(f"{len(problems) + 1} problems")  # labels wait until the lines are mended


def test_an_id_in_two_splits_is_found_in_either_unicode_form(data, capsys):
    edit(data / "train.tsv", 3, "train 1\t", "é\t")
    edit(data / "valid.tsv", 2, "valid 0\t", "e\u0301\t")
    _, lines = check(data, capsys, "--lists-only")
    assert lines[0].startswith(f"{data / 'valid.tsv'}, line 2: ")
    assert "stands in train.tsv, line 3" in lines[0]


def test_a_recording_in_two_splits_is_found_under_another_id(data, capsys):
    edit(data / "valid.tsv", 2, "audio/valid 0.wav", "audio/train 1.wav")
    status, lines = check(data, capsys, "--lists-only")
    assert status == 1
    assert (
        f"{data / 'valid.tsv'}, line 2: {data / 'audio/train 1.wav'} stands in train.tsv, line 3" in lines[0]
    )


def test_a_folder_without_validation_is_no_wrong_one(data, capsys):
    """As folder.sh makes it of a video or two."""
    (data / "valid.tsv").write_text(f"{data}\n")
    for path in data.glob("valid.*[!v]"):
        path.unlink()
    status, lines = check(data, capsys, "--lists-only")
    assert status == 0
    (remark,) = [line for line in lines if "valid.tsv: lists no clips" in line]
    assert "dataset.disable_validation=true" in remark
    (data / "train.tsv").write_text(f"{data}\n")
    assert check(data, capsys, "--lists-only")[0] == 1


def test_labels_are_checked_line_by_line(data, capsys):
    edit(data / "train.wrd", 1, "bin", "bim")
    edit(data / "train.wrd", 2, "bin blue", "")
    (data / "valid.wrd").write_bytes(b"bin\xff\n")
    edit(data / "train.km", 1, "0 1 2", "0 7 2")
    edit(data / "train.km", 3, "0 1 2 0 1", "0")
    (data / "valid.km").write_text("")
    _, lines = check(data, capsys, "--lists-only")
    text = "\n".join(lines)
    assert "train.wrd, line 1: 'bim' not in the dictionary" in text
    assert "train.wrd, line 2: is empty" in text
    assert "valid.wrd, line 1: is not UTF-8" in text
    assert "train.km, line 1: '7' not in the dictionary" in text
    assert "train.km, line 3: 6 labels at 25 a second for 10 frames" in text
    assert "valid.km: 0 lines, valid.tsv lists 1 clips" in text
    assert lines[-1].endswith("6 problems")


def test_what_recognisers_would_learn_to_write_is_a_remark(data, capsys):
    (data / "train.wrd").write_text("bin blue, at f\n<unk> don't\n[noise] bin\n")
    (data / "valid.wrd").unlink()
    _, lines = check(data, capsys, "--lists-only")
    text = "\n".join(lines)
    assert "valid.wrd: does not exist" in text
    (data / "dict.wrd.txt").write_text(
        "".join(f"{word} 1\n" for word in ["bin", "blue,", "at", "f", "don't", "[noise]"])
    )
    (data / "spm.model").unlink(missing_ok=True)
    (remark,) = [line for line in check(data, capsys, "--lists-only")[1] if "punctuation" in line]
    assert remark.startswith(f"{data / 'train.wrd'}, line 1: has punctuation or tags, as 3 of 3 lines")


def test_labels_at_100_hz_are_known_by_their_number(data, capsys):
    for split, clips in (("train", 3), ("valid", 1)):
        (data / f"{split}.km").write_text((" ".join(["1"] * 40) + "\n") * clips)
    assert check(data, capsys, "--lists-only")[0] == 0
    edit(data / "train.km", 2, "1 1 1 1 1 1 1 1 1 1 1 1", "1")  # three times
    _, lines = check(data, capsys, "--lists-only")
    assert "train.km, line 2: 7 labels at 100 a second" in lines[0]


@pytest.mark.usefixtures("in_process")
def test_media_are_read_as_training_does(data, capsys):
    (data / "video" / "train 0.mp4").write_bytes(b"no video")
    (data / "audio" / "train 0.wav").unlink()
    write_video(data / "video" / "train 1.mp4", np.zeros((FRAMES - 1, 96, 96), np.uint8))
    write_video(data / "video" / "train 2.mp4", np.zeros((FRAMES, 64, 64), np.uint8), fps=30)
    write_audio(data / "audio" / "train 1.wav", np.zeros(6400, np.int16), rate=8000)
    write_audio(data / "audio" / "train 2.wav", np.zeros(5000, np.int16))
    _, lines = check(data, capsys, "--noise", str(data / "noise"))
    manifest = data / "train.tsv"
    expected = [
        (2, "train 0.mp4: cannot be opened as video"),
        (2, "train 0.wav: cannot be read as audio"),
        (3, "train 1.mp4: holds 9 frames, the manifest says 10"),
        (3, "train 1.wav: has 8000 Hz"),
        (4, "train 2.mp4: has 30.00 frames a second"),
        (4, "train 2.wav: holds 5000 samples, the manifest says 6400"),
    ]
    problems = [line for line in lines if line.startswith(f"{manifest}, line")]
    assert len(problems) == len(expected)
    for problem, (line, text) in zip(problems, expected, strict=True):
        assert f"line {line}: " in problem
        assert text in problem
    lost = data / "audio" / "train 0.wav"
    assert lines[0] == f"{data}/noise/train.tsv, line 1: {lost} does not exist; make the list again"


def test_changed_bytes_are_found_by_the_checksums(data, capsys):
    """The list is that of ``sha256sum``; values of samples and labels have no other check."""
    (data / "odd\\name\n.txt").write_text("x")
    command = "find . -type f ! -name SHA256SUMS -exec sha256sum {} + > SHA256SUMS"
    subprocess.run(command, shell=True, cwd=data, check=True)
    assert check(data, capsys)[0] == 0
    sound = data / "audio" / "train 1.wav"
    content = bytearray(sound.read_bytes())
    content[-1] ^= 1
    sound.write_bytes(content)
    edit(data / "train.km", 1, "0 1 2", "0 2 2")
    (data / "clips.tsv").unlink()
    with (data / "SHA256SUMS").open("a") as file:
        file.write("\n12ab  train.wrd\n")
    status, lines = check(data, capsys)
    problems = [line for line in lines if line.startswith(f"{data / 'SHA256SUMS'}, line ")]
    assert (status, len(problems)) == (1, 4)
    assert "is not 64 hexadecimal digits" in problems[0]
    for name in (sound, data / "train.km", data / "clips.tsv"):
        assert sum(str(name) in problem for problem in problems) == 1
    assert check(data, capsys, "--lists-only")[0] == 0


def test_what_is_missing_is_named(data, capsys):
    for name in ("valid.tsv", "dict.km.txt", "noise/train.tsv"):
        (data / name).unlink()
    _, lines = check(data, capsys, "--lists-only")
    text = "\n".join(lines)
    assert "valid.tsv: does not exist; training needs it" in text
    assert "dict.km.txt: the dictionary cannot be read" in text
    assert "noise/train.tsv: the noise list of this split cannot be read" in text
    assert call("data", "check", data / "absent") == 1


def test_further_test_lists_need_no_noise_of_their_own(data, capsys):
    for split in ("test_seen", "test_unseen"):
        write_split(data, split, 1)
    lost = [line for line in check(data, capsys, "--lists-only")[1] if "noise" in line]
    assert len(lost) == 1
    assert lost[0].startswith(f"{data}/noise/test.tsv: ")
    (data / "noise" / "test.tsv").write_text(f"{data / 'audio' / 'train 0.wav'}\n")
    assert check(data, capsys, "--lists-only")[0] == 0


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("height", "width", "crop"), [(64, 64, 88), (96, 96, 44), (288, 360, 88)])
def test_frames_of_another_size_than_the_model_takes(data, capsys, height, width, crop):
    write_video(data / "video" / "train 2.mp4", np.zeros((FRAMES, height, width), np.uint8))
    status, lines = check(data, capsys, "--image-crop-size", str(crop))
    assert status == 1
    (problem,) = [line for line in lines if f"{data / 'train.tsv'}, line 4: " in line]
    assert f"{width}x{height} pixels" in problem


@pytest.mark.usefixtures("in_process")
def test_small_crops_fit_a_model_that_takes_less_of_them(data, capsys):
    for path in (data / "video").iterdir():
        write_video(path, np.zeros((FRAMES, 48, 48), np.uint8))
    assert check(data, capsys, "--image-crop-size", "44")[0] == 0


def test_a_few_unknown_symbols_are_no_problem_as_in_training(data, capsys):
    (data / "valid.wrd").write_text("bin " * 10 + "q\n")
    status, lines = check(data, capsys, "--lists-only")
    assert status == 0
    assert any(f"{data / 'valid.wrd'}, line 1: 'q'" in line for line in lines)
    (data / "test.tsv").write_text("/\n")  # of a corpus too small for a test list
    assert check(data, capsys, "--lists-only")[0] == 0


def test_lists_with_byte_order_marks_are_in_order(data, capsys):
    write_classes(data)
    for path in [path for path in data.rglob("*") if path.suffix in (".tsv", ".wrd", ".spk", ".txt")]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert check(data, capsys, "--lists-only")[0] == 0


def write_classes(folder: Path) -> None:
    """Emotions and speakers of 3 + 1 clips; the validation speaker is not in training."""
    for split, emotions, speakers in (("train", "a b a", "p q p"), ("valid", "b", "r")):
        (folder / f"{split}.emo").write_text(emotions.replace(" ", "\n") + "\n")
        (folder / f"{split}.spk").write_text(speakers.replace(" ", "\n") + "\n")
    (folder / "classes.emo.txt").write_text("a\nb\n")
    (folder / "classes.spk.txt").write_text("p\nq\n")


def test_classes_of_clips_are_checked_line_by_line(data, capsys):
    write_classes(data)
    assert check(data, capsys, "--lists-only")[0] == 0
    (data / "train.emo").write_text("bogus\n\n")
    (data / "valid.emo").write_text("bogus\n")
    (data / "train.spk").write_text("p\nr\np\n")
    _, lines = check(data, capsys, "--lists-only")
    assert lines[:5] == [
        f"{data}/train.emo: 2 lines, train.tsv lists 3 clips; line k of the labels belongs to clip k: make "
        "them again from the same manifest",
        f"{data}/train.emo, line 1: 'bogus' is not in {data}/classes.emo.txt; correct it, or add it there",
        f"{data}/train.emo, line 2: is empty; write the class, or remove the clip",
        f"{data}/valid.emo, line 1: 'bogus' is not in {data}/classes.emo.txt; correct it, or add it there",
        f"{data}/train.spk, line 2: 'r' is not in {data}/classes.spk.txt; correct it, or add it there",
    ]
    assert lines[-1].endswith("5 problems")


def test_lists_of_classes_and_folds(data, capsys):
    fold = data / "fold_p1"
    fold.mkdir()
    for name in ("train.tsv", "valid.tsv", "train.wrd", "valid.wrd"):
        (fold / name).write_text((data / name).read_text())
    write_classes(fold)
    assert check(data, capsys, "--lists-only")[0] == 0
    (fold / "classes.emo.txt").write_text("a\na\n")
    (fold / "classes.spk.txt").unlink()
    (data / "classes.emo.txt").write_text("a\nb\n")
    (data / "train.emo").write_text("a\nb\na\n")
    _, lines = check(data, capsys, "--lists-only")
    text = "\n".join(lines)
    assert f"{data}/valid.emo: does not exist, {data}/classes.emo.txt does" in text
    assert f"{fold}/classes.emo.txt: has a twice" in text
    assert f"{fold}/classes.spk.txt: the list of classes cannot be read" in text
    assert lines[-1].endswith("3 problems")
