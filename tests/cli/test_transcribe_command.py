"""`av-ssl transcribe`: transcripts, going on after a kill, other settings, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from av_ssl.cli.main import main
from av_ssl.transcription import transcribe as transcript_maker
from av_ssl.transcription.hypotheses import read_hypotheses
from av_ssl.transcription.transcribe import shards_for, transcribe_shard
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


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


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


# -- killed and started again --------------------------------------------------------------------------------


def test_a_killed_run_goes_on(transcribe, tmp_path, monkeypatch):
    assert transcribe("--subset", "train", out="whole") == 0

    def killed(job):
        if job.rank == 1:
            raise KeyboardInterrupt
        return transcribe_shard(job)

    monkeypatch.setattr(transcript_maker, "transcribe_shard", killed)
    assert transcribe("--subset", "train") == 130
    folder = tmp_path / "out"
    assert [path.name for path in (folder / "train.hyp.shards").iterdir()] == ["0_2.tsv"]
    assert not (folder / "train.hyp.tsv").exists()
    again = []
    monkeypatch.setattr(
        transcript_maker, "transcribe_shard", lambda job: again.append(job.rank) or transcribe_shard(job)
    )
    assert transcribe("--subset", "train", "--beam", "3") == 1  # what is there was made in another way
    assert transcribe("--subset", "train") == 0
    assert again == [1]
    results = [(tmp_path / out / "train.hyp.tsv").read_bytes() for out in ("out", "whole")]
    assert results[0] == results[1]
    assert not (folder / "train.hyp.shards").exists()
    assert transcribe("--subset", "train") == 0
    assert again == [1]


def test_other_settings_are_refused(transcribe, data, tmp_path, refused):
    assert transcribe("--subset", "valid") == 0
    before = (tmp_path / "out" / "valid.hyp.tsv").read_bytes()
    for words, text in (
        (["--beam", "3"], "beam 2 (now 3)"),
        (["--modalities", "video"], "modalities none (now video)"),
        (["--max-frames", "11"], "longest 2000 (now 11)"),
    ):
        error = refused(transcribe("--subset", "valid", *words))
        assert text in error
        assert f"delete {tmp_path / 'out' / 'valid.hyp'}.*, or choose another --out" in error
    change(data / "valid.tsv", "valid_2\t", "valid_two\t")
    assert "made with manifest" in refused(transcribe("--subset", "valid"))
    assert (tmp_path / "out" / "valid.hyp.tsv").read_bytes() == before


def test_a_mistake_does_not_bind_the_folder(transcribe, tmp_path, refused):
    assert "pretrained.pt: holds no dictionary" in refused(
        transcribe(checkpoint=write_checkpoint(tmp_path / "pretrained.pt"))
    )
    assert not (tmp_path / "out").exists()
    assert transcribe("--subset", "valid") == 0


def test_transcripts_of_other_origin_are_not_overwritten(transcribe, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "valid.hyp.tsv").write_text("mine\n")
    assert "valid.hyp.tsv: was not made by this command" in refused(transcribe("--subset", "valid"))
    assert (tmp_path / "out" / "valid.hyp.tsv").read_text() == "mine\n"


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


def test_many_unreadable_clips_stop_the_run(transcribe, data, refused):
    for name in ("train_3", "train_5"):
        (data / f"{name}.npy").write_bytes(b"noise")
    assert "2 clips cannot be read, 1 would be tolerated" in refused(transcribe("--subset", "train"))


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


def test_a_stream_that_is_not_there(transcribe, data, tmp_path, refused):
    change(data / "valid.tsv", "valid_1\tvalid_1.npy", "valid_1\t")
    assert "valid.tsv, line 3: clip valid_1 has no video" in refused(transcribe("--subset", "valid"))
    assert transcribe("--subset", "valid", "--modalities", "audio") == 0
    settings = json.loads((tmp_path / "out" / "valid.hyp.json").read_text())
    assert settings["modalities"] == "audio"


def test_slurm_needs_a_folder(transcribe, refused):
    assert "--cluster slurm needs --out" in refused(transcribe("--cluster", "slurm", out=None))


def test_lists_of_transcripts_are_no_manifests(transcribe, data, capsys):
    assert transcribe("--subset", "valid", "--out", data) == 0
    capsys.readouterr()
    call("data", "check", data, "--lists-only")
    assert "hyp" not in capsys.readouterr().out
