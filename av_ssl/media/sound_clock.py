"""Placing decoded audio by its time stamps.

Packets are lost in calls and streams, and some recorders' clocks run several per cent too slow. Samples that
are simply joined then lie earlier and earlier than the video. Here the error of joined samples, time stamp
minus position, is followed through the track: where it jumps, packets are missing and silence is inserted, or
samples that overlap are dropped; where it creeps, the audio is resampled to follow it. An error that stays
within 10 ms is rounding of the container, and the samples are kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from av_ssl.layout import SAMPLE_RATE
from av_ssl.media.container import LARGEST_STEP_BACK, steps_back

Samples = NDArray[np.int16]
Array = NDArray[np.float64]

JUMP = 0.012  # seconds by which the error changes between two frames: more is a gap
JUMP_SHARE = 0.1  # of a frame, where frames are long: less is a slow or fast clock
TOLERATED = 0.01  # seconds of error that are no drift
RESTART = 0.1  # seconds by which an encoder that was restarted may seem to overlap
LONGEST_GAP = 1800.0  # seconds: more is a broken time stamp
MEDIAN = 9  # frames of audio, about 0.2 s: a single wrong time stamp changes nothing
SMOOTH = 41  # frames, about 1 s, over which drift is averaged
TAPS = 16  # samples on each side from which one between two samples is interpolated
BLOCK = 1 << 16  # samples interpolated at once
QUIET = 0.001  # standard deviation over full scale, -60 dB
LEAST_LOUD = 0.2  # seconds of louder audio: less is silence


@dataclass(frozen=True)
class Sound:
    """Mono samples ``[N]``, int16, and what was done to place them by their time stamps."""

    samples: Samples
    gaps: float = 0.0  # seconds of silence where packets are missing
    drift: float = 0.0  # largest number of seconds by which the audio clock ran away from the time stamps

    @property
    def silent(self) -> bool:
        """Whether less than 0.2 s is louder than -60 dB of full scale."""
        size = SAMPLE_RATE // 50
        blocks = self.samples[: len(self.samples) // size * size].reshape(-1, size).astype(np.float32)
        return int((blocks.std(1) > 32768 * QUIET).sum()) * size < LEAST_LOUD * min(
            SAMPLE_RATE, len(self.samples)
        )


@dataclass
class Run:
    """Audio of one format: what a resampler gave, and the time stamps of the decoder's frames."""

    rate: int  # of ``pieces``, Hz
    pieces: list[Samples] = field(default_factory=list)
    positions: list[float] = field(default_factory=list)  # of each frame in the joined samples
    times: list[float] = field(default_factory=list)  # of each frame, samples after time zero; NaN: unknown
    length: float = 0.0

    def stamp(self, time: float | None, length: float) -> None:
        """Note a frame of ``length`` seconds that starts at ``time`` seconds."""
        self.positions.append(self.length)
        self.times.append(np.nan if time is None else time * self.rate)
        self.length += length * self.rate


def place(runs: Iterable[Run]) -> Sound:
    """The sound of all runs; raises ValueError when time stamps go far back or far ahead."""
    parts: list[tuple[int, Samples]] = []
    end = gaps = drift = 0.0
    for run in runs:
        samples = np.concatenate([np.zeros(0, np.int16), *run.pieces])
        late: float | None = None
        for positions, error in _segments(run, len(samples), end):
            if late is None:  # its encoder's delay is not in its time stamps; no sample is dropped
                overlap = end - positions[0] - error[0] if parts else 0.0
                late = overlap if 0 < overlap <= RESTART * run.rate else 0.0
            start = positions[0] + error[0] + late
            if parts and end - start > LARGEST_STEP_BACK * run.rate:
                raise ValueError(steps_back("audio", end / run.rate, start / run.rate))
            if start - end > LONGEST_GAP * run.rate:
                raise ValueError(
                    f"audio time stamps jump to {start / run.rate:.0f} s; make new ones with ffmpeg"
                )
            if parts and start - end > TOLERATED * run.rate:
                gaps += (start - end) / run.rate
            if error.any() and np.ptp(error):
                drift = max(drift, float(np.ptp(error)) / run.rate)
                part = _stretched(samples, positions, positions + error)
            else:
                part = samples[round(positions[0]) : round(positions[-1])]
            parts.append((round(start), part))
            end = start + len(part)
    return Sound(_joined(parts), round(float(gaps), 3), round(drift, 3))


def _segments(run: Run, length: int, end: float) -> Iterator[tuple[Array, Array]]:
    """Parts of a run without a gap: positions of their frames and of their end, and the error of each.

    The error is constant unless it drifts. Without time stamps it joins the run to ``end``.
    """
    positions, times = np.array(run.positions), np.array(run.times)
    known = np.isfinite(times)
    if not len(positions):
        return
    if known.any():
        error = _filled((times - positions), known, JUMP * run.rate)
        error = np.median(sliding_window_view(_extended(error, MEDIAN), MEDIAN), axis=1)
    else:
        error = np.full(len(times), end)
    positions = np.append(positions, max(length, positions[-1]))
    limit = np.maximum(JUMP * run.rate, JUMP_SHARE * np.diff(positions)[:-1])
    jumps = np.flatnonzero(np.abs(np.diff(error)) > limit) + 1
    for first, last in zip([0, *jumps], [*jumps, len(error)], strict=True):
        part = error[first:last]
        if np.ptp(part) > TOLERATED * run.rate:
            part = np.convolve(_extended(part, SMOOTH), np.full(SMOOTH, 1 / SMOOTH), mode="valid")
        else:
            part = np.full(len(part), np.median(part))
        yield positions[first : last + 1], np.append(part, part[-1])


def _filled(error: Array, known: NDArray[np.bool_], jump: float) -> Array:
    """Unknown errors interpolated; where the known ones on either side are a jump apart, the earlier one."""
    frames, values = np.arange(len(error)), error[known]
    before = np.searchsorted(frames[known], frames, side="right") - 1
    earlier, later = (values[np.clip(before + step, 0, len(values) - 1)] for step in (0, 1))
    between = np.interp(frames, frames[known], values)
    return np.where(np.abs(later - earlier) > jump, earlier, between)


def _extended(values: Array, window: int) -> Array:
    """``values`` continued at both ends so that a centred window keeps their slope."""
    return np.pad(values, window // 2, mode="reflect", reflect_type="odd")


def _stretched(samples: Samples, positions: Array, times: Array) -> Samples:
    """Samples from the first to the last of ``positions``, resampled so that they lie at ``times``."""
    where = np.interp(np.arange(round(times[0]), round(times[-1])), times, positions)
    padded = np.pad(samples.astype(np.float64), TAPS + 1)
    offsets = np.arange(1 - TAPS, TAPS + 1)
    parts = [np.zeros(0, np.int16)]
    for block in np.array_split(where, -(-len(where) // BLOCK) or 1):
        whole = np.floor(block).astype(int)
        distance = offsets - (block - whole)[:, None]
        weights = np.sinc(distance) * np.cos(np.pi * distance / (2 * TAPS)) ** 2
        index = np.clip(whole[:, None] + offsets + TAPS + 1, 0, len(padded) - 1)
        values = (padded[index] * weights).sum(1) / weights.sum(1)
        parts.append(np.clip(np.round(values), -32768, 32767).astype(np.int16))
    return np.concatenate(parts)


def _joined(parts: list[tuple[int, Samples]]) -> Samples:
    """Parts at their starts, silence between them; a later one replaces what it overlaps."""
    length = max((start + len(part) for start, part in parts), default=0)
    joined = np.zeros(max(0, length), np.int16)
    for start, part in parts:
        kept = part[max(0, -start) :]
        joined[max(0, start) : max(0, start) + len(kept)] = kept
    return joined
