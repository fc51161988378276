"""Adding noise to speech at a given signal-to-noise ratio (robust AV-HuBERT, Shi et al., 2022)."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av_ssl.data.reading import read_wave
from av_ssl.errors import DataError
from av_ssl.io import read_text

INT16 = np.iinfo(np.int16)
Snr = float | tuple[int, int]


def parse_snr(text: str | float) -> Snr:
    """Signal-to-noise ratio in dB of a configuration: `"0"`, `"-2.5"`, or a range `"(-5,5)"`.

    Raises DataError when it is neither, or when the range is not of whole numbers in order.
    """
    fix = "write a number, e.g. 0, or a pair of whole numbers, lowest first, e.g. (-5,5)"
    try:
        value = ast.literal_eval(str(text).strip())
    except (SyntaxError, ValueError):
        raise DataError(f"noise_snr is {text!r}; {fix}") from None
    if type(value) in (int, float):
        return float(value)
    if (
        isinstance(value, tuple | list)
        and [type(bound) for bound in value] == [int, int]
        and value[0] <= value[1]
    ):
        return value[0], value[1]
    raise DataError(f"noise_snr is {text!r}; {fix}")


def noise_list(folder: Path, split: str) -> Path:
    """The list of a split; that of ``test`` for a further test list without one, such as ``test_unseen``."""
    own = folder / f"{split}.tsv"
    return own if own.is_file() or not split.startswith("test_") else folder / "test.tsv"


def read_noise_list(path: Path) -> list[Path]:
    """The noise files of a list, one per line, relative to its folder; raises DataError if there are none."""
    fix = (
        "noise_wav needs a {split}.tsv for every split, validation included: make it, or set noise_prob to 0"
    )
    lines = read_text(path, fix, "the noise list of this split cannot be read").split("\n")
    paths = [path.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise DataError(f"{path}: lists no noise files; write one path per line")
    return paths


class NoiseMixer:
    """Adds noise to a clip with a probability.

    Args:
        noises: noise files, or the file that lists them.
        probability: that a clip gets noise.
        snr: in dB; for a pair, a whole number between the two (both included) is drawn for each clip.
        number: noise files averaged.
        random_offset: start anywhere in the noise, for training; False: at its first sample, as in the
            published evaluation.
    """

    def __init__(
        self,
        noises: Path | Sequence[Path],
        probability: float,
        snr: Snr,
        number: int = 1,
        random_offset: bool = False,
    ) -> None:
        self.paths = read_noise_list(noises) if isinstance(noises, Path) else list(noises)
        self.probability = probability
        self.snr = snr
        self.number = number
        self.random_offset = random_offset

    def mix(self, clean: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
        """`clean` `[N]` itself, or a noisy copy of it; raises MediaError if a noise file cannot be read."""
        if rng.random() >= self.probability:
            return clean
        noise = self._draw_noise(len(clean), rng)
        if isinstance(self.snr, tuple):
            return add_noise(clean, noise, int(rng.integers(self.snr[0], self.snr[1] + 1)))
        return add_noise(clean, noise, self.snr)

    def _draw_noise(self, samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
        chosen = rng.integers(0, len(self.paths), self.number)
        waves = [read_wave(self.paths[index]) for index in chosen]
        shortest = min(len(wave) for wave in waves)
        noise: NDArray[np.float32] = np.mean([wave[:shortest] for wave in waves], axis=0, dtype=np.float32)
        if len(waves) > 1:
            noise = np.floor(noise)
        offset = 0
        if self.random_offset:
            # Noise that is repeated may start anywhere; longer noise is cut where it needs no repetition.
            starts = len(noise) if len(noise) < samples else len(noise) - samples + 1
            offset = int(rng.integers(0, starts))
        if len(noise) < samples + offset:
            noise = np.tile(noise, -(-(samples + offset) // len(noise)))
        return noise[offset : offset + samples]


def add_noise(clean: NDArray[np.int16], noise: NDArray[np.float32], snr: float) -> NDArray[np.int16]:
    """Mix `[N]` and `[N]` at `snr` dB by the root mean squares of the entire clip.

    A mix beyond the range of int16 is scaled down; silent noise changes nothing.
    """
    speech = clean.astype(np.float32)
    noise_rms = float(np.sqrt(np.mean(noise**2)))
    if noise_rms == 0:
        return clean
    gain = float(np.sqrt(np.mean(speech**2))) / (10 ** (snr / 20) * noise_rms)
    mixed = speech + np.float32(gain) * noise
    excess = max(float(mixed.max()) / INT16.max, float(mixed.min()) / INT16.min)
    if excess > 1:
        mixed = mixed / np.float32(excess)
    # float32 does not represent a scaled peak exactly; without the clip it could overflow.
    return np.clip(mixed, INT16.min, INT16.max).astype(np.int16)
