from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from av_ssl.data.noise import NoiseMixer, add_noise, parse_snr
from av_ssl.errors import DataError, MediaError

RNG = np.random.default_rng


def speech(samples: int = 16000, level: float = 1000, seed: int = 0) -> np.ndarray:
    return RNG(seed).normal(0, level, samples).astype(np.int16)


def decibels(clean: np.ndarray, mixed: np.ndarray) -> float:
    noise = mixed.astype(float) - clean
    return 10 * np.log10(np.mean(clean.astype(float) ** 2) / np.mean(noise**2))


@pytest.fixture
def noise_files(tmp_path: Path) -> list[Path]:
    paths = []
    for k, samples in enumerate((4000, 16000, 40000)):
        paths.append(tmp_path / f"noise{k}.wav")
        soundfile.write(paths[-1], speech(samples, 500, seed=10 + k), 16000, subtype="PCM_16")
    return paths


@pytest.mark.parametrize("snr", [-10, 0, 2.5, 10])
def test_signal_to_noise_ratio(noise_files: list[Path], snr: float) -> None:
    clean = speech()
    for seed in range(6):
        mixed = NoiseMixer(noise_files, 1, snr, random_offset=True).mix(clean, RNG(seed))
        assert mixed.dtype == np.int16
        assert decibels(clean, mixed) == pytest.approx(snr, abs=0.1)


def test_range_of_ratios_has_whole_numbers_and_both_ends(noise_files: list[Path]) -> None:
    clean = speech()
    mixer = NoiseMixer(noise_files, 1, (-2, 2))
    drawn = {round(decibels(clean, mixer.mix(clean, RNG(seed))), 1) for seed in range(60)}
    assert drawn == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_probability(noise_files: list[Path]) -> None:
    clean = speech(800)
    mixer, rng = NoiseMixer(noise_files, 0.25, 0), RNG(0)
    noisy = sum(mixer.mix(clean, rng) is not clean for _ in range(1000))
    assert noisy == pytest.approx(250, abs=45)


def test_fixed_offset_repeats_short_noise_from_its_start(tmp_path: Path) -> None:
    noise = speech(1000, 500, seed=3)
    soundfile.write(tmp_path / "n.wav", noise, 16000, subtype="PCM_16")
    clean = speech(2500)
    mixed = NoiseMixer([tmp_path / "n.wav"], 1, 0).mix(clean, RNG(0))
    np.testing.assert_array_equal(mixed, add_noise(clean, np.tile(noise, 3)[:2500].astype(np.float32), 0))


def test_random_offset_moves_the_noise(noise_files: list[Path]) -> None:
    clean = speech()
    for path in noise_files[::2]:
        mixer = NoiseMixer([path], 1, 0, random_offset=True)
        assert not np.array_equal(mixer.mix(clean, RNG(1)), mixer.mix(clean, RNG(2)))


def test_several_files_are_cut_to_the_shortest_averaged_and_floored(tmp_path: Path) -> None:
    waves = [np.array([1, 2, 3, 4], np.int16), np.array([2, 2, -4], np.int16)]
    for k, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{k}.wav", wave, 16000, subtype="PCM_16")
    mixer = NoiseMixer([tmp_path / "0.wav", tmp_path / "1.wav"], 1, 0, number=2)
    seed = next(s for s in range(50) if len(set(RNG(s).integers(0, 2, 2))) == 2)
    np.testing.assert_array_equal(mixer._draw_noise(3, RNG(seed)), [1, 2, -1])


def test_mix_beyond_int16_is_scaled_as_a_whole() -> None:
    clean = np.array([30000, -30000, 15000, 0], np.int16)
    noise = np.array([30000, -20000, 15000, 100], np.float32)
    mixed = add_noise(clean, noise, 0)
    assert mixed.max() >= 32766 or mixed.min() <= -32767
    ratio = mixed[0] / mixed[2]
    assert ratio == pytest.approx(2, abs=0.01)


def test_silence_changes_nothing() -> None:
    clean = speech(100)
    np.testing.assert_array_equal(add_noise(clean, np.zeros(100, np.float32), 0), clean)
    silence = np.zeros(100, np.int16)
    np.testing.assert_array_equal(add_noise(silence, np.ones(100, np.float32), 0), silence)


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0.0), (5, 5.0), ("-2.5", -2.5), ("(-5,5)", (-5, 5)), ("[0, 3]", (0, 3))]
)
def test_ratios_are_parsed(text: str, value: object) -> None:
    assert parse_snr(text) == value


@pytest.mark.parametrize(
    "text", ["", "five", "(5,-5)", "(1,2,3)", "(0.5,1)", "True", "__import__('os')", "'0'"]
)
def test_other_ratios_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"noise_snr is .*write a number"):
        parse_snr(text)


def test_list_of_files(tmp_path: Path, noise_files: list[Path]) -> None:
    (tmp_path / "valid.tsv").write_text(f"{noise_files[0]}\nnoise1.wav\n\n", encoding="utf-8")
    assert NoiseMixer(tmp_path / "valid.tsv", 1, 0).paths == noise_files[:2]


def test_missing_and_empty_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"valid\.tsv: "):
        NoiseMixer(tmp_path / "valid.tsv", 1, 0)
    (tmp_path / "test.tsv").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv: "):
        NoiseMixer(tmp_path / "test.tsv", 1, 0)


def test_missing_noise_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"gone\.wav"):
        NoiseMixer([tmp_path / "gone.wav"], 1, 0).mix(speech(100), RNG(0))
