"""One clip and its files: sentence, audio and frames, which follow from the settings and its number.

A clip is `SPLIT/SPEAKER/CLIP.mp4` and `.txt`, and `alignments/SPLIT/SPEAKER/CLIP.json`. The transcript has
LRS3's form (Afouras et al., 2018). The alignment holds what only a synthetic corpus has: times of the phones,
the viseme track and where the lips are. With emotions, `CLIP.emo` and `CLIP.spk` name emotion and speaker.

Every file is written under a temporary name and then renamed: a file that is there is complete.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from corpus.camera import head_motion, light
from corpus.face import LipTruth, TalkingFace
from corpus.look import Portrait, draw_look
from corpus.script import (
    EMOTIONS,
    NEUTRAL,
    SPLITS,
    Emotion,
    Expression,
    Traits,
    Voice,
    draw_blend,
    draw_emotion,
    draw_voice,
    sentence,
)
from corpus.speech import Synthesiser, Timed, Utterance
from corpus.visemes import DIMENSIONS, viseme_track
from corpus.warp import Floats, Image

FRAME_RATE = 25  # Hz
HELD_OUT_SHARE = 5  # one valid and one test speaker for so many training speakers

SILENCE = (0.04, 0.16)  # s, before the first word and after the last
# Separate the random numbers of speakers, clips, emotions, timbres and links.
_SPEAKER, _CLIP, _EMOTION, _TIMBRE, _LINK = range(5)
_TILT = 0.6  # largest factor of the filter that makes a voice brighter or darker
_X264 = {"preset": "superfast", "crf": "20"}
_AAC = {"aac_coder": "fast"}  # a third of the default coder's time, which would equal that of the frames
_AAC_FRAME = 1024  # samples


@dataclass(frozen=True)
class Settings:
    """What a clip depends on in addition to its split and number.

    `speakers` counts the training speakers, `difficulty` is that of `corpus.visemes`, `frame_size` in pixels.
    With a `link`, looks follow voices, emotions are blends, and that share of the clips has the face that
    belongs to the voice; the others have the face of another speaker, with another emotion.
    """

    seed: int = 0
    speakers: int = 40
    difficulty: float = 0.4
    frame_size: int = 160
    emotions: bool = False
    link: float | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: give a number from 0")
        if self.speakers < 1:
            raise ValueError(f"speakers is {self.speakers}: give at least 1")
        if not 0 <= self.difficulty <= 1:
            raise ValueError(f"difficulty is {self.difficulty}: give a number from 0 to 1")
        if self.frame_size % 4 or not 96 <= self.frame_size <= 512:
            raise ValueError(f"frame size is {self.frame_size}: give a multiple of 4 from 96 to 512 pixels")
        if self.link is not None and not (0 <= self.link <= 1 and self.emotions):
            raise ValueError(f"link is {self.link}: give a number from 0 to 1, and emotions")

    def speakers_in(self, split: str) -> int:
        return self.speakers if split == SPLITS[0] else max(1, self.speakers // HELD_OUT_SHARE)


@dataclass(frozen=True)
class Slot:
    """A place in the corpus: the `number`-th clip of a split, said by one of its `speakers`."""

    split: str
    number: int
    speakers: int

    @property
    def speaker(self) -> int:
        return self.number % self.speakers

    @property
    def speaker_name(self) -> str:
        return f"{self.split[0]}{self.speaker:03d}"

    @property
    def name(self) -> str:
        """Path below the corpus without suffix, for example `pretrain/p003/00043`."""
        return f"{self.split}/{self.speaker_name}/{self.number:05d}"

    def files(self, root: Path) -> tuple[Path, Path, Path]:
        """Video, transcript and alignment."""
        video = root / f"{self.name}.mp4"
        return video, video.with_suffix(".txt"), root / "alignments" / f"{self.name}.json"


@dataclass(frozen=True)
class Clip:
    """A clip: `frames` uint8 RGB `[T, S, S, 3]` at 25 Hz, `wave` int16 `[T * rate / 25]` at `rate` Hz."""

    slot: Slot
    frames: Image
    wave: NDArray[np.int16]
    rate: int
    words: tuple[Timed, ...]
    phones: tuple[Timed, ...]
    track: Floats  # [T, 7], columns `corpus.visemes.DIMENSIONS`
    lips: LipTruth
    voice: Voice
    photograph: str
    emotion: str  # empty in a corpus without emotions

    @property
    def transcript(self) -> str:
        """LRS3's form; times in seconds."""
        words = " ".join(word.label.upper() for word in self.words)
        times = [f"{word.label.upper()} {word.start:.2f} {word.end:.2f}\n" for word in self.words]
        return f"Text:  {words}\nConf:  1\n\nWORD START END\n" + "".join(times)

    @property
    def alignment(self) -> str:
        """JSON: times in seconds, `visemes` a row a frame with named `columns`, `lips` in pixels."""

        def rows(times: tuple[Timed, ...]) -> list[tuple[str, float, float]]:
            return [(timed.label, round(timed.start, 4), round(timed.end, 4)) for timed in times]

        voice = asdict(self.voice)
        if not voice["tilt"]:
            del voice["tilt"]  # as in corpora of earlier versions
        document = {
            "id": self.slot.name,
            "speaker": self.slot.speaker_name,
            "voice": voice,
            "photograph": self.photograph,
            **({"emotion": self.emotion} if self.emotion else {}),
            "frame_rate": FRAME_RATE,
            "words": rows(self.words),
            "phones": rows(self.phones),
            "visemes": {"columns": DIMENSIONS, "rows": np.round(self.track, 3).tolist()},
            "lips": {name: np.round(value, 2).tolist() for name, value in self.lips._asdict().items()},
        }
        return json.dumps(document) + "\n"

    def write(self, root: Path) -> None:
        """Write the clip's files, the video last. Raises `OSError`, for example when the disk is full."""
        video, transcript, alignment = self.slot.files(root)
        for folder in (video.parent, alignment.parent):
            folder.mkdir(parents=True, exist_ok=True)
        write(transcript, self.transcript.encode())
        write(alignment, self.alignment.encode())
        if self.emotion:
            write(video.with_suffix(".emo"), f"{self.emotion}\n".encode())
            write(video.with_suffix(".spk"), f"{self.slot.speaker_name}\n".encode())
        write(video, _encoded(self.frames, self.wave, self.rate))


class Studio:
    """Makes clips. One a process, as it holds the speech synthesiser."""

    def __init__(self, settings: Settings, portraits: Sequence[Portrait]) -> None:
        self._settings, self._portraits = settings, portraits
        self._synthesiser = Synthesiser()
        self._speaker = lru_cache(maxsize=64)(self._draw_speaker)

    def record(self, slot: Slot) -> Clip:
        """Make one clip. Raises `SpeechError` if espeak-ng refuses."""
        rng = self._generator(_CLIP, slot.split, slot.number)
        face, voice, photograph = self._speaker(slot.split, slot.speaker)
        words_to_say = sentence(rng)
        # The same person on another day: up to 7 % faster or slower, a little higher or lower.
        speed = round(voice.words_per_minute * rng.uniform(0.93, 1.07))
        voice_today = replace(voice, words_per_minute=speed, pitch=voice.pitch + int(rng.integers(-5, 6)))
        emotion = NEUTRAL
        if self._settings.emotions:  # drawn separately: sentences and faces are those without emotions
            draw = draw_emotion if self._settings.link is None else draw_blend
            drawn = self._generator(_EMOTION, slot.split, slot.number)
            emotion = draw(slot.number // slot.speakers, drawn)
        face, expression = self._shown(slot, face, emotion)
        voice_today = emotion.voice(voice_today)
        utterance = self._synthesiser.say(words_to_say, voice_today, int(rng.integers(2**31)))
        before, after = rng.uniform(*SILENCE, 2)
        utterance = utterance._replace(wave=_tilted(utterance.wave, voice.tilt))
        wave, frames = _on_air(utterance, before, after, rng, emotion.loudness)
        words = tuple(word.later(before) for word in utterance.words)
        phones = tuple(phone.later(before) for phone in utterance.phones)
        track = viseme_track(phones, frames, FRAME_RATE, rng, self._settings.difficulty)
        head = head_motion(frames, FRAME_RATE, self._settings.frame_size, rng)
        images, lips = face.render(track, head, light(frames, rng), rng, expression)
        name = emotion.name if self._settings.emotions else ""
        return Clip(slot, images, wave, utterance.rate, words, phones, track, lips, voice, photograph, name)

    def _shown(self, slot: Slot, face: TalkingFace, emotion: Emotion) -> tuple[TalkingFace, Expression]:
        """The face of a clip: in a linked corpus it may belong to another voice."""
        rng = self._generator(_LINK, slot.split, slot.number)
        if self._settings.link is None or rng.uniform() < self._settings.link:
            return face, emotion.expression
        other, *_ = self._speaker(slot.split, int(rng.integers(slot.speakers)))
        return other, draw_blend(int(rng.integers(len(EMOTIONS))), rng).expression

    def _draw_speaker(self, split: str, number: int) -> tuple[TalkingFace, Voice, str]:
        rng = self._generator(_SPEAKER, split, number)
        voice, traits = draw_voice(split, number, rng), None
        if self._settings.link is not None:
            voice = replace(voice, tilt=self._generator(_TIMBRE, split, number).uniform(-1, 1))
            traits = Traits.of(voice)
        # Photographs in turn; whether mirrored is drawn.
        photographs = len(self._portraits) // 2
        portrait = self._portraits[2 * (number % photographs) + int(rng.integers(2))]
        look = draw_look(portrait, rng, traits)
        face = TalkingFace(look, self._settings.frame_size, self._settings.emotions)
        return face, voice, portrait.name

    def _generator(self, kind: int, split: str, number: int) -> np.random.Generator:
        return np.random.default_rng((self._settings.seed, kind, SPLITS.index(split), number))


def _tilted(wave: NDArray[np.int16], tilt: float) -> NDArray[np.int16]:
    """As loud as before, but brighter (`tilt` above 0) or darker."""
    if not tilt:
        return wave
    samples = wave.astype(np.float64)
    filtered = samples.copy()
    filtered[1:] -= _TILT * tilt * samples[:-1]
    scale = np.sqrt(np.square(samples).sum() / max(np.square(filtered).sum(), 1.0))
    return np.clip(np.round(filtered * scale), -32768, 32767).astype(np.int16)


def _on_air(
    utterance: Utterance, before: float, after: float, rng: np.random.Generator, loudness: float
) -> tuple[NDArray[np.int16], int]:
    """The utterance at some loudness, between seconds of silence, over a faint hiss; number of frames."""
    start = round(before * utterance.rate)
    # espeak-ng ends a sentence with a long pause of its own.
    frames = int(np.ceil((before + utterance.words[-1].end + after) * FRAME_RATE))
    wave = 30.0 * rng.standard_normal(frames * utterance.rate // FRAME_RATE)
    spoken = utterance.wave[: len(wave) - start]
    wave[start : start + len(spoken)] += spoken * (rng.uniform(0.5, 1) * loudness)
    return np.clip(np.round(wave), -32768, 32767).astype(np.int16), frames


def write(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _encoded(frames: Image, wave: NDArray[np.int16], rate: int) -> bytes:
    """Ordinary mp4: h264 and aac. `frames` RGB `[T, H, W, 3]`, `wave` `[N]` at `rate` Hz."""
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options=_X264)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1  # clips are made in parallel, and one thread is reproducible
        audio = container.add_stream("aac", rate=rate, layout="mono", options=_AAC)
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        sound = (wave / 32768).astype(np.float32)[None]
        for start in range(0, sound.shape[1], _AAC_FRAME):
            chunk = np.ascontiguousarray(sound[:, start : start + _AAC_FRAME])
            samples = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = rate, start
            container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
    return content.getvalue()
