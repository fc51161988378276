from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.functional import gelu

pytest.importorskip("transformers")

import speech_teacher
from speech_teacher import (
    KINDS,
    HubertPredictor,
    Predictor,
    Sound,
    WhisperPredictor,
    accuracy,
    batches,
    main,
    read_sounds,
    train,
)

from av_ssl.errors import DataError
from av_ssl.targets.load_teacher import load_teacher, weights_digest
from av_ssl.targets.teacher_spec import TeacherSpec

TONES = (200.0, 500.0, 1200.0, 3000.0)
PER_TONE = 0.24
"""Seconds."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CHANNELS", 32), ("LAYERS", 1), ("HEADS", 2)):
        monkeypatch.setattr(speech_teacher, name, value)


def write_data(folder: Path, changing: bool) -> Path:
    """Clips of tones, all the same in a clip or each following the last in a circle; labels number them."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split, clips in (("train", 16), ("valid", 4)):
        lines, labels = [str(folder)], []
        for number in range(clips):
            frames = int(rng.integers(30, 36))
            time = np.arange(frames * 640) / 16000
            tone = (time / PER_TONE).astype(int) * changing + number
            wave = 8000 * np.sin(2 * np.pi * np.array(TONES)[tone % 4] * time)
            soundfile.write(folder / f"{split}{number}.wav", wave.astype(np.int16), 16000)
            lines.append(f"{split}{number}\t\t{split}{number}.wav\t{frames}\t{len(wave)}")
            centres = 160 * np.arange(4 * frames - 2) + 200
            labels.append(" ".join(map(str, tone[centres] % 4)))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
        (folder / f"{split}.km").write_text("\n".join(labels) + "\n")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", changing=True)


def test_every_second_label_belongs_to_a_frame(data: Path) -> None:
    line = (data / "train.km").read_text().splitlines()[0].split()
    sound = read_sounds(data, data, "train")[0]
    assert sound.clusters.tolist() == [int(label) for label in line[::2]]
    assert len(sound.wave) == 320 * (len(sound.clusters) - 1) + 400


def test_long_clips_are_cut(data: Path) -> None:
    soundfile.write(data / "valid0.wav", np.zeros(64000, np.int16), 16000)
    lines = (data / "valid.km").read_text().splitlines()
    (data / "valid.km").write_text("\n".join(["1 " * 398, *lines[1:]]) + "\n")
    sound = read_sounds(data, data, "valid")[0]
    assert (len(sound.wave), len(sound.clusters)) == (47760, 149)


def test_sound_behind_the_last_label_is_cut(data: Path) -> None:
    soundfile.write(data / "valid0.wav", np.zeros(32000, np.int16), 16000)
    sounds = read_sounds(data, data, "valid")
    frames = [len(sound.clusters) for sound in sounds]
    logits, _ = KINDS["hubert"](4)([sound.wave for sound in sounds], frames, np.random.default_rng(0))
    assert len(logits) == sum(frames)


def test_clips_without_sound_or_labels_are_left_out(data: Path) -> None:
    manifest, labels = data / "valid.tsv", data / "valid.km"
    manifest.write_text(manifest.read_text().replace("\t\tvalid0.wav", "\tvalid0.mp4\t"))
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([lines[0], "", *lines[2:]]) + "\n")
    assert len(read_sounds(data, data, "valid")) == 2
    labels.write_text("\n" * 4)
    with pytest.raises(DataError, match=r"valid\.tsv: no clip has audio and labels in .*valid\.km"):
        read_sounds(data, data, "valid")


def test_labels_that_are_no_clusters_are_refused(data: Path) -> None:
    labels = data / "valid.km"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([lines[0], "bin blue", *lines[2:]]) + "\n")
    with pytest.raises(DataError, match=r"valid\.km, line 2: no list of cluster numbers; .*av-ssl targets"):
        read_sounds(data, data, "valid")


def test_an_epoch_has_each_clip_once_in_company_of_about_its_length() -> None:
    lengths = [1000 * number for number in range(1, 65)]
    drawn = batches(
        [Sound(np.zeros(length, np.int16), torch.zeros(1)) for length in lengths], np.random.default_rng(0)
    )
    epochs = [[[len(sound.wave) for sound in next(drawn)] for _ in range(4)] for _ in range(2)]
    for epoch in epochs:
        assert sorted(length for part in epoch for length in part) == lengths
        assert max(np.std(part) for part in epoch) < 0.5 * np.std(lengths)
    first, second = ({frozenset(part) for part in epoch} for epoch in epochs)
    assert first != second


def outputs(predictor: Predictor, inputs: SimpleNamespace, masked: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return predictor.eval().encode(inputs, masked)


def test_hubert_does_not_hear_what_is_masked() -> None:
    predictor = HubertPredictor(5)
    wave = torch.randn(1, 20 * 320 + 80)
    masked = torch.zeros(1, 20, dtype=torch.bool)
    masked[:, 5:10] = True
    # Samples of the frames 5 to 9 alone: frame 4 ends at 1680, frame 10 begins at 3200.
    other = wave.clone()
    other[:, 1680:3200] = torch.randn(1, 1520)
    heard = [SimpleNamespace(input_values=one, attention_mask=torch.ones_like(one)) for one in (wave, other)]
    first, second = (outputs(predictor, each, masked) for each in heard)
    assert first.shape == (1, 20, 32)
    assert torch.allclose(first, second, atol=1e-5)
    assert not torch.allclose(*(outputs(predictor, each, masked & False) for each in heard), atol=1e-3)


def test_whisper_does_not_hear_what_is_masked() -> None:
    predictor = WhisperPredictor(5)
    mel = torch.randn(1, 80, 300)
    masked = torch.zeros(1, 60, dtype=torch.bool)
    masked[:, 5:10] = True
    other = mel.clone()
    other[..., 10:20] = torch.randn(1, 80, 10)
    heard = [SimpleNamespace(input_features=one) for one in (mel, other)]
    first, second = (outputs(predictor, each, masked) for each in heard)
    assert first.shape == (1, 150, 32)
    assert torch.equal(first, second)
    assert not torch.allclose(*(outputs(predictor, each, masked & False) for each in heard), atol=1e-3)


def test_whisper_starts_by_hearing_as_much_as_it_knows_of_the_place() -> None:
    predictor = WhisperPredictor(5)
    wave = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    inputs = predictor.extractor(wave, sampling_rate=16000, return_tensors="pt")
    encoder = predictor.model.get_encoder()
    with torch.no_grad():
        heard = gelu(encoder.conv2(gelu(encoder.conv1(inputs.input_features))))
    places = encoder.embed_positions.weight
    assert 0.3 < heard.square().mean().sqrt() / places.square().mean().sqrt() < 5


def test_frames_of_all_clips_are_predicted(data: Path) -> None:
    sounds = read_sounds(data, data, "valid")
    frames = [len(sound.clusters) for sound in sounds]
    for kind in KINDS.values():
        logits, masked = kind(4)([sound.wave for sound in sounds], frames, np.random.default_rng(0))
        assert logits.shape == (sum(frames), 4)
        assert masked.shape == (sum(frames),)
        assert 0.3 < masked.float().mean() < 0.5


def test_masked_tones_are_told_from_those_around_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_teacher, "LEARNING_RATE", 5e-3)
    data = write_data(tmp_path / "data", changing=False)
    torch.manual_seed(0)
    predictor = WhisperPredictor(4)
    held_out = read_sounds(data, data, "valid")
    masked, others, most_frequent = accuracy(predictor, held_out, np.random.default_rng(1))
    assert max(masked, others) < 0.5
    train(predictor, read_sounds(data, data, "train"), 25, np.random.default_rng(0))
    after = accuracy(predictor, held_out, np.random.default_rng(1))
    assert after[2] == most_frequent < 0.4
    assert min(after[:2]) > 0.7


@pytest.mark.parametrize(("kind", "missing"), [("hubert", 1), ("whisper", 0)])
def test_what_is_written_is_a_teacher(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, missing: int
) -> None:
    digests = []
    for name, seed, updates in (("first", 1, 2), ("again", 1, 2), ("other", 2, 2), ("untrained", 1, 0)):
        options = ["--kind", kind, "--labels", str(data), "--updates", str(updates), "--seed", str(seed)]
        main([str(data), str(tmp_path / name), *options])
        teacher = load_teacher(TeacherSpec(str(tmp_path / name), layers="last"))
        digests.append(weights_digest(teacher.model))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert (teacher.per_frame, teacher.missing, teacher.dim) == (2, missing, 32)
    targets = teacher(torch.zeros(1, 640 * 20, dtype=torch.int16), [20])
    assert targets.shape == (1, 40, 32)
    line = capsys.readouterr().out.splitlines()[0]
    assert re.search(
        r"first: [\d.]+% of the masked and [\d.]+% of the other frames of 4 held-out clips", line
    )


def test_missing_labels_end_it_with_their_name(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"speech_teacher\.py: .*none/train\.km: labels cannot be read"):
        main([str(data), str(tmp_path / "out"), "--kind", "hubert", "--labels", str(tmp_path / "none")])
    assert not (tmp_path / "out").exists()
