"""Speech with the times of its words and phones, from the espeak-ng in the wheel `espeakng-loader`.

espeak-ng draws random numbers and keeps state between utterances, so the same text sounds different after
other texts, and neither terminating nor seeding the library puts it back. What does: an instance that has
never spoken is kept, and every utterance is spoken by a forked child of it, seeded, that exits afterwards.
"""

import ctypes
import importlib
import json
import multiprocessing
import os
from bisect import bisect_left
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpus.script import Voice

# espeak-ng/speak_lib.h
_SYNCHRONOUS, _UTF8 = 2, 1
_PHONEME_EVENTS, _DONT_EXIT = 0x0001, 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_END_OF_LIST, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7

PAUSE = "_"  # begins the names of pauses, such as `_:`
_STRESS_MARKS = "',%=|"
_SAME_TIME = 0.005  # s: a word's event may come this much after its first phone's


class SpeechError(RuntimeError):
    """espeak-ng is missing, cannot be used on this platform, or refuses a voice or a text."""


class Timed(NamedTuple):
    """A word or phone and when it sounds, in seconds."""

    label: str
    start: float
    end: float

    def later(self, seconds: float) -> "Timed":
        return Timed(self.label, self.start + seconds, self.end + seconds)


class Utterance(NamedTuple):
    """Mono speech `wave` int16 `[N]` at `rate` Hz, with its words and phones."""

    wave: NDArray[np.int16]
    rate: int
    words: tuple[Timed, ...]
    phones: tuple[Timed, ...]


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", ctypes.c_char * 8),
    )  # fmt: skip


_Samples, _Events = ctypes.POINTER(ctypes.c_short), ctypes.POINTER(_Event)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, _Samples, ctypes.c_int, _Events)


class Synthesiser:
    """An espeak-ng that has never spoken. One a process: the library's state is global.

    Raises `SpeechError` where the library is missing or the platform cannot fork.
    """

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise SpeechError("the toy corpus needs a platform with fork() (Linux or macOS)")
        try:
            loader = importlib.import_module("espeakng_loader")
        except ImportError as error:
            raise SpeechError("espeak-ng is not installed: pip install 'av_ssl[toy]'") from error
        self._library = ctypes.CDLL(loader.get_library_path())
        data = os.fsencode(loader.get_data_path())
        self.rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _DONT_EXIT)
        if self.rate <= 0:
            raise SpeechError(f"espeak-ng does not start with the data in {loader.get_data_path()}")

    def say(self, words: list[str], voice: Voice, seed: int) -> Utterance:
        """Speak a sentence; the same arguments give the same samples whatever was said before.

        Raises `SpeechError` for a voice that espeak-ng lacks and for words that it does not speak one by one.
        """
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=self._speak_and_send, args=(sender, " ".join(words), voice, seed))
        child.start()
        sender.close()
        try:
            wave = np.frombuffer(receiver.recv_bytes(), np.int16)
            events = json.loads(receiver.recv_bytes())
        except EOFError as error:
            raise SpeechError(f"espeak-ng cannot say {words} with voice {voice.name!r}") from error
        finally:
            receiver.close()
            child.join()
        return self._utterance(wave, words, events)

    def _speak_and_send(self, sender: Connection, text: str, voice: Voice, seed: int) -> None:
        """In the child: nothing sent means that espeak-ng refused."""
        library = self._library
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        if library.espeak_SetVoiceByName(voice.name.encode()):
            return
        values = {_RATE: voice.words_per_minute, _PITCH: voice.pitch, _RANGE: voice.pitch_range}
        for parameter, value in values.items():
            library.espeak_SetParameter(parameter, value, 0)
        recorder = _Recorder()
        callback = _Callback(recorder)
        library.espeak_SetSynthCallback(callback)
        encoded = text.encode()
        if library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None):
            return
        sender.send_bytes(b"".join(recorder.chunks))
        sender.send_bytes(json.dumps({"words": recorder.words, "phones": recorder.phones}).encode())

    def _utterance(self, wave: NDArray[np.int16], words: list[str], events: dict[str, Any]) -> Utterance:
        starts = [sample / self.rate for sample, _ in events["phones"]]
        ends = [*starts[1:], len(wave) / self.rate]
        labels = [label.strip(_STRESS_MARKS) for _, label in events["phones"]]
        timed = [Timed(*phone) for phone in zip(labels, starts, ends, strict=True)]
        phones = tuple(phone for phone in timed if phone.start < phone.end)
        words_at = [sample / self.rate for sample in events["words"]]
        return Utterance(wave, self.rate, _word_times(words, words_at, phones), phones)


class _Recorder:
    """espeak-ng's callback: keeps the samples and the sample numbers of words and phones."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.words: list[int] = []
        self.phones: list[tuple[int, str]] = []

    def __call__(self, wave: Any, samples: int, events: Any) -> int:
        if wave and samples > 0:
            self.chunks.append(ctypes.string_at(wave, samples * ctypes.sizeof(ctypes.c_short)))
        position = 0
        while events[position].type != _EVENT_END_OF_LIST:
            event = events[position]
            if event.type == _EVENT_WORD:
                self.words.append(event.sample)
            elif event.type == _EVENT_PHONEME:
                self.phones.append((event.sample, event.id.decode()))
            position += 1
        return 0


def _word_times(words: list[str], events: list[float], phones: tuple[Timed, ...]) -> tuple[Timed, ...]:
    """A word lasts from its first phone to its last: word events come early, and say nothing of pauses."""
    if len(events) != len(words):
        raise SpeechError(
            f"espeak-ng speaks {words} as {len(events)} words: use words that it does not join or split"
        )
    starts = [phone.start for phone in phones]
    first = [bisect_left(starts, event - _SAME_TIME) for event in events]
    times = []
    for word, begin, end in zip(words, first, [*first[1:], len(phones)], strict=True):
        sounds = [phone for phone in phones[begin:end] if not phone.label.startswith(PAUSE)]
        if not sounds:
            raise SpeechError(f"espeak-ng gives no phone for the word {word!r}")
        times.append(Timed(word, sounds[0].start, sounds[-1].end))
    return tuple(times)
