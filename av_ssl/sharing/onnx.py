"""A recogniser's encoder and CTC head as one ONNX file, which needs neither torch nor fairseq.

    audio    int16 [1, 640 * T]     16 kHz, scale of int16
    video    uint8 [1, T, S, S]     grayscale mouth crops at 25 Hz, cropped to S pixels at the centre
    streams  float32 [2]            only in models of both: 1 for a stream that is given, audio first, else 0
    ->
    log_probs float32 [1, T, V]     of the dictionary's symbols; the blank is 0

T is any number from 2. Filterbanks, normalisation and everything else are inside. A stream that is not given
is one frame of zeros. The metadata hold what turns ``log_probs`` into text, see :func:`metadata`.
"""

from __future__ import annotations

import base64
import dataclasses
import inspect
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import av_ssl.tasks  # noqa: F401 - registers all models
from av_ssl.checkpoints.loading import assemble
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.data.clip_reader import ArrayClip, ClipReader
from av_ssl.data.reading import (
    ENERGY_FLOOR,
    FEATURE_DIM,
    FFT_SIZE,
    HOP,
    PRE_EMPHASIS,
    WINDOW,
    mel_filters,
)
from av_ssl.errors import DataError, optional_package
from av_ssl.inference import CENTRE, as_source, find_encoder, stored_reader
from av_ssl.io import write_atomically
from av_ssl.layout import SAMPLES_PER_FRAME, STREAMS, crop_side
from av_ssl.methods.encoder_model import EncoderModel, Source
from av_ssl.methods.fused_encoder import AudioVisualEncoder, Features
from av_ssl.recognition.heads import CTCModel, HybridModel
from av_ssl.transcription.onnx_recogniser import FORMAT, OnnxRecogniser

OPSET = 17
OLDEST_TORCH = (2, 6)  # the exporter of 2.1 crashes; those between were not tried
TOLERANCE = 1e-4
"""Largest difference to torch, absolute or relative, whichever is larger."""
LENGTHS = (31, 18)
"""Frames of the synthetic clips that the file is checked with; the first is traced."""
BLOCK = 80
"""Samples: window and hop of the filterbank are multiples of it."""


class FilterbankLayer(nn.Module):
    """:func:`~av_ssl.data.reading.audio_features` as operators of ONNX: int16 ``[1, 640 * T]`` ->
    ``[1, 104, T]``."""

    mel: Tensor
    spectrum: Tensor

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize
        angle = 2 * np.pi / FFT_SIZE * np.outer(np.arange(WINDOW), np.arange(FFT_SIZE // 2 + 1))
        # float64, because the weakest bins of a loud window are lost in the errors of a float32 sum.
        self.register_buffer("spectrum", torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)])))
        self.register_buffer("mel", mel_filters().double())

    def forward(self, audio: Tensor) -> Tensor:
        x = audio[0].double()
        x = torch.cat([x[:1], x[1:] - PRE_EMPHASIS * x[:-1]])
        blocks = F.pad(x, (0, BLOCK)).view(-1, BLOCK)
        wide, step = WINDOW // BLOCK, HOP // BLOCK
        windows = torch.cat([blocks[k : k - wide + 1 or None : step] for k in range(wide)], dim=1)
        power = (windows @ self.spectrum).square().sum(0) / FFT_SIZE
        energy = power @ self.mel
        x = torch.where(energy == 0, torch.full_like(energy, ENERGY_FLOOR), energy).log().float()
        x = F.pad(x, (0, 0, 0, 1)).reshape(-1, FEATURE_DIM)
        if self.normalize:
            x = F.layer_norm(x, (FEATURE_DIM,))
        return x.t()[None]


class CTCNetwork(nn.Module):
    """Streams of one clip -> log-probabilities; see the module's description.

    Args:
        encoder: of a recogniser.
        head: its CTC head, from the encoder's channels to the dictionary.
        reader: reads clips for the encoder in torch: its streams, and how they are prepared.
    """

    def __init__(self, encoder: EncoderModel, head: nn.Module, reader: ClipReader) -> None:
        super().__init__()
        self.encoder, self.head, self.reader = encoder, head, reader
        self.streams = reader.modalities
        self.filterbank = FilterbankLayer(reader.normalize) if reader.audio_input == "filterbank" else None

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip([*self.streams, "present"], inputs, strict=False))
        audio, video = given.get("audio"), given.get("video")
        if audio is not None and self.filterbank is not None:
            audio = self.filterbank(audio)
        if video is not None:
            video = video[:, None]
        source: Source = {"audio": audio, "video": video}
        if len(self.streams) == 1:
            x = self.encoder.transformer_input(source, None)
        else:
            x = self.fused(cast(AudioVisualEncoder, self.encoder), source, given["present"])
        return self.head(self.encoder.run_transformer(x, None, None)).log_softmax(-1)

    @staticmethod
    def fused(encoder: AudioVisualEncoder, source: Source, present: Tensor) -> Tensor:
        """The Transformer's input; the one frame of an absent stream becomes zeros of the other's length."""
        audio, video = encoder.front_ends(source, None)
        assert audio is not None
        assert video is not None
        both = Features(audio * present[0] + 0 * video, video * present[1] + 0 * audio)
        return encoder.project(encoder.join(both))


def export_onnx(stored: StoredModel, path: Path) -> list[Path]:
    """Write a recogniser with a CTC head as ONNX; it is compared with torch on synthetic clips before.

    Raises:
        DataError: the model is none, or its task section lacks an entry; a package is missing, or torch too
            old; the outputs differ by more than `TOLERANCE`; the file cannot be written.
    """
    onnx = optional_package("onnx", "onnx")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise DataError(f"ONNX files are written by torch {oldest} and newer; this is {torch.__version__}")
    network = network_of(stored)
    proto = traced(onnx, network)
    for key, value in metadata(stored, network.reader).items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    content = proto.SerializeToString()
    check_against_torch(OnnxRecogniser(path, content=content), network)
    write_atomically(path, content)
    return [path]


def network_of(stored: StoredModel) -> CTCNetwork:
    """The part of a recogniser that goes into the file; DataError where it has no CTC head."""
    # Compiled modules cannot be traced.
    cfg = {**stored.cfg, "model": {**stored.model_cfg, "compile": False}}
    model: Any = assemble(dataclasses.replace(stored, cfg=cfg))
    if isinstance(model, CTCModel):
        head: nn.Module = model.w2v_encoder.proj
    elif isinstance(model, HybridModel):
        head = model.ctc.proj
    else:
        raise DataError(
            f"{stored.path}: a model {stored.model_cfg['_name']!r} has no CTC head; ONNX is written of "
            "av_hubert_ctc and hybrid_ctc_attention"
        )
    if stored.text is None:
        raise DataError(f"{stored.path}: holds no dictionary; convert a recogniser that was fine-tuned here")
    encoder, streams = find_encoder(model, None, str(stored.path))
    reader = stored_reader(stored.task_cfg, streams, str(stored.path))
    return CTCNetwork(cast(EncoderModel, encoder), head, reader).eval()


def metadata(stored: StoredModel, reader: ClipReader) -> dict[str, Any]:
    """What a program needs to prepare the inputs and to read the output; each value is written as JSON.

    ``symbols`` are the dictionary's, by id; the first four are special.  ``tokenizer`` is a sentencepiece
    model in base64; null: each symbol is a word.
    """
    assert stored.text is not None
    tokenizer = stored.text["tokenizer"]
    return {
        "format": FORMAT,
        "model": stored.model_cfg["_name"],
        "streams": reader.modalities,
        "image_crop_size": reader.crop.size,
        "audio_input": reader.audio_input,
        "normalize": reader.normalize,
        "symbols": stored.text["symbols"],
        "tokenizer": None if tokenizer is None else base64.b64encode(tokenizer.numpy().tobytes()).decode(),
    }


def traced(onnx: Any, network: CTCNetwork) -> Any:
    """The network as ONNX, for any length."""
    frames, size = LENGTHS[0], network.reader.crop.size
    inputs = {
        "audio": torch.zeros(1, frames * SAMPLES_PER_FRAME, dtype=torch.int16),
        "video": torch.zeros(1, frames, size, size, dtype=torch.uint8),
        "streams": torch.ones(2),
    }
    names = [*network.streams, "streams"] if len(network.streams) > 1 else list(network.streams)
    options: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False  # the other exporter needs one more package
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that the tracer takes as constants, which they are
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            network, tuple(inputs[name] for name in names), str(file), input_names=names,
            output_names=["log_probs"], opset_version=OPSET,
            dynamic_axes={"audio": {1: "samples"}, "video": {1: "frames"}, "log_probs": {1: "frames"}},
            **options,
        )  # fmt: skip
        return onnx.load(str(file))


def check_against_torch(recogniser: OnnxRecogniser, network: CTCNetwork) -> None:
    """Raise DataError unless both give the same for clips of two lengths, also without one of two streams."""
    for frames in LENGTHS:
        audio, video = synthetic_clip(network.reader.crop.size, frames)
        for streams in recogniser.stream_choices:
            given = audio if "audio" in streams else None, video if "video" in streams else None
            found, expected = recogniser.log_probs(*given), log_probs_by_torch(network, *given)
            if found.shape != expected.shape or not np.allclose(found, expected, TOLERANCE, TOLERANCE):
                raise DataError(
                    f"{recogniser.path}: is not written, because for {' and '.join(streams)} of {frames} "
                    "frames onnxruntime gives other values than torch; please report it"
                )


def synthetic_clip(size: int, frames: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Noise as loud as speech, and frames as bright as skin, a little larger than the model takes."""
    rng = np.random.default_rng(frames)
    loudness = np.repeat(rng.uniform(0, 3000, frames), SAMPLES_PER_FRAME)
    audio = (rng.uniform(-1, 1, len(loudness)) * loudness).astype(np.int16)
    side = crop_side(size)
    return audio, rng.integers(60, 180, (frames, side, side), dtype=np.uint8)


@torch.inference_mode()
def log_probs_by_torch(
    network: CTCNetwork, audio: NDArray[np.int16] | None, video: NDArray[np.uint8] | None
) -> NDArray[np.float32]:
    """Log-probabilities ``[T, V]`` of a clip that is read as in validation."""
    given = {"audio": audio, "video": video}
    streams = tuple(stream for stream in STREAMS["av"] if given[stream] is not None)
    reader = dataclasses.replace(network.reader, modalities=streams)
    sample = reader.read(0, ArrayClip.of("clip", video, audio), [], CENTRE)
    x, _ = network.encoder.extract_features(as_source(sample))
    return network.head(x).log_softmax(-1)[0].numpy()
