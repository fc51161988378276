"""What commands of many shards have in common: they continue where they were, and spare what is there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import pytest

from av_ssl.targets import cluster_labels, feature_shards
from av_ssl.transcription import folder

from .conftest import call


class Maker(NamedTuple):
    """A command, its results, and options for which they are not to be taken, with what the error names."""

    words: str
    split: str
    results: tuple[str, ...]
    other: dict[str, str]


MAKERS = {
    "features": Maker(
        "features {checkpoint} {data} --subset valid --workers 1", "valid",
        ("valid.npy", "valid.index.tsv", "valid.times.npy"),
        {
            "--half": "dtype float32 (now float16)", "--layers 1": "layers [0, 1, 2, 3] (now [1])",
            "--modalities audio": "streams ['audio', 'video'] (now ['audio'])",
            "--format npz": "format npy (now npz)", "--untrained 0": "untrained none (now 0)",
            "--clips 2": "valid.tsv: lists other clips",
        },
    ),
    "clusters": Maker(
        "targets clusters {data} --clusters 5 --fit-share 1 --workers 1", "train",
        ("train.km", "valid.km", "dict.km.txt"),
        {
            "--half": "dtype float32 (now float16)", "--clusters 6": "clusters 5 (now 6)",
            "--seed 1": "seed 0 (now 1)", "--fit-share 0.5": "fit share 1.0 (now 0.5)",
            "--splits valid train": "fit split train (now valid)",
            "--checkpoint {checkpoint} --layer 2": "features mfcc (now encoder)",
        },
    ),
    "transcripts": Maker(
        "transcribe {ctc} {data} --subset train --device cpu --beam 2", "train", ("train.hyp.tsv",),
        {
            "--beam 3": "beam 2 (now 3)", "--modalities video": "modalities none (now video)",
            "--max-frames 11": "longest 2000 (now 11)",
        },
    ),
}  # fmt: skip
ALL = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture
def make(data, checkpoint, ctc, tmp_path):
    def run(name: str, words: str = "", out: str = "out") -> int:
        filled = f"{MAKERS[name].words} {words}".format(data=data, checkpoint=checkpoint, ctc=ctc)
        return call(*filled.split(), "--out", tmp_path / out)

    return run


def made(name: str, folder: Path) -> list[bytes]:
    return [(folder / result).read_bytes() for result in MAKERS[name].results]


@pytest.mark.parametrize(
    ("name", "module", "stage", "done"),
    [
        ("features", feature_shards, "dump_shard", 1),
        ("clusters", feature_shards, "dump_shard", 4),
        ("clusters", cluster_labels, "fit_job", 0),
        ("clusters", cluster_labels, "label_shard", 4),
        ("transcripts", folder, "transcribe_shard", 1),
    ],
)
def test_a_killed_run_goes_on(name, module, stage, done, make, tmp_path, monkeypatch):
    calls, limit, function = [], math.inf, getattr(module, stage)

    def counted(job):
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(job)
        return function(job)

    monkeypatch.setattr(module, stage, counted)
    assert make(name, out="whole") == 0
    total, limit = len(calls), done
    calls.clear()
    assert make(name) == 130
    assert len(calls) == done
    assert make(name, next(iter(MAKERS[name].other))) == 1  # what is there was made in another way
    if module is cluster_labels:
        monkeypatch.setattr(feature_shards, "dump_shard", None)  # all of them are there
    limit = math.inf
    for left in (total - done, 0):
        calls.clear()
        assert make(name) == 0
        assert len(calls) == left
    assert made(name, tmp_path / "out") == made(name, tmp_path / "whole")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }


@ALL
def test_other_settings_are_refused(name, make, data, checkpoint, tmp_path, refused):
    assert make(name) == 0
    before = made(name, tmp_path / "out")
    for words, text in MAKERS[name].other.items():
        error = refused(make(name, words))
        assert text in error
        assert "choose another --out" in error
    manifest = data / f"{MAKERS[name].split}.tsv"
    manifest.write_text("".join(manifest.read_text().splitlines(True)[:-1]))
    assert str(tmp_path / "out") in refused(make(name))
    assert made(name, tmp_path / "out") == before


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("features", "--layers 4", "--layers 4: "),
        ("features", "--subset none", "none.tsv: "),
        ("clusters", "--checkpoint {checkpoint} --layer 9", "--layer 9"),
        ("clusters", "--clusters 999", "486 frames cannot make 999 clusters"),
        ("transcripts", "--subset none", "none.tsv: "),
    ],
)
def test_a_mistake_does_not_bind_the_folder(name, words, message, make, refused):
    assert message in refused(make(name, words))
    assert make(name) == 0


@pytest.mark.parametrize(("name", "file"), [("clusters", "valid.km"), ("transcripts", "train.hyp.tsv")])
def test_files_of_other_origin_are_not_overwritten(name, file, make, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).write_text("mine\n")
    assert f"{file}: was not made by this command" in refused(make(name))
    assert (tmp_path / "out" / file).read_text() == "mine\n"


@ALL
def test_a_clip_without_a_stream_is_named(name, make, data, refused):
    split = MAKERS[name].split
    manifest = data / f"{split}.tsv"
    manifest.write_text(manifest.read_text().replace(f"\t{split}_1.wav", "\t"))
    assert f"{split}.tsv, line 3: clip {split}_1 has no audio" in refused(make(name))


@ALL
def test_many_unreadable_clips_stop_the_run(name, make, data, refused):
    clips = [f"{MAKERS[name].split}_{number}" for number in (0, 2)]
    for clip in clips:
        (data / f"{clip}.wav").write_bytes(b"noise")
    error = refused(make(name))
    assert all(f"{clip}: " in error for clip in clips)
