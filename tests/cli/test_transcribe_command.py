"""`av-ssl transcribe`: transcripts, going on after a kill, other settings, bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from av_ssl.cli.main import main
from av_ssl.transcription.folder import shards_for
from av_ssl.transcription.hypotheses import read_hypotheses
from tests.tiny_checkpoints import write_checkpoint

from .conftest import call


@pytest.fixture
def transcribe(ctc, data, tmp_path):
    """Runs the command in this process."""

    def run(*words: str | Path, out: str | None = "out", checkpoint: Path = ctc) -> int:
        options = ["--out", str(tmp_path / out)] if out else []
        return main(
            ["transcribe", str(checkpoint), str(data), "--device", "cpu", "--beam", "2", *options]
            + [str(word) for word in words]
        )

    return run


def test_transcripts_of_all_lists(transcribe, tmp_path, capsys):
    assert transcribe() == 0
    out = tmp_path / "out"
    names = [f"{split}.hyp.{kind}" for split in ("train", "valid") for kind in ("json", "tsv")]
    assert sorted(path.name for path in out.iterdir()) == names
    found = read_hypotheses(out / "train.hyp.tsv")
    assert [one.id for one in found] == [f"train_{number}" for number in range(9)]
    assert [one.frames for one in found] == [10 + number for number in range(9)]
    assert all(0 < one.confidence <= 1 for one in found)
    assert f"{out / 'train.hyp.tsv'}: 9 clips, " in capsys.readouterr().out


def test_without_a_folder_they_are_printed(transcribe, data, tmp_path, capsys):
    assert transcribe("--subset", "valid") == 0
    kept = (tmp_path / "out" / "valid.hyp.tsv").read_text().splitlines()
    capsys.readouterr()
    before = sorted(data.iterdir())
    assert transcribe("--subset", "valid", out=None) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == kept[1:]
    assert "3 clips" in printed.err
    assert sorted(data.iterdir()) == before


def test_what_was_made_before_an_error_is_kept_without_a_folder(transcribe, tmp_path, capsys, monkeypatch):
    """It would be printed when all is done; with --out the same command continues."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("av_ssl.transcription.recogniser.Recogniser._text", lambda self, best: 1 / 0)
    assert transcribe("--subset", "valid", out=None) == 1
    (kept,) = tmp_path.glob("av-ssl-transcribe-*")
    printed = capsys.readouterr().err
    assert f"--out {kept} continues it" in printed
    assert "ZeroDivisionError" in (kept / "valid.hyp.shards/logs/shard_0.log").read_text()
    monkeypatch.undo()
    assert transcribe("--subset", "valid", "--out", kept, out=None) == 0
    assert transcribe("--subset", "none", out=None) == 1
    assert len(list(tmp_path.glob("av-ssl-transcribe-*"))) == 1


def test_an_option_that_the_search_lacks_is_refused(transcribe, refused):
    assert "--lenpen: CTC beam search has no such option" in refused(transcribe("--lenpen", "2"))


def test_lists_of_audio_alone_need_no_numbers_of_frames(transcribe, data, tmp_path):
    root, *rows = (data / "valid.tsv").read_text().splitlines()
    cells = [row.split("\t") for row in rows]
    sound = [f"{name}\t\t{audio}\t0\t{samples}" for name, _, audio, _, samples in cells]
    (data / "sound.tsv").write_text("\n".join([root, *sound]) + "\n")
    assert transcribe("--subset", "sound", "--modalities", "audio") == 0
    found = read_hypotheses(tmp_path / "out" / "sound.hyp.tsv")
    assert [one.frames for one in found] == [10, 11, 12]


def test_neither_labels_nor_a_dictionary_are_needed_or_read(transcribe, data, tmp_path):
    assert transcribe("--subset", "valid") == 0
    (data / "dict.wrd.txt").write_text("another 1\n")
    (data / "spm.model").write_bytes(b"damaged")
    assert transcribe("--subset", "valid", out="again") == 0
    results = [(tmp_path / out / "valid.hyp.tsv").read_bytes() for out in ("out", "again")]
    assert results[0] == results[1]


@pytest.mark.slow
def test_several_processes_give_the_same(transcribe, tmp_path):
    assert transcribe() == 0
    assert transcribe("--workers", "2", out="two") == 0
    results = [(tmp_path / out / "train.hyp.tsv").read_bytes() for out in ("out", "two")]
    assert results[0] == results[1]


def test_shards():
    assert [shards_for(clips) for clips in (1, 8, 9, 100, 128, 8000, 8001)] == [1, 1, 2, 13, 16, 16, 17]


def test_a_mistake_does_not_bind_the_folder(transcribe, tmp_path, refused):
    assert "pretrained.pt: holds no dictionary" in refused(
        transcribe(checkpoint=write_checkpoint(tmp_path / "pretrained.pt"))
    )
    assert not (tmp_path / "out").exists()
    assert transcribe("--subset", "valid") == 0


# -- bad input -----------------------------------------------------------------------------------------------


def test_an_unreadable_clip_is_left_out_and_reported(transcribe, data, tmp_path, capsys):
    wave = (data / "train_3.wav").read_bytes()
    (data / "train_3.wav").write_bytes(b"noise")
    assert transcribe("--subset", "train") == 0
    found = read_hypotheses(tmp_path / "out" / "train.hyp.tsv")
    assert [one.id for one in found] == [f"train_{number}" for number in range(9) if number != 3]
    assert "1 clips are left out: train_3: they cannot be read" in capsys.readouterr().err
    assert (tmp_path / "out" / "bad_clips.train.tsv").read_text().startswith("train_3\t")

    # Mended, as the message says.
    (data / "train_3.wav").write_bytes(wave)
    for name in ("bad_clips.train.tsv", "train.hyp.tsv"):
        (tmp_path / "out" / name).unlink()
    assert transcribe("--subset", "train") == 0
    assert len(read_hypotheses(tmp_path / "out" / "train.hyp.tsv")) == 9


def test_lengths(transcribe, tmp_path, refused, capsys):
    assert transcribe("--subset", "train", "--min-frames", "12", "--max-frames", "15") == 0
    found = read_hypotheses(tmp_path / "out" / "train.hyp.tsv")
    assert [one.frames for one in found] == [12, 13, 14, 15]
    error = capsys.readouterr().err
    assert "2 clips are left out: train_0, train_1: they have fewer than 12 frames" in error
    assert "3 clips are left out: train_6, train_7, train_8: they have more than 15 frames" in error
    assert "none of 9 clips has 100 to 2000 video frames" in refused(
        transcribe("--min-frames", "100", out="none")
    )
    assert "a batch holds --max-tokens 2000 frames; raise it" in refused(
        transcribe("--max-frames", "3000", out="none")
    )


def test_options_of_recordings_are_refused(transcribe, data, tmp_path, refused):
    words = ("--format", "srt", "--words", "--all-faces")
    assert f"--format, --all-faces, --words: for recordings, {data} is a data folder" in refused(
        transcribe(*words)
    )
    assert not (tmp_path / "out").exists()


def test_slurm_needs_a_folder(transcribe, refused):
    assert "--cluster slurm needs --out" in refused(transcribe("--cluster", "slurm", out=None))


def test_lists_of_transcripts_are_no_manifests(transcribe, data, capsys):
    assert transcribe("--subset", "valid", "--out", data) == 0
    capsys.readouterr()
    call("data", "check", data, "--lists-only")
    assert "hyp" not in capsys.readouterr().out
