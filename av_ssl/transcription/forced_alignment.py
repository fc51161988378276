"""Times of the words of a known text in a recording of any length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from av_ssl.errors import DataError
from av_ssl.layout import BLANK, FRAME_RATE, STREAMS
from av_ssl.media.recording import SPEAKER, Part, Source
from av_ssl.transcription.recording import RecordingOptions, Work, part_batches, read_ahead
from av_ssl.transcription.transcript import Segment, SpeechRecogniser, Transcript, Word
from av_ssl.transcription.word_times import LEVEL_RATE, Spelling, align, frames_needed, loudness

UNLIKELY = -20.0
"""Log-probability of all tokens where the model has nothing to see or hear."""
LEAST_SCORE = 1e-9
Piece = tuple[int, NDArray[Any]]
"""The frame at which an array begins, and the array."""


class Aligner(SpeechRecogniser, Protocol):
    """A recogniser with a CTC head."""

    def ctc_log_probs(self, parts: Sequence[Part], streams: tuple[str, ...]) -> list[NDArray[np.float32]]:
        """Log-probabilities ``[T, V]`` at 25 Hz of each part."""
        ...

    def spell_text(self, text: str) -> list[list[Spelling]]:
        """See `av_ssl.transcription.word_times.spell_text`."""
        ...


def align_recording(
    recogniser: Aligner, source: Source, text: str, modalities: str | None = None, face: str | int = SPEAKER
) -> Transcript:
    """Find the words of a text in a recording.

    Args:
        recogniser: has a CTC head.
        source: see `Recording`.
        text: all that is said, in order; its lines become segments.
        modalities, face: see `RecordingOptions`.

    Raises:
        DataError: see `transcribe_recording`; the text has words that the dictionary lacks, or is too long
            for the recording; the model has no CTC head.
    """
    lines = recogniser.spell_text(text)
    words = [word for line in lines for word in line]
    work = Work(recogniser, source, RecordingOptions(face, modalities))
    heard = _listen(recogniser, work)
    work.check()
    if frames_needed([token for word in words for token in word.tokens]) > len(heard.log_probs):
        raise DataError(
            f"{work.recording.name}: lasts {len(heard.log_probs) / FRAME_RATE:.1f} s, too short for a text "
            f"of {len(words)} words; name what is said in this recording alone"
        )
    found = iter(align(heard.log_probs, words, heard.levels))
    segments = tuple(_segment(tuple(islice(found, len(line))), heard) for line in lines)
    return Transcript(segments, tuple(work.notes()))


@dataclass(frozen=True)
class _Heard:
    """An entire recording of T frames.

    Args:
        log_probs: output ``[T, V]`` of the CTC head.
        levels: ``[4 T]``, see `loudness`; None without sound.
        modalities: ``[T]``, what the model received, as an index of `STREAMS`.
    """

    log_probs: NDArray[np.float32]
    levels: NDArray[np.float32] | None
    modalities: NDArray[np.int64]


def _listen(recogniser: Aligner, work: Work) -> _Heard:
    """Run the model over all parts; where a part has none of its streams, only blanks are likely."""
    outputs: list[Piece] = []
    levels: list[Piece] = []
    used: list[Piece] = []
    parts = work.recording.parts(work.options.face)
    for group in read_ahead(part_batches(parts)):
        chosen = [work.streams_of(part) for part in group]
        for streams in work.choices:
            own = [part for part, choice in zip(group, chosen, strict=True) if choice == streams]
            for part, log_probs in zip(own, recogniser.ctc_log_probs(own, streams), strict=True):
                start = round(part.start * FRAME_RATE)
                outputs.append((start, log_probs))
                used.append((start, np.full(len(log_probs), list(STREAMS.values()).index(streams))))
                if "audio" in streams and part.samples is not None:
                    levels.append((start, loudness(part.samples).reshape(-1, LEVEL_RATE // FRAME_RATE)))
    nothing = np.full(outputs[0][1].shape[1:] if outputs else 1, UNLIKELY, np.float32)
    nothing[BLANK] = 0.0
    return _Heard(
        stitched(outputs, nothing),
        stitched(levels, np.zeros(LEVEL_RATE // FRAME_RATE, np.float32)).ravel() if levels else None,
        stitched(used, np.array(0)),
    )


def stitched(pieces: Iterable[Piece], gap: NDArray[Any]) -> NDArray[Any]:
    """Arrays ``[n, ...]`` that begin at given frames as one ``[T, ...]``.

    Each of two that overlap gives the half of the overlap that is nearer to its middle; ``gap`` stands where
    there is none.
    """
    rows = [gap[None][:0]]
    end = 0
    for start, piece in sorted(pieces, key=lambda pair: pair[0]):
        shared = max(0, end - start)
        if shared:
            kept = min(shared // 2, len(rows[-1]))
            rows[-1] = rows[-1][: len(rows[-1]) - kept]
            piece, start = piece[shared - kept :], start + shared - kept
            end -= kept
        elif start > end:
            rows.append(np.repeat(gap[None], start - end, axis=0))
        rows.append(piece)
        end = start + len(piece)
    return np.concatenate(rows)


def _segment(words: tuple[Word, ...], heard: _Heard) -> Segment:
    text = " ".join(word.word for word in words)
    score = float(np.exp(np.mean([np.log(max(word.score, LEAST_SCORE)) for word in words])))
    middle = round((words[0].start + words[-1].end) / 2 * FRAME_RATE)
    name = list(STREAMS)[heard.modalities[min(middle, len(heard.modalities) - 1)]]
    return Segment(words[0].start, words[-1].end, text, words, score, name)
