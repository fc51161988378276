"""A page in a browser on this machine: the text of a recording from lips, from sound in noise, and from both.

Uploads and what is made of them lie in a folder of their own, which is deleted when the page ends; files that
are older than `KEPT` seconds are deleted before.  Nothing is sent to another machine.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.checkpoints.files import CONFIG
from av_ssl.data.noise import add_noise
from av_ssl.errors import DataError, optional_package
from av_ssl.layout import FRAME_RATE, SAMPLE_RATE, STREAMS
from av_ssl.media.audio import read_audio
from av_ssl.media.container import stated_seconds
from av_ssl.media.recording import Part, Recording
from av_ssl.media.video import write_video
from av_ssl.model import Model
from av_ssl.transcription.recording import Heard, joined
from av_ssl.transcription.transcript import SpeechRecogniser, Transcript

LARGEST = "50mb"
"""Of an upload."""
LONGEST = 60
"""Seconds of a recording."""
KEPT = 600
"""Seconds that files are kept while the page runs."""
SHOWN = {"video": "lips", "audio": "sound", "av": "both"}
QUIETEST = 30
"""Signal-to-noise ratio in dB at which no noise is added."""
VOICES = 6
FINISHED = Path("out") / "demo"
"""Where ``make demo`` puts its models."""

Samples = NDArray[np.int16]


def model_paths(named: Sequence[Path]) -> list[Path]:
    """The models that are meant: files, shared folders, or the folder of a finished ``make demo``.

    Raises DataError if a path is none of these.
    """
    found = []
    for path in named or [FINISHED]:
        if path.is_dir() and not (path / CONFIG).is_file():
            trained = sorted(path.glob("seed_*/checkpoints/av2vec_*/checkpoint_last.pt"))
            if not trained:
                raise DataError(f"{path}: holds no models; run make demo, or name models")
            found += [each for each in trained if each.parts[-4] == trained[0].parts[-4]]
        else:
            found.append(path)
    for path in found:
        if not path.exists():
            raise DataError(f"{path}: there is no such model; name models, or run make demo")
    return found


class Comparison:
    """Recognises one recording from each set of streams that the models take.

    Args:
        models: a set of streams is given to the first model that was trained with it, or else takes it.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        named = [("/".join(model.path.parts[-2:]), model.recogniser()) for model in models]
        self.recognisers: dict[str, tuple[str, SpeechRecogniser]] = {}
        for modality in SHOWN:
            streams = STREAMS[modality]
            taking = [pair for pair in named if streams in map(tuple, pair[1].stream_choices)]
            taking.sort(key=lambda pair: tuple(pair[1].stream_choices[0]) != streams)
            if taking:
                self.recognisers[modality] = taking[0]

    def of(
        self, recording: Path, snr: float
    ) -> tuple[NDArray[np.uint8] | None, Samples | None, list[list[str]]]:
        """Mouth crops ``[T, S, S]``, the sound with babble, and a row of text a set of streams.

        Args:
            recording: a video.
            snr: of the babble, in dB; from `QUIETEST` on there is none.

        Raises:
            DataError: the recording is too long or cannot be read.
        """
        seconds = stated_seconds(recording)
        if seconds is not None and seconds > LONGEST:
            raise DataError(f"the recording lasts {seconds:.0f} s; this page takes up to {LONGEST} s")
        sides = {recogniser.crop_side for _, recogniser in self.recognisers.values()}
        parts = {side: list(Recording(recording, size=side).parts()) for side in sides}
        found = next(iter(parts.values()))
        sound = None
        if any(part.samples is not None for part in found):
            sound = with_babble(read_audio(recording), snr)
        rows = []
        for modality, (name, recogniser) in self.recognisers.items():
            noisy = [with_sound(part, sound) for part in parts[recogniser.crop_side]]
            rows.append([SHOWN[modality], *recognised(recogniser, noisy, STREAMS[modality]), name])
        return crops_of(found), sound, rows


def with_sound(part: Part, sound: Samples | None) -> Part:
    """The part with its stretch of another sound."""
    if part.samples is None or sound is None:
        return part
    start = round(part.start * SAMPLE_RATE)
    samples = sound[start : start + len(part.samples)]
    return replace(part, samples=np.pad(samples, (0, len(part.samples) - len(samples))))


def recognised(recogniser: SpeechRecogniser, parts: Sequence[Part], streams: tuple[str, ...]) -> list[str]:
    """The text of the parts that have these streams, and each word with its start and end in seconds."""
    needed = {"audio": "samples", "video": "frames"}
    there = [part for part in parts if all(getattr(part, needed[stream]) is not None for stream in streams)]
    if not there:
        return ["", "no face is seen" if "video" in streams else "no sound"]
    results = recogniser.recognise(there, streams, word_times=True)
    pairs = zip(there, results, strict=True)
    transcript = Transcript(joined(Heard(part.start, part.end, streams, result) for part, result in pairs))
    words = [word for segment in transcript.segments for word in segment.words]
    return [transcript.text, ", ".join(f"{word.word} {word.start:.2f}-{word.end:.2f}" for word in words)]


def crops_of(parts: Sequence[Part]) -> NDArray[np.uint8] | None:
    """All mouth crops once, though parts overlap; None without a face."""
    frames: dict[int, NDArray[np.uint8]] = {}
    for part in parts:
        if part.frames is not None:
            frames.update(enumerate(part.frames, round(part.start * FRAME_RATE)))
    return np.stack([frames[number] for number in sorted(frames)]) if frames else None


def with_babble(clean: Samples, snr: float) -> Samples:
    """Sound with voices that are itself, shifted, half of them reversed: the spectrum of speech [ours]."""
    if snr >= QUIETEST or not len(clean):
        return clean
    shifts = [len(clean) * voice // VOICES for voice in range(VOICES)]
    voices = [np.roll(clean[:: (-1, 1)[voice % 2]], shift) for voice, shift in enumerate(shifts)]
    return add_noise(clean, np.mean(voices, axis=0, dtype=np.float32), snr)


# -- the page ------------------------------------------------------------------------------------------------

ABOUT = """# Lips, sound and both
Drop a video of a face that speaks, or record one, and choose how loud the babble is.
Noise changes what is recognised from sound; lips stay the same."""


def gradio_package(folder: str) -> Any:
    """The package, an optional extra, which must not call its makers and keeps its files in ``folder``."""
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    return optional_package("gradio", "demo")


def build_page(gradio: Any, comparison: Comparison, folder: Path) -> Any:
    """The page; what it makes is written to ``folder``."""

    def recognise(recording: str | None, snr: float) -> tuple[str | None, Any, list[list[str]]]:
        if recording is None:
            raise gradio.Error("drop a video first, or record one", print_exception=False)
        try:
            crops, sound, rows = comparison.of(Path(recording), snr)
        except DataError as error:
            text = str(error).replace(recording, Path(recording).name)
            raise gradio.Error(text, print_exception=False) from error
        video = None
        if crops is not None:
            handle, video = tempfile.mkstemp(suffix=".mp4", dir=folder)
            os.close(handle)
            write_video(Path(video), crops)
        return video, None if sound is None else (SAMPLE_RATE, sound), rows

    with gradio.Blocks(title="av_ssl", analytics_enabled=False, delete_cache=(KEPT // 10, KEPT)) as page:
        gradio.Markdown(ABOUT)
        with gradio.Row():
            options = gradio.WebcamOptions(mirror=False)
            recording = gradio.Video(label="recording", webcam_options=options, height=300)
            crop = gradio.Video(label="crop of the mouth", interactive=False, autoplay=True, height=300)
        snr = gradio.Slider(
            -10, QUIETEST, QUIETEST, step=5, label=f"signal to noise, dB ({QUIETEST}: no babble)"
        )
        button = gradio.Button("Recognise", variant="primary", elem_id="recognise")
        table = gradio.Dataframe(
            headers=["from", "text", "words, seconds", "model"], column_widths=["7%", "27%", "42%", "24%"],
            elem_id="texts", interactive=False, wrap=True,
        )  # fmt: skip
        sound = gradio.Audio(label="sound with babble", interactive=False, buttons=["download"])
        button.click(recognise, [recording, snr], [crop, sound, table], concurrency_limit=1)
    return page


def serve(paths: Sequence[Path], port: int | None = None, device: str = "auto") -> None:
    """Show the page until the process is interrupted; its address is printed.

    Args:
        paths: see `model_paths`.
        port: of 127.0.0.1; None: the first that is free from 7860 on.
        device: see `av_ssl.load`.

    Raises:
        DataError: gradio is missing, or a model cannot be used.
    """
    comparison = Comparison(Model(path, device) for path in model_paths(paths))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # files are deleted then, too
    with tempfile.TemporaryDirectory(prefix="av-ssl-demo-") as folder:
        page = build_page(gradio_package(folder), comparison, Path(folder))
        try:
            page.launch(
                server_name="127.0.0.1", server_port=port, share=False, max_file_size=LARGEST, ssr_mode=False,
                footer_links=[], quiet=True, prevent_thread_lock=True, allowed_paths=[folder],
            )  # fmt: skip
        except OSError as error:
            raise DataError(f"--port {port}: {error}") from error
        print(f"{page.local_url} (Ctrl-C ends it)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)
