from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("transformers")

import speech_teacher
from speech_teacher import (
    HubertPredictor,
    Predictor,
    Sound,
    WhisperPredictor,
    batches,
    main,
    read_sounds,
    train,
)

from av_ssl.errors import DataError
from av_ssl.targets.speech_teacher import TeacherSpec, load_teacher, weights_digest

TONES = (200.0, 500.0, 1200.0, 3000.0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CHANNELS", 32), ("LAYERS", 1), ("HEADS", 2)):
        monkeypatch.setattr(speech_teacher, name, value)


def write_data(folder: Path, clips: int) -> tuple[Path, Path]:
    """Clips of one tone each, numbered by their labels; manifest and labels."""
    rng = np.random.default_rng(0)
    lines, labels = [str(folder)], []
    for number in range(clips):
        frames = int(rng.integers(30, 36))
        wave = 8000 * np.sin(2 * np.pi * TONES[number % 4] * np.arange(frames * 640) / 16000)
        soundfile.write(folder / f"{number}.wav", wave.astype(np.int16), 16000)
        lines.append(f"{number}\t\t{number}.wav\t{frames}\t{len(wave)}")
        labels.append(" ".join([str(number % 4)] * (4 * frames - 2)))
    (folder / "train.tsv").write_text("\n".join(lines) + "\n")
    (folder / "train.km").write_text("\n".join(labels) + "\n")
    return folder / "train.tsv", folder / "train.km"


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    return write_data(tmp_path, clips=4)


def change_line(labels: Path, number: int, text: str) -> None:
    lines = labels.read_text().splitlines()
    lines[number] = text
    labels.write_text("\n".join(lines) + "\n")


def test_every_second_label_belongs_to_a_frame(data: tuple[Path, Path]) -> None:
    change_line(data[1], 0, " ".join(map(str, range(120))))
    sound = read_sounds(*data)[0]
    assert sound.clusters.tolist() == list(range(0, 2 * len(sound.clusters), 2))
    assert len(sound.wave) == 320 * (len(sound.clusters) - 1) + 400


def test_long_clips_and_audio_without_labels_are_cut(data: tuple[Path, Path]) -> None:
    soundfile.write(data[0].with_name("0.wav"), np.zeros(64000, np.int16), 16000)
    soundfile.write(data[0].with_name("1.wav"), np.zeros(32000, np.int16), 16000)
    change_line(data[1], 0, "1 " * 398)
    change_line(data[1], 1, "1 " * 100)
    found = [(len(sound.wave), len(sound.clusters)) for sound in read_sounds(*data)]
    assert found[:2] == [(47760, 149), (16080, 50)]


def test_clips_without_audio_or_labels_are_left_out(data: tuple[Path, Path]) -> None:
    manifest, labels = data
    manifest.write_text(manifest.read_text().replace("\t\t0.wav", "\t0.mp4\t"))
    change_line(labels, 1, "")
    assert len(read_sounds(manifest, labels)) == 2
    labels.write_text("\n" * 4)
    with pytest.raises(DataError, match=r"train\.tsv: .*train\.km"):
        read_sounds(manifest, labels)


def test_labels_that_are_no_clusters_are_refused(data: tuple[Path, Path]) -> None:
    change_line(data[1], 1, "bin blue")
    with pytest.raises(DataError, match=r"train\.km, line 2: .*av-ssl targets"):
        read_sounds(*data)


def test_an_epoch_has_each_clip_once_in_batches_of_similar_length() -> None:
    lengths = [1000 * number for number in range(1, 65)]
    sounds = [Sound(np.zeros(length, np.int16), torch.zeros(1)) for length in lengths]
    drawn = batches(sounds, np.random.default_rng(0))
    epochs = [[[len(sound.wave) for sound in next(drawn)] for _ in range(4)] for _ in range(2)]
    for epoch in epochs:
        assert sorted(length for part in epoch for length in part) == lengths
        assert max(np.std(part) for part in epoch) < 0.5 * np.std(lengths)
    first, second = ({frozenset(part) for part in epoch} for epoch in epochs)
    assert first != second


def encoded(predictor: Predictor, inputs: SimpleNamespace, masked: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return predictor.eval().encode(inputs, masked)


def hubert_inputs() -> tuple[list[SimpleNamespace], int]:
    """Two of 20 frames that differ in 5 to 9 alone: frame 4 ends at sample 1680, frame 10 begins at 3200."""
    waves = torch.randn(1, 20 * 320 + 80).repeat(2, 1, 1)
    waves[1, :, 1680:3200] = torch.randn(1, 1520)
    return [SimpleNamespace(input_values=one, attention_mask=torch.ones_like(one)) for one in waves], 20


def whisper_inputs() -> tuple[list[SimpleNamespace], int]:
    mels = torch.randn(1, 80, 300).repeat(2, 1, 1, 1)
    mels[1, ..., 10:20] = torch.randn(1, 80, 10)
    return [SimpleNamespace(input_features=one) for one in mels], 60


@pytest.mark.parametrize(
    ("kind", "drawn"), [(HubertPredictor, hubert_inputs), (WhisperPredictor, whisper_inputs)]
)
def test_masked_frames_are_not_used(kind: type[Predictor], drawn: Callable) -> None:
    predictor, (inputs, frames) = kind(5), drawn()
    masked = torch.zeros(1, frames, dtype=torch.bool)
    masked[:, 5:10] = True
    first, second = (encoded(predictor, each, masked) for each in inputs)
    assert first.shape[2] == 32
    assert torch.allclose(first, second, atol=1e-5)
    assert not torch.allclose(*(encoded(predictor, each, masked & False) for each in inputs), atol=1e-3)


def test_masked_tones_are_predicted_from_those_around_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_teacher, "LEARNING_RATE", 1e-2)
    monkeypatch.setattr(speech_teacher, "CLIPS_A_BATCH", 4)
    sounds = read_sounds(*write_data(tmp_path, clips=16))
    torch.manual_seed(0)
    predictor = WhisperPredictor(4)
    train(predictor, sounds, 25, np.random.default_rng(0))
    with torch.no_grad():
        logits, masked = predictor.eval()(sounds, np.random.default_rng(1))
    clusters = torch.cat([sound.clusters for sound in sounds])
    assert logits.shape == (len(clusters), 4)
    assert 0.3 < masked.float().mean() < 0.5
    right = (logits.argmax(1) == clusters).float()
    assert min(right[masked].mean(), right[~masked].mean()) > 0.7


@pytest.mark.parametrize(("kind", "missing"), [("hubert", 1), ("whisper", 0)])
def test_what_is_written_is_a_teacher(
    data: tuple[Path, Path], tmp_path: Path, kind: str, missing: int
) -> None:
    digests = []
    for name, seed, updates in (("first", 1, 1), ("again", 1, 1), ("untrained", 1, 0)):
        options = ["--kind", kind, "--labels", str(tmp_path), "--updates", str(updates), "--seed", str(seed)]
        main([str(tmp_path), str(tmp_path / name), *options])
        teacher = load_teacher(TeacherSpec(str(tmp_path / name), layers="last"))
        digests.append(weights_digest(teacher.model))
    assert digests[0] == digests[1] != digests[2]
    assert (teacher.per_frame, teacher.missing, teacher.dim) == (2, missing, 32)
    assert teacher(torch.zeros(1, 640 * 20, dtype=torch.int16), [20]).shape == (1, 40, 32)


def test_missing_labels_end_it_with_their_name(data: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"speech_teacher\.py: .*none/train\.km"):
        main([str(tmp_path), str(tmp_path / "out"), "--kind", "hubert", "--labels", str(tmp_path / "none")])
    assert not (tmp_path / "out").exists()


def test_hubert_does_not_use_what_is_masked() -> None:
    predictor = HubertPredictor(5)
    wave = torch.randn(1, 20 * 320 + 80)
    masked = torch.zeros(1, 20, dtype=torch.bool)
    masked[:, 5:10] = True
    # Samples of the frames 5 to 9 alone: frame 4 ends at 1680, frame 10 begins at 3200.
    other = wave.clone()
    other[:, 1680:3200] = torch.randn(1, 1520)
    inputs = [SimpleNamespace(input_values=one, attention_mask=torch.ones_like(one)) for one in (wave, other)]
    first, second = (encoded(predictor, each, masked) for each in inputs)
    assert first.shape == (1, 20, 32)
    assert torch.allclose(first, second, atol=1e-5)
    assert not torch.allclose(*(encoded(predictor, each, masked & False) for each in inputs), atol=1e-3)


def test_whisper_does_not_use_what_is_masked() -> None:
    predictor = WhisperPredictor(5)
    mel = torch.randn(1, 80, 300)
    masked = torch.zeros(1, 60, dtype=torch.bool)
    masked[:, 5:10] = True
    other = mel.clone()
    other[..., 10:20] = torch.randn(1, 80, 10)
    inputs = [SimpleNamespace(input_features=one) for one in (mel, other)]
    first, second = (encoded(predictor, each, masked) for each in inputs)
    assert first.shape == (1, 150, 32)
    assert torch.equal(first, second)
    assert not torch.allclose(*(encoded(predictor, each, masked & False) for each in inputs), atol=1e-3)
