"""Transcription of a recording: the real-time factor of each stage, and of everything together.

    python benchmarks/realtime.py [VIDEO ...] [--seconds 180] [--head ctc seq2seq] [--precision float32 bfloat16]

Prints a markdown table: seconds of work a second of recording, of all cores together and on the clock. The
recording is the VIDEOs one after the other, of equal size and codec, as the clips of one GRID speaker are;
without VIDEO it is the moving photograph of ``cropping.py``. Weights are random, with the shape of Base; see
``decoding.py`` for how its outputs are made as peaked as those of a trained model.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import torch
from cropping import make_video
from decoding import ENCODERS, FRAMES_A_TOKEN, make_peaked, random_recogniser, symbols
from timing import machine

from av_ssl.data.text import TextEncoder
from av_ssl.layout import FRAME_RATE
from av_ssl.media.audio import read_audio
from av_ssl.media.recording import Part, Recording
from av_ssl.media.video import VideoReader
from av_ssl.transcription.recogniser import PRECISIONS, Recogniser, RecogniserSpec
from av_ssl.transcription.recording import transcribe_recording
from av_ssl.transcription.transcript import SearchOptions

STREAMS = ("video",)


@contextmanager
def timed(rows: dict[str, tuple[float, float]], name: str) -> Iterator[None]:
    """Add seconds of all cores, and of the clock, to ``rows``."""
    cores, clock = time.process_time(), time.perf_counter()
    yield
    rows[name] = time.process_time() - cores, time.perf_counter() - clock
