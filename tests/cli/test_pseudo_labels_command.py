"""`av-ssl data pseudo-labels`: filtering, the folder for training, its report, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from av_ssl.data.labels import TextLabels
from av_ssl.data.text import TextEncoder
from av_ssl.manifest import read_manifest
from av_ssl.transcription.hypotheses import HEADER, Hypothesis, hypotheses_text
from tests.data_folder import write_vocabulary

from .conftest import call


def write_list(path: Path, clips: dict[str, int], root: str = "/media") -> None:
    lines = [f"{id}\t{id}.mp4\t{id}.wav\t{frames}\t{frames * 640}" for id, frames in clips.items()]
    path.write_text("\n".join([root, *lines]) + "\n")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Two training clips, one for validation, one for test, and a vocabulary."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    for split, clips in (("train", ("l1", "l2")), ("valid", ("v1",)), ("test", ("t1",))):
        write_list(folder / f"{split}.tsv", dict.fromkeys(clips, 50))
        (folder / f"{split}.wrd").write_text("bin blue now\n" * len(clips))
    write_vocabulary(folder)
    return folder


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Ten clips of 100 frames, `u0` to `u9`, less and less confident, and their transcripts."""
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    write_list(folder / "train.tsv", {f"u{number}": 100 for number in range(10)})
    write_transcripts(folder, {f"u{number}": (1 - number / 10, "lay green") for number in range(10)})
    return folder


def write_transcripts(folder: Path, found: dict[str, tuple[float, str]]) -> None:
    rows = hypotheses_text(Hypothesis(id, rating, 100, text) for id, (rating, text) in found.items())
    (folder / "train.hyp.tsv").write_text(HEADER + rows)


@pytest.fixture
def pseudo_labels(labelled, unlabelled, tmp_path):
    def run(*words: str | Path, out: str = "both") -> int:
        paths = [unlabelled, unlabelled, "--labelled", labelled, "--out", tmp_path / out]
        return call("pseudo-labels", *paths, *words)

    return run


def ids(folder: Path, split: str = "train") -> list[str]:
    return [clip.id for clip in read_manifest(folder / f"{split}.tsv")]


def report(folder: Path) -> dict:
    return json.loads((folder / "pseudo_labels" / "report.json").read_text())


# -- what comes out ------------------------------------------------------------------------------------------


def test_a_folder_for_training(pseudo_labels, labelled, tmp_path, capsys):
    assert pseudo_labels() == 0
    both = tmp_path / "both"
    assert ids(both) == ["l1", "l2", *(f"u{number}" for number in range(10))]
    lines = (both / "train.tsv").read_text().splitlines()
    assert lines[0] == "/"
    assert lines[3] == "u0\t/media/u0.mp4\t/media/u0.wav\t100\t64000"
    assert (both / "train.wrd").read_text() == "bin blue now\n" * 2 + "lay green\n" * 10
    for name in ("dict.wrd.txt", "spm.model", "spm.vocab", "valid.wrd", "test.wrd"):
        assert (both / name).read_bytes() == (labelled / name).read_bytes()
    assert (ids(both, "valid"), ids(both, "test")) == (["v1"], ["t1"])
    encoder = TextEncoder.load(both / "dict.wrd.txt", both / "spm.model")
    labels = TextLabels(both / "train.wrd", encoder, read_manifest(both / "train.tsv"))
    assert encoder.decode(encoder.dictionary.string(labels[2])) == "lay green"
    assert call("data", "check", both, "--lists-only") == 0
    output = capsys.readouterr().out
    assert "2 labelled clips (0.00 hours) and 10 pseudo-labelled (0.01 hours)" in output


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--min-confidence", "0.75"], 3),
        (["--keep", "0.4"], 4),
        (["--keep", "0.5", "--min-confidence", "0.7"], 2),  # a half of the four that pass
        (["--keep", "1"], 10),
    ],
)
def test_the_most_confident_are_kept(words, kept, pseudo_labels, tmp_path):
    assert pseudo_labels(*words) == 0
    assert ids(tmp_path / "both")[2:] == [f"u{number}" for number in range(kept)]
    assert report(tmp_path / "both")["pseudo_labelled"]["clips"] == kept


def test_every_reason_is_counted(pseudo_labels, unlabelled, tmp_path, capsys):
    clips = {"u1": 100, "short": 9, "shortest": 10, "longest": 600, "long": 601, "l1": 100, "v1": 100}
    clips |= {"t1": 100, "empty": 100, "none": 100, "foreign": 100, "unsure": 100, "mute": 100}
    write_list(unlabelled / "train.tsv", clips)
    text = (unlabelled / "train.tsv").read_text()
    (unlabelled / "train.tsv").write_text(text.replace("mute.wav", ""))
    found = dict.fromkeys(clips, (0.9, "lay")) | {"empty": (0.9, ""), "foreign": (0.9, "ж lay")}
    del found["none"]
    write_transcripts(unlabelled, found | {"unsure": (0.3, "lay")})
    assert pseudo_labels("--min-confidence", "0.5") == 0
    assert ids(tmp_path / "both")[2:] == ["u1", "shortest", "longest"]
    dropped = {reason: entry["first"] for reason, entry in report(tmp_path / "both")["dropped"].items()}
    assert dropped == {
        "too short": ["short"],
        "too long": ["long"],
        "labelled already": ["l1"],
        "in valid or test": ["v1", "t1"],
        "empty transcript": ["empty"],
        "without transcript": ["none"],
        "symbols that the dictionary lacks": ["foreign"],
        "confidence too low": ["unsure"],
        "without a stream that is needed": ["mute"],
    }
    assert "dropped 2 (0.00 hours): in valid or test" in capsys.readouterr().out


def test_the_labelled_transcript_wins(pseudo_labels, unlabelled, tmp_path):
    write_list(unlabelled / "train.tsv", {"l1": 100, "u1": 100})
    write_transcripts(unlabelled, {"l1": (1.0, "soon"), "u1": (1.0, "soon")})
    assert pseudo_labels() == 0
    assert ids(tmp_path / "both") == ["l1", "l2", "u1"]
    assert (tmp_path / "both" / "train.wrd").read_text() == "bin blue now\nbin blue now\nsoon\n"


def test_errors_by_confidence_where_references_exist(pseudo_labels, unlabelled, tmp_path, capsys):
    assert pseudo_labels(out="without") == 0
    assert "word_error_rate" not in report(tmp_path / "without")
    # The five most confident ones are right but for case; of the others one word of two is, one has no words.
    lines = ["LAY GREEN"] * 5 + ["lay blue"] * 4 + [""]
    (unlabelled / "train.wrd").write_text("\n".join(lines) + "\n")
    assert pseudo_labels("--keep", "0.7", out="with") == 0
    rates = report(tmp_path / "with")["word_error_rate"]
    assert rates["all"] == {"clips": 9, "words": 18, "wer": round(400 / 18, 2)}
    assert rates["kept"] == {"clips": 7, "words": 14, "wer": round(200 / 14, 2)}
    assert [decile["wer"] for decile in rates["deciles"]] == [50.0] * 4 + [0.0] * 5
    assert (rates["deciles"][0]["confidence_from"], rates["deciles"][-1]["confidence_to"]) == (0.2, 1.0)
    assert "word error rate: 22.2 % of all transcripts, 14.3 % of the kept" in capsys.readouterr().out


def test_histogram(pseudo_labels, tmp_path):
    assert pseudo_labels("--min-confidence", "0.85") == 0
    bins = report(tmp_path / "both")["confidence"]
    assert [entry["clips"] for entry in bins] == [0, *[1] * 8, 2]  # 0.9 and 1.0 share the last
    assert [entry["kept"] for entry in bins] == [0] * 9 + [2]


def test_relative_paths_are_joined_to_the_root(pseudo_labels, labelled, unlabelled, refused, tmp_path):
    write_list(labelled / "valid.tsv", {"v1": 50}, root="videos")
    assert "valid.tsv, line 1: the root directory 'videos'" in refused(pseudo_labels())
    (labelled / "videos").mkdir()
    assert pseudo_labels() == 0
    assert str(labelled / "videos" / "v1.mp4") in (tmp_path / "both" / "valid.tsv").read_text()


# -- run again -----------------------------------------------------------------------------------------------


def test_the_same_command_changes_nothing(pseudo_labels, tmp_path):
    assert pseudo_labels() == 0
    files = [path for path in (tmp_path / "both").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    (tmp_path / "both" / "train.wrd").unlink()  # as a kill would leave it
    assert pseudo_labels() == 0
    assert {path: path.read_bytes() for path in files} == before


def test_other_settings_are_refused(pseudo_labels, labelled, tmp_path, refused):
    assert pseudo_labels() == 0
    assert "made with keep 1.0 (now 0.5); delete" in refused(pseudo_labels("--keep", "0.5"))
    (labelled / "train.wrd").write_text("bin blue\nbin blue\n")
    assert "made with labelled train.wrd" in refused(pseudo_labels())
    assert len(ids(tmp_path / "both")) == 12


def test_a_folder_of_other_origin_is_not_touched(pseudo_labels, labelled, tmp_path, refused):
    before = {path: path.read_bytes() for path in labelled.iterdir()}
    assert "holds files that this command did not write" in refused(pseudo_labels(out="labelled"))
    assert {path: path.read_bytes() for path in labelled.iterdir()} == before


# -- bad input -----------------------------------------------------------------------------------------------


def test_no_clip_left(pseudo_labels, tmp_path, refused):
    error = refused(pseudo_labels("--min-frames", "101", "--min-confidence", "0.5"))
    assert "no pseudo-labelled clip is left of 10: 10 too short; relax" in error
    assert not (tmp_path / "both").exists()


def test_transcripts_of_other_clips(pseudo_labels, unlabelled, refused):
    write_transcripts(unlabelled, {"x": (0.9, "lay")})
    assert "has a transcript of 'x', which the manifest lacks" in refused(pseudo_labels())


@pytest.mark.parametrize("name", ["train.tsv", "train.wrd", "valid.tsv", "valid.wrd", "dict.wrd.txt"])
def test_a_labelled_folder_that_is_not_whole(name, pseudo_labels, labelled, tmp_path, refused):
    (labelled / name).unlink()
    assert str(labelled / name) in refused(pseudo_labels())
    assert not (tmp_path / "both").exists()


def test_a_tokenizer_elsewhere_and_no_test_clips(pseudo_labels, labelled, tmp_path):
    (labelled / "spm.model").rename(tmp_path / "spm_unigram.model")
    (labelled / "test.wrd").unlink()
    assert pseudo_labels("--tokenizer", tmp_path / "spm_unigram.model") == 0
    assert (tmp_path / "both" / "spm.model").read_bytes() == (tmp_path / "spm_unigram.model").read_bytes()
    assert not (tmp_path / "both" / "test.tsv").exists()


def test_references_of_another_list(pseudo_labels, unlabelled, refused):
    (unlabelled / "train.wrd").write_text("lay green\n")
    assert "train.wrd has 1 lines, train.tsv lists 10 clips" in refused(pseudo_labels())
