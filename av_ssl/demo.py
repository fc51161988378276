"""A page in a browser on this machine: the text of a recording from lips, from sound in noise, and from both.

Uploads and what is made of them lie in a folder of their own, which is deleted when the page ends; files that
are older than `KEPT` seconds are deleted before.  Nothing is sent to another machine.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av_ssl.checkpoints.files import CONFIG
from av_ssl.data.noise import add_noise
from av_ssl.errors import DataError
from av_ssl.layout import SAMPLE_RATE, STREAMS
from av_ssl.media.audio import read_audio
from av_ssl.media.container import stated_seconds
from av_ssl.media.recording import MouthCrops, NoFaceError, crop_recording
from av_ssl.media.video import write_video
from av_ssl.model import Model
from av_ssl.transcription.recording import RecordingOptions, transcribe_recording
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
        named = [(model.path.name, model.recogniser()) for model in models]
        self.recognisers: dict[str, tuple[str, SpeechRecogniser]] = {}
        for modality in SHOWN:
            streams = STREAMS[modality]
            taking = [pair for pair in named if streams in map(tuple, pair[1].stream_choices)]
            taking.sort(key=lambda pair: tuple(pair[1].stream_choices[0]) != streams)
            if taking:
                self.recognisers[modality] = taking[0]

    def of(self, recording: Path, snr: float) -> tuple[MouthCrops | None, Samples | None, list[list[str]]]:
        """Mouth crops, the sound with babble, and a row of text a set of streams.

        Args:
            recording: a video.
            snr: of the babble, in dB; from `QUIETEST` on there is none.

        Raises:
            DataError: the recording is too long, cannot be read, or shows no face and has no sound.
        """
        seconds = stated_seconds(recording)
        if seconds is not None and seconds > LONGEST:
            raise DataError(f"the recording lasts {seconds:.0f} s; this page takes up to {LONGEST} s")
        crops: dict[int, MouthCrops] = {}
        sound: Samples | None = None
        rows = []
        for modality, (name, recogniser) in self.recognisers.items():
            try:
                if modality != "audio" and recogniser.crop_side not in crops:
                    crops[recogniser.crop_side] = crop_recording(recording, size=recogniser.crop_side)
                if modality != "video" and sound is None:
                    sound = with_babble(read_audio(recording), snr)
                mouth = None if modality == "audio" else crops[recogniser.crop_side].frames
                source = sound if mouth is None else mouth
                options = RecordingOptions(modalities=modality, word_times=True)
                found = transcribe_recording(recogniser, source, options, sound)
                rows.append([SHOWN[modality], found.text, times(found), name])
            except NoFaceError:
                rows.append([SHOWN[modality], "", "no face is seen", name])
        if not crops and sound is None:
            raise DataError("no face is seen in the recording; show one from the front")
        return next(iter(crops.values()), None), sound, rows


def with_babble(clean: Samples, snr: float) -> Samples:
    """Sound with voices that are itself, shifted, half of them reversed: the spectrum of speech [ours]."""
    if snr >= QUIETEST or not len(clean):
        return clean
    shifts = [len(clean) * voice // VOICES for voice in range(VOICES)]
    voices = [np.roll(clean[:: (-1, 1)[voice % 2]], shift) for voice, shift in enumerate(shifts)]
    return add_noise(clean, np.mean(voices, axis=0, dtype=np.float32), snr)


def times(transcript: Transcript) -> str:
    """Each word with its start and end in seconds."""
    words = [word for segment in transcript.segments for word in segment.words]
    return ", ".join(f"{word.word} {word.start:.2f}-{word.end:.2f}" for word in words)


# -- the page ------------------------------------------------------------------------------------------------

ABOUT = """# Lips, sound and both
Drop a video of a face that speaks, or record one, and choose how loud the babble is.
Noise changes what is recognised from sound; lips stay the same."""


def gradio_package() -> Any:
    """The package, which is an optional extra and must not call its makers."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise DataError(f"{error.name} is not installed; pip install 'av_ssl[demo]'") from error
    return gradio


def build_page(gradio: Any, comparison: Comparison, folder: Path) -> Any:
    """The page; what it makes is written to ``folder``."""

    def recognise(recording: str | None, snr: float) -> tuple[str | None, Any, list[list[str]]]:
        if recording is None:
            raise gradio.Error("drop a video first, or record one")
        try:
            crops, sound, rows = comparison.of(Path(recording), snr)
        except DataError as error:
            raise gradio.Error(str(error).replace(recording, Path(recording).name)) from error
        video = None
        if crops is not None:
            handle, video = tempfile.mkstemp(suffix=".mp4", dir=folder)
            os.close(handle)
            write_video(Path(video), crops.frames)
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
            headers=["from", "text", "words, seconds", "model"], interactive=False, wrap=True, elem_id="texts"
        )
        sound = gradio.Audio(label="sound with babble", interactive=False)
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
    gradio = gradio_package()
    comparison = Comparison(Model(path, device) for path in model_paths(paths))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # files are deleted then, too
    with tempfile.TemporaryDirectory(prefix="av-ssl-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(gradio, comparison, Path(folder))
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
