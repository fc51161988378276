"""Transcription of a recording by a lip-reader: how much faster than real time, and what each stage costs.

    python benchmarks/realtime.py [VIDEO ...] [--seconds 180] [--heads ctc seq2seq] [--precisions bfloat16]

Prints a markdown table: seconds of work a second of recording, first of all cores together, then on the clock
(the real-time factor).  Stages run one after the other; ``transcribe``, the whole, crops while it recognises.
The recording is made of the VIDEOs, again and again, which need one size and codec; without VIDEO it is the
moving photograph of ``cropping.py``.  Weights are random.  So that searches do the work that a trained model
gives them, CTC's posteriors are as peaked as in ``decoding.py``, and attention decoders write a token for
five frames.  Set OMP_WAIT_POLICY=PASSIVE, as ``av-ssl transcribe`` does.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import av
import torch
from cropping import make_video
from decoding import ENCODERS, FRAMES_A_TOKEN, make_peaked, random_recogniser, symbols
from timing import machine

from av_ssl.data.text import TextEncoder
from av_ssl.layout import FRAME_RATE
from av_ssl.media.container import stated_seconds
from av_ssl.media.recording import Part, Recording
from av_ssl.media.video import VideoReader
from av_ssl.recognition.search import encode
from av_ssl.transcription.recogniser import Recogniser, RecogniserSpec
from av_ssl.transcription.recording import part_batches, transcribe_recording
from av_ssl.transcription.transcript import SearchOptions

STREAMS = ("video",)
TASK = {"modalities": "video", "normalize": True, "image_crop_size": 88}
Result = TypeVar("Result")


def joined(videos: Sequence[Path], seconds: float, path: Path) -> Path:
    """Videos one after the other, until they are long enough, without encoding them again."""
    chosen, length = [], 0.0
    for video in itertools.cycle(videos):
        if length >= seconds:
            break
        chosen.append(video.resolve())
        length += stated_seconds(video) or seconds
    names = path.with_suffix(".txt")
    names.write_text("".join(f"file '{video}'\n" for video in chosen), encoding="utf-8")
    listed = av.open(str(names), format="concat", options={"safe": "0"})
    with listed as source, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:  # the last of each stream is empty
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


def calibrate(head: torch.nn.Linear, features: torch.Tensor) -> None:
    """Let a head treat features ``[N, C]`` as normalised, which those of random weights are not."""
    mean, std = features.float().mean(0), features.float().std(0)
    with torch.no_grad():
        head.weight.div_(std)
        head.bias.sub_(head.weight @ mean)


def make_recogniser(kind: str, precision: str, size: str, beam: int, part: Part) -> Recogniser:
    """A recogniser of random weights that the part makes write as many tokens as a trained one."""
    dictionary = symbols(1000)
    model = random_recogniser(kind, size, dictionary)
    model.task_cfg, model.text_encoder = TASK, TextEncoder(dictionary)
    search = SearchOptions(beam, max_len_a=1 / FRAMES_A_TOKEN, max_len_b=0)
    spec = RecogniserSpec(Path("random.pt"), "video", "cpu", search)
    recogniser = Recogniser(spec, "cpu", model)
    if kind == "ctc":
        (batch,) = recogniser._batches([part], STREAMS)
        head, net_input = model.w2v_encoder.proj, batch["net_input"]
        make_peaked(head)
        with torch.no_grad():
            calibrate(head, model.w2v_encoder.encode(**net_input)[0])
    model.to(getattr(torch, precision))
    return recogniser


class Table:
    """Rows of a table: seconds of all cores, and of the clock, a second of recording."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def measure(self, name: str, work: Callable[[], Result]) -> Result:
        cores, clock = time.process_time(), time.perf_counter()
        result = work()
        cores, clock = time.process_time() - cores, time.perf_counter() - clock
        share = f"{cores / self.seconds:.3f} | {clock / self.seconds:.3f}"
        print(f"| {name} | {share} | {self.seconds / clock:.1f} x |", flush=True)
        return result


def decode(path: Path) -> int:
    """Read all frames; their number."""
    return sum(1 for _ in VideoReader(path, keep_bytes=0).stored_frames())


@torch.no_grad()
def run_encoder(recogniser: Recogniser, parts: Sequence[Part]) -> None:
    for own in part_batches(parts):
        for batch in recogniser._batches(own, STREAMS):
            encode([recogniser.model], batch["net_input"], ctc=False)


def measure(args: argparse.Namespace, path: Path) -> None:
    seconds = decode(path) / FRAME_RATE
    table = Table(seconds)
    print(f"{machine('cpu')}; {args.size}, video alone, beam {args.beam}; {seconds:.0f} s\n")
    print("| stage | core-seconds | real-time factor | faster than real time |\n|---|---:|---:|---:|")
    table.measure("decoding alone", lambda: decode(path))
    parts = table.measure("decoding, faces, crops", lambda: list(Recording(path, None, STREAMS).parts()))
    parts = [part for part in parts if part.frames is not None]
    part = max(parts, key=lambda one: one.end - one.start)
    for kind, precision in itertools.product(args.heads, args.precisions):
        recogniser = make_recogniser(kind, precision, args.size, args.beam, part)
        measure_recogniser(recogniser, f"{kind}, {precision}", table, parts, path)


def measure_recogniser(
    recogniser: Recogniser, name: str, table: Table, parts: Sequence[Part], path: Path
) -> None:
    recogniser.recognise(parts[:1], STREAMS)  # to warm up
    table.measure(f"{name}: encoder", lambda: run_encoder(recogniser, parts))
    table.measure(
        f"{name}: encoder and search",
        lambda: [recogniser.recognise(own, STREAMS) for own in part_batches(parts)],
    )
    transcript = table.measure(f"**{name}: transcribe**", lambda: transcribe_recording(recogniser, path))
    tokens = len(transcript.text.split()) / table.seconds
    print(f"| ({tokens:.1f} tokens a second were found) | | | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=180.0, help="of the recording (default: 180)")
    parser.add_argument("--size", choices=ENCODERS, default="base")
    parser.add_argument("--heads", nargs="+", choices=("ctc", "seq2seq"), default=["ctc"])
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--beam", type=int, default=SearchOptions.beam)
    args = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.mp4"
        if args.videos:
            joined(args.videos, args.seconds, path)
        else:
            make_video(path, round(args.seconds * FRAME_RATE))
        measure(args, path)


if __name__ == "__main__":
    main()
