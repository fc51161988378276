"""A clip on disk: `SPLIT/SPEAKER/CLIP.mp4` and `.txt`, and `alignments/SPLIT/SPEAKER/CLIP.json`.

Where there are emotions, `CLIP.emo` and `CLIP.spk` beside the video name emotion and speaker.

The transcript has LRS3's form (Afouras et al., 2018): `Text:`, `Conf:`, an empty line and the times of the
words. The alignment holds what only a synthetic corpus knows: the times of the phones, the viseme track and
where the lips are.

Every file is written under a temporary name and then renamed, so a file that is there is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from corpus.clip import FRAME_RATE, Clip, Slot
from corpus.speech import Timed
from corpus.visemes import DIMENSIONS

_X264 = {"preset": "superfast", "crf": "20"}
_AAC = {"aac_coder": "fast"}  # a third of the default coder's time, which would equal that of the pictures
_AAC_FRAME = 1024  # samples


def paths_of(root: Path, slot: Slot) -> tuple[Path, Path, Path]:
    """Video, transcript and alignment of a clip."""
    video = root / f"{slot.name}.mp4"
    return video, video.with_suffix(".txt"), root / "alignments" / f"{slot.name}.json"


def is_finished(root: Path, slot: Slot) -> bool:
    """Whether all files of a clip are there."""
    return all(path.is_file() for path in paths_of(root, slot))


def write_clip(root: Path, clip: Clip) -> None:
    """Write a clip's files, the video last. Raises `OSError`, e.g. when the disk is full."""
    video, transcript, alignment = paths_of(root, clip.slot)
    for folder in (video.parent, alignment.parent):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(transcript, transcript_of(clip))
    write_text(alignment, alignment_of(clip))
    if clip.emotion:
        write_text(video.with_suffix(".emo"), f"{clip.emotion}\n")
        write_text(video.with_suffix(".spk"), f"{clip.slot.speaker_name}\n")
    with _renamed_when_done(video) as unfinished:
        try:
            _write_video(unfinished, clip.frames, clip.wave, clip.rate)
        except av.FFmpegError as error:  # which does not survive the way back from a worker process
            raise OSError(error.errno, f"cannot be written: {error.strerror}", str(video)) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with _renamed_when_done(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def transcript_of(clip: Clip) -> str:
    """The transcript in LRS3's form; times in seconds."""
    lines = [
        f"Text:  {' '.join(word.label.upper() for word in clip.words)}",
        "Conf:  1",
        "",
        "WORD START END",
    ]
    lines += [f"{word.label.upper()} {word.start:.2f} {word.end:.2f}" for word in clip.words]
    return "\n".join(lines) + "\n"


def alignment_of(clip: Clip) -> str:
    """The alignment: times in seconds, `visemes` a row a frame with named `columns`, `lips` in pixels."""

    def rows(times: tuple[Timed, ...]) -> list[tuple[str, float, float]]:
        return [(timed.label, round(timed.start, 4), round(timed.end, 4)) for timed in times]

    document = {
        "id": clip.slot.name,
        "speaker": clip.slot.speaker_name,
        "voice": asdict(clip.voice),
        "photograph": clip.photograph,
        **({"emotion": clip.emotion} if clip.emotion else {}),
        "frame_rate": FRAME_RATE,
        "words": rows(clip.words),
        "phones": rows(clip.phones),
        "visemes": {"columns": DIMENSIONS, "rows": _rounded(clip.track, 3)},
        "lips": {name: _rounded(value, 2) for name, value in asdict(clip.lips).items()},
    }
    return json.dumps(document) + "\n"


def _rounded(values: NDArray[np.float64], digits: int) -> object:
    return np.round(values, digits).tolist()


@contextmanager
def _renamed_when_done(path: Path) -> Iterator[Path]:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_video(path: Path, frames: NDArray[np.uint8], wave: NDArray[np.int16], rate: int) -> None:
    """Ordinary mp4: h264 and aac. `frames` uint8 RGB `[T, H, W, 3]`, `wave` int16 `[N]` at `rate` Hz."""
    with av.open(str(path), "w", format="mp4") as container:
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
