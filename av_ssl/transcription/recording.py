"""A recording to text: its parts are recognised in batches, and their texts are joined where they overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from av_ssl.errors import DataError
from av_ssl.layout import FRAME_RATE, STREAMS
from av_ssl.media.alignment import OWN, MeanFace
from av_ssl.media.audio import Samples
from av_ssl.media.recording import PART_SECONDS, SPEAKER, NoFaceError, Part, Recording, Source
from av_ssl.transcription.transcript import Recognition, Segment, SpeechRecogniser, Transcript, Word

BATCH_FRAMES = 400  # that the recogniser is given at a time (16 s), a part or several short ones
LEAST_SEEN = 0.5  # share of a recording in which lips must be seen to be read
SAME_TIME = 0.3  # seconds: one word found in two parts
NAMED = 5  # stretches in a note
LEAST_CUT, CUT = 2.0, 0.02  # seconds, and share, that a file may be shorter than it states

Progress = Callable[[float, float | None], None]
Streams = tuple[str, ...]
Item = TypeVar("Item")


@dataclass(frozen=True)
class RecordingOptions:
    """How a recording is transcribed.

    Args:
        face: which of several faces, see ``Recording.parts``.
        modalities: ``audio``, ``video``, ``av``; None: the recogniser's first choice.
        word_times: whether the words have times.
        mean_face: see ``av_ssl.media.alignment``.
        cropped: the frames are crops; False: they are looked at.
    """

    face: str | int = SPEAKER
    modalities: str | None = None
    word_times: bool = False
    mean_face: MeanFace = OWN
    cropped: bool = False


def transcribe_recording(
    recogniser: SpeechRecogniser,
    source: Source,
    options: RecordingOptions | None = None,
    sound: Path | Samples | None = None,
    progress: Progress = lambda done, total: None,
) -> Transcript:
    """The text of a recording.

    Where a face is lost, the sound alone is recognised if the recogniser takes it; notes tell where.

    Args:
        recogniser: takes parts of the recording.
        source, sound: see ``Recording``.
        options: see ``RecordingOptions``.
        progress: called as ``progress(done, total)``, in seconds; the total may be unknown.

    Raises:
        DataError: the recording cannot be read, lacks a stream that the recogniser needs, or shows no face in
            more than half of it and nothing else can be recognised.
    """
    work = Work(recogniser, source, options or RecordingOptions(), sound)
    heard = [piece for _, piece in work.heard(False, progress)]
    work.check()
    return Transcript(joined(heard, work.options.word_times), tuple(work.notes()))


def transcribe_faces(
    recogniser: SpeechRecogniser,
    source: Source,
    options: RecordingOptions | None = None,
    sound: Path | Samples | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[int, Transcript]:
    """The text of every face of a recording by its number; see ``transcribe_recording``."""
    work = Work(recogniser, source, options or RecordingOptions(), sound)
    faces: dict[int, list[Heard]] = {}
    for face, piece in work.heard(True, progress):
        faces.setdefault(face or 1, []).append(piece)
    if not faces:
        raise NoFaceError(work.recording.name, SPEAKER)
    notes = tuple(work.notes())
    return {face: Transcript(joined(faces[face], work.options.word_times), notes) for face in sorted(faces)}


@dataclass(frozen=True)
class Heard:
    """What was recognised in a part; seconds from the start of the recording."""

    start: float
    end: float
    streams: Streams
    recognition: Recognition


@dataclass
class Work:
    """One recording on its way to text."""

    recogniser: SpeechRecogniser
    source: Source
    options: RecordingOptions
    sound: Path | Samples | None = None

    def __post_init__(self) -> None:
        self.asked_for_face = False
        modalities = self.options.modalities
        wanted, choices = chosen_streams(self.recogniser, modalities)
        side = self.recogniser.crop_side
        self.recording = Recording(
            self.source, self.sound, wanted, self.options.mean_face, side, self.options.cropped
        )
        self.wanted = wanted
        self.choices = [wanted, *(streams for streams in choices if set(streams) < set(wanted))]
        there = self.recording.streams
        missing = next((stream for stream in wanted if stream not in there), None)
        replaced = modalities is None and any(set(streams) <= set(there) for streams in self.choices)
        if missing and not replaced:
            takes = "the recogniser takes" if modalities is None else f"--modalities {modalities} asks for"
            raise DataError(
                f"{self.recording.name}: has no {missing} stream, and {takes} {' and '.join(wanted)}; name "
                f"another recording, or have {' and '.join(there)} recognised alone"
            )

    def heard(self, all_faces: bool, progress: Progress) -> Iterator[tuple[int | None, Heard]]:
        """The parts in order, each with the number of its face."""
        total = self.recording.seconds
        self.asked_for_face = all_faces or self.options.face != SPEAKER
        progress(0, total)
        parts = self.recording.parts(self.options.face, all_faces)
        for batch in read_ahead(part_batches(parts)):
            yield from self._recognise(batch)
            progress(batch[-1].end, total)
        if total is not None:
            progress(total, total)

    def _recognise(self, parts: list[Part]) -> Iterator[tuple[int | None, Heard]]:
        chosen = [self.streams_of(part) for part in parts]
        found: dict[int, Heard] = {}
        for streams in self.choices:
            indices = [index for index, choice in enumerate(chosen) if choice == streams]
            if indices:
                same = [parts[index] for index in indices]
                results = self.recogniser.recognise(same, streams, self.needs_times)
                for index, part, result in zip(indices, same, results, strict=True):
                    found[index] = Heard(part.start, part.end, streams, result)
        for index in sorted(found):
            yield parts[index].face, found[index]

    @property
    def needs_times(self) -> bool:
        """Whether words need times: they tell what is said twice where parts overlap."""
        seconds = self.recording.seconds
        return self.options.word_times or seconds is None or seconds > PART_SECONDS

    def streams_of(self, part: Part) -> Streams | None:
        """The streams of a part that are recognised; None: there is nothing that the recogniser takes."""
        there = {"audio": part.samples is not None, "video": part.frames is not None}
        return next((choice for choice in self.choices if all(there[stream] for stream in choice)), None)

    @property
    def _by_sound(self) -> bool:
        return ("audio",) in self.choices and "audio" in self.recording.streams

    def check(self) -> None:
        """Raise DataError where lips were to be read but are not seen, and the sound cannot be taken.

        A face that was asked for by its number must be there.
        """
        if "video" not in self.wanted or "video" not in self.recording.streams:
            return
        share, by_number = self.recording.face_share, isinstance(self.options.face, int)
        if not share and (by_number or not self._by_sound):
            raise NoFaceError(self.recording.name, self.options.face)
        if self._by_sound:
            return
        if share < LEAST_SEEN and not by_number:
            raise DataError(
                f"{self.recording.name}: a face is seen in {share:.0%} of it, {LEAST_SEEN:.0%} are needed; "
                f"the recogniser takes {' and '.join(self.wanted)}: cut out the part with the face, or name "
                "a recogniser of sound"
            )

    def notes(self) -> Iterator[str]:
        """What went otherwise than asked."""
        stated, read = self.recording.seconds, self.recording.read
        if stated is not None and stated - read > max(LEAST_CUT, CUT * stated):
            yield f"ends after {read:.1f} s, though the file states {stated:.1f} s: it may be truncated"
        missing = [stream for stream in self.wanted if stream not in self.recording.streams]
        for stream in missing:
            yield f"no {stream} stream: only {' and '.join(self.recording.streams)} was recognised"
        if self.asked_for_face and not {"video"}.intersection(self.wanted, self.recording.streams):
            yield "only the sound is recognised, so the choice of a face (--face, --all-faces) has no effect"
        if "audio" in self.wanted and self.recording.track:
            yield f"the sound is that of audio track {self.recording.track}"
        if "audio" in self.wanted and self.recording.silent:
            yield "the sound is silent"
        if "video" in self.wanted and not missing and self.recording.lost:
            times = [f"{start:.1f} to {end:.1f} s" for start, end in self.recording.lost]
            more = f" and {len(times) - NAMED} more times" if len(times) > NAMED else ""
            done = "only the sound was recognised" if self._by_sound else "nothing was recognised"
            yield f"no face from {', '.join(times[:NAMED])}{more}: {done} there"


def chosen_streams(recogniser: SpeechRecogniser, modalities: str | None) -> tuple[Streams, list[Streams]]:
    """The streams asked for, and all sets that are accepted; DataError where the first is none of them."""
    choices = [tuple(streams) for streams in recogniser.stream_choices]
    wanted = choices[0] if modalities is None else STREAMS.get(modalities, ())
    if wanted not in choices:
        takes = ", ".join(name for name, streams in STREAMS.items() if streams in choices)
        raise DataError(f"--modalities {modalities}: the recogniser takes {takes} alone")
    return wanted, choices


def part_batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts in order, about `BATCH_FRAMES` at a time."""
    batch: list[Part] = []
    for part in parts:
        batch.append(part)
        if sum(round((one.end - one.start) * FRAME_RATE) for one in batch) >= BATCH_FRAMES:
            yield batch
            batch = []
    if batch:
        yield batch


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made by a thread while the one before it is used.

    So mouths are cropped while the recogniser computes; both release Python's lock most of the time.
    """
    end = object()
    with ThreadPoolExecutor(1) as pool:
        item: Any = pool.submit(next, items, end).result()
        while item is not end:
            following = pool.submit(next, items, end)
            yield item
            item = following.result()


# -- joining -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    """Words of a part on its way to a segment."""

    heard: Heard
    start: float
    end: float
    tokens: list[str]
    words: list[Word]

    def cut(self, first: int = 0, last: int | None = None) -> _Text:
        return replace(self, tokens=self.tokens[first:last], words=self.words[first:last])


def joined(parts: Iterable[Heard], word_times: bool = True) -> tuple[Segment, ...]:
    """One segment a part, without the words that two overlapping parts both have, and none without words.

    Times of words tell which those are; ``word_times``: whether they are in the segments, too.
    """
    texts = [_text(part) for part in parts]
    for index, _ in enumerate(pairwise(texts)):
        before, after = texts[index], texts[index + 1]
        if after.start < before.end:
            kept, dropped = _border(before, after)
            middle = (after.start + before.end) / 2
            texts[index] = replace(before.cut(last=kept), end=middle)
            texts[index + 1] = replace(after.cut(first=dropped), start=middle)
    return tuple(_segment(text if word_times else replace(text, words=[])) for text in texts if text.tokens)


def _text(part: Heard) -> _Text:
    words = [
        replace(word, start=part.start + word.start, end=part.start + word.end)
        for word in part.recognition.words
    ]
    tokens = [word.word for word in words] or part.recognition.text.split()
    return _Text(part, part.start, part.end, tokens, words)


def _segment(text: _Text) -> Segment:
    start = text.words[0].start if text.words else text.start
    end = text.words[-1].end if text.words else text.end
    modalities = next(name for name, streams in STREAMS.items() if streams == text.heard.streams)
    confidence = text.heard.recognition.confidence
    return Segment(start, end, " ".join(text.tokens), tuple(text.words), confidence, modalities)


def _border(before: _Text, after: _Text) -> tuple[int, int]:
    """How many words of the first text are kept, and how many of the second are dropped."""
    if not (before.words and after.words):  # nothing was said in one of them
        return len(before.tokens), 0
    return _border_by_time(before.words, after.words, (after.start + before.end) / 2)


def _border_by_time(before: list[Word], after: list[Word], middle: float) -> tuple[int, int]:
    """Words before the middle of the overlap are those of the first part, others those of the second."""
    kept = sum(word.start + word.end < 2 * middle for word in before)
    dropped = sum(word.start + word.end < 2 * middle for word in after)
    # A word whose times differ by a little may be on the other side of the middle in each part. It is not
    # another one that is spelled alike: that has a nearer one on its own side.
    first, second = before[max(0, kept - 1) : kept], before[kept : kept + 1]
    third, fourth = after[max(0, dropped - 1) : dropped], after[dropped : dropped + 1]
    own = min(_apart(first, third), _apart(second, fourth))
    if _apart(second, third) < min(own, SAME_TIME):
        kept += 1
    elif _apart(first, fourth) < min(own, SAME_TIME):
        dropped += 1
    return kept, dropped


def _apart(one: list[Word], other: list[Word]) -> float:
    """Seconds between the starts of two words that are spelled alike; others are never one word."""
    if not one or not other or one[0].word != other[0].word:
        return math.inf
    return abs(one[0].start - other[0].start)
