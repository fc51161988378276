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
from av_ssl.data.clip_reader import STREAMS
from av_ssl.data.reading import (
    ENERGY_FLOOR,
    FFT_SIZE,
    HOP,
    PRE_EMPHASIS,
    FEATURE_DIM,
    WINDOW,
    audio_features,
    frame_waveform,
    mel_filters,
)
from av_ssl.errors import DataError
from av_ssl.inference import find_encoder, stored_streams
from av_ssl.io import write_atomically
from av_ssl.layout import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from av_ssl.methods.encoder_model import EncoderModel
from av_ssl.methods.fused_encoder import AudioVisualEncoder, Features
from av_ssl.recognition.heads import CTCModel, HybridModel

FORMAT = "av_ssl onnx 1"
OPSET = 17
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
        filterbank: None for encoders of waveforms.
        streams: that it takes.
    """

    def __init__(
        self, encoder: EncoderModel, head: nn.Module, filterbank: nn.Module | None, streams: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.filterbank, self.streams = encoder, head, filterbank, streams

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip([*self.streams, "present"], inputs, strict=False))
        audio, video = given.get("audio"), given.get("video")
        if audio is not None and self.filterbank is not None:
            audio = self.filterbank(audio)
        if video is not None:
            video = video[:, None]
        source = {"audio": audio, "video": video}
        if len(self.streams) == 1:
            x = self.encoder.transformer_input(source, None)
        else:
            x = self.fused(cast(AudioVisualEncoder, self.encoder), source, given["present"])
        return self.head(self.encoder.run_transformer(x, None, None)).log_softmax(-1)

    @staticmethod
    def fused(encoder: AudioVisualEncoder, source: dict[str, Tensor | None], present: Tensor) -> Tensor:
        """The Transformer's input; the one frame of an absent stream becomes zeros of the other's length."""
        audio, video = encoder.front_ends(source, None)
        assert audio is not None
        assert video is not None
        both = Features(audio * present[0] + 0 * video, video * present[1] + 0 * audio)
        return encoder.project(encoder.join(both))


def export_onnx(stored: StoredModel, path: Path) -> list[Path]:
    """Write a recogniser with a CTC head as ONNX, after a comparison with torch on synthetic clips.

    Raises:
        DataError: the model is none, its streams are not in its task section, a package is missing, the
            outputs differ by more than `TOLERANCE`, or the file cannot be written.
    """
    try:
        import onnx  # an extra
        import onnxruntime
    except ModuleNotFoundError as error:
        raise DataError(f"{error.name} is not installed; pip install 'av_ssl[onnx]'") from error
    model = assemble(without_compile(stored))
    streams = streams_of(stored)
    network = network_of(model, streams, stored)
    clips = [synthetic_clip(stored, streams, frames) for frames in LENGTHS]
    proto = traced(onnx, network, streams, clips[0])
    for key, value in metadata(stored, streams).items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for clip in clips:
        compare_with_torch(session, model, network, stored, clip)
    write_atomically(path, content)
    return [path]


def without_compile(stored: StoredModel) -> StoredModel:
    """The same model; compiled modules cannot be traced."""
    return dataclasses.replace(stored, cfg={**stored.cfg, "model": {**stored.model_cfg, "compile": False}})


def streams_of(stored: StoredModel) -> tuple[str, ...]:
    streams = stored_streams(stored.task_cfg)
    if streams is None:
        raise DataError(f"{stored.path}: its task section does not say which streams it was trained with")
    return streams


def network_of(model: Any, streams: tuple[str, ...], stored: StoredModel) -> CTCNetwork:
    """The part of a recogniser that goes into the file; DataError where it has no CTC head."""
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
    encoder, _ = find_encoder(model, name_of(streams), str(stored.path))
    filterbank = None
    if str(stored.task_cfg.get("audio_input") or "filterbank") == "filterbank":
        filterbank = FilterbankLayer(bool(stored.task_cfg.get("normalize")))
    return CTCNetwork(cast(EncoderModel, encoder), head, filterbank, streams).eval()


def name_of(streams: tuple[str, ...]) -> str:
    return next(name for name, choice in STREAMS.items() if choice == streams)


def metadata(stored: StoredModel, streams: tuple[str, ...]) -> dict[str, Any]:
    """What a program needs to prepare the inputs and to read the output; each value is written as JSON.

    ``symbols`` are the dictionary's, by id; the first four are special.  ``tokenizer`` is a sentencepiece
    model in base64; null: the symbols are words.
    """
    assert stored.text is not None
    tokenizer = stored.text["tokenizer"]
    return {
        "format": FORMAT,
        "method": stored.model_cfg["_name"],
        "streams": list(streams),
        "sample_rate": SAMPLE_RATE,
        "frame_rate": FRAME_RATE,
        "image_crop_size": int(stored.task_cfg.get("image_crop_size") or 0),
        "audio_input": str(stored.task_cfg.get("audio_input") or "filterbank"),
        "normalize": bool(stored.task_cfg.get("normalize")),
        "symbols": stored.text["symbols"],
        "tokenizer": None if tokenizer is None else base64.b64encode(tokenizer.numpy().tobytes()).decode(),
    }


Clip = dict[str, NDArray[Any]]


def synthetic_clip(stored: StoredModel, streams: tuple[str, ...], frames: int) -> Clip:
    """Noise as loud as speech and as bright as skin, in the inputs of the file."""
    rng = np.random.default_rng(frames)
    clip: Clip = {}
    if "audio" in streams:
        loudness = np.repeat(rng.uniform(0, 3000, frames), SAMPLES_PER_FRAME)
        clip["audio"] = np.clip(rng.normal(0, 1, len(loudness)) * loudness, -32768, 32767).astype(np.int16)[None]
    if "video" in streams:
        size = int(stored.task_cfg.get("image_crop_size") or 0)
        if not size:
            raise DataError(f"{stored.path}: its task section has no image_crop_size")
        clip["video"] = rng.integers(60, 180, (1, frames, size, size), dtype=np.uint8)
    return clip


def with_presence(clip: Clip, streams: tuple[str, ...]) -> Clip:
    """All inputs of the file for a clip, which may lack a stream of a model of both."""
    if len(streams) == 1:
        return clip
    size = clip["video"].shape[2] if "video" in clip else None
    del size
    return clip


def traced(onnx: Any, network: CTCNetwork, streams: tuple[str, ...], clip: Clip) -> Any:
    """The network as ONNX, any length."""
    names = list(clip) + ["streams"] * (len(streams) == 2)
    inputs = [torch.from_numpy(value) for value in clip.values()] + [torch.ones(2)] * (len(streams) == 2)
    options: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False  # the other exporter needs a further package, and fixes the lengths
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants that come from the configuration
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            network, tuple(inputs), str(file), input_names=names, output_names=["log_probs"],
            dynamic_axes={"audio": {1: "samples"}, "video": {1: "frames"}, "log_probs": {1: "frames"}},
            opset_version=OPSET, **options,
        )  # fmt: skip
        return onnx.load(str(file))


def compare_with_torch(
    session: Any, model: Any, network: CTCNetwork, stored: StoredModel, clip: Clip
) -> None:
    raise NotImplementedError
