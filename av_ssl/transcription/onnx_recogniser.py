"""A recogniser of recordings in ONNX, by numpy, onnxruntime and sentencepiece, without torch or fairseq.

`av_ssl.sharing.onnx` writes such files and describes their inputs and outputs.
"""

from __future__ import annotations

import base64
import json
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from av_ssl.errors import DataError, MediaError, explained, optional_package
from av_ssl.io import composed, unicode_form
from av_ssl.layout import LARGEST_FRAME, SAMPLES_PER_FRAME, STREAMS, crop_side
from av_ssl.recognition.prefix_search import prefix_search
from av_ssl.transcription.hypotheses import confidence
from av_ssl.transcription.transcript import Recognition, Word
from av_ssl.transcription.word_times import Spelling, align, loudness, spell, spell_text

if TYPE_CHECKING:
    from av_ssl.media.recording import Part

FORMAT = "av_ssl onnx 1"
UNUSABLE = "cannot be used by onnxruntime; convert the model again"
SPECIAL = 4
"""Symbols of every dictionary, `<s>` (the blank), `<pad>`, `</s>` and `<unk>`, which are never output."""
SHORTEST = 2
"""Frames of a part; the network takes no fewer."""
Features = NDArray[np.float32]


class OnnxRecogniser:
    """CTC recognition by a file that `av-ssl model convert` wrote.

    Args:
        path: the file, for messages, too.
        beam: prefixes kept by the search; 1 is greedy.
        content: of the file, if it was read already.

    Raises:
        DataError: onnxruntime is missing; the file is damaged, no ONNX, or was not written by this package.
    """

    def __init__(self, path: Path, beam: int = 20, content: bytes | None = None) -> None:
        self.path, self.beam = path, beam
        self.session = open_session(path, content)
        meta = self.session.get_modelmeta().custom_metadata_map
        if meta.get("format") != json.dumps(FORMAT):
            raise DataError(
                f"{path}: its metadata have no format {FORMAT!r}; name an ONNX file of av-ssl model convert"
            )
        try:
            self.streams = tuple(map(str, json.loads(meta["streams"])))
            self.symbols = list(map(str, json.loads(meta["symbols"])))
            self.crop_size = int(json.loads(meta["image_crop_size"]))
            self.tokenizer = open_tokenizer(json.loads(meta["tokenizer"]))
            if self.session.get_outputs()[0].shape[-1] != len(self.symbols):
                raise ValueError(f"{len(self.symbols)} symbols")
        except (LookupError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise DataError(f"{path}: its metadata are damaged ({error}); convert the model again") from error

    @property
    def stream_choices(self) -> Sequence[tuple[str, ...]]:
        """Sets of streams that it accepts."""
        single = [(stream,) for stream in self.streams]
        return [self.streams, *single] if len(single) > 1 else single

    @property
    def crop_side(self) -> int:
        """Side of the mouth crops of its parts, in pixels."""
        return crop_side(self.crop_size)

    def recognise(
        self, parts: Sequence[Part], streams: tuple[str, ...], word_times: bool = False
    ) -> list[Recognition]:
        """See `SpeechRecogniser`; raises DataError for streams that the model does not take."""
        outputs = self.ctc_log_probs(parts, streams)
        sounds = [part.samples if "audio" in streams else None for part in parts]
        return [self._recognition(*one, word_times) for one in zip(outputs, sounds, strict=True)]

    def ctc_log_probs(self, parts: Sequence[Part], streams: tuple[str, ...]) -> list[Features]:
        """`log_probs` of these streams of each part."""
        return [
            self.log_probs(
                part.samples if "audio" in streams else None, part.frames if "video" in streams else None
            )
            for part in parts
        ]

    def spell_text(self, text: str) -> list[list[Spelling]]:
        """The words of each line of a text with their tokens, see `word_times.spell_text`."""
        form = unicode_form(self.symbols)

        def encode(word: str) -> list[str]:
            word = unicodedata.normalize(form, word)
            if self.tokenizer is None:
                return [word] if word else []
            return list(self.tokenizer.encode(word.lower(), out_type=str))

        return spell_text(text, encode, {symbol: id for id, symbol in enumerate(self.symbols)})

    def log_probs(self, audio: NDArray[np.int16] | None, video: NDArray[np.uint8] | None) -> Features:
        """Log-probabilities of one clip.

        Args:
            audio: samples `[N]` at 16 kHz; with video, they are cut or padded to its length.
            video: grayscale mouth crops `[T, H, W]` at 25 Hz.

        Returns:
            `[T, V]`; T is the number of frames, or of entire frames of audio.
        """
        given = {"audio": audio, "video": video}
        streams = tuple(stream for stream in STREAMS["av"] if given[stream] is not None)
        if streams not in self.stream_choices:
            raise DataError(
                f"{self.path}: takes {' and '.join(self.streams)}, not {' and '.join(streams) or 'nothing'}"
            )
        frames = len(video) if video is not None else len(audio) // SAMPLES_PER_FRAME  # type: ignore[arg-type]
        if frames < SHORTEST:
            return np.zeros((0, len(self.symbols)), np.float32)
        inputs: dict[str, Any] = {}
        if "audio" in self.streams:
            inputs["audio"] = np.zeros((1, SAMPLES_PER_FRAME), np.int16)
            if audio is not None:
                wave = audio[: frames * SAMPLES_PER_FRAME]
                inputs["audio"] = np.pad(wave, (0, frames * SAMPLES_PER_FRAME - len(wave)))[None]
        if "video" in self.streams:
            inputs["video"] = np.zeros((1, 1, self.crop_size, self.crop_size), np.uint8)
            if video is not None:
                inputs["video"] = np.ascontiguousarray(self._cropped(video))[None]
        if len(self.streams) > 1:
            inputs["streams"] = np.array([audio is not None, video is not None], np.float32)
        with explained(f"{self.path}: {UNUSABLE}", "onnxruntime"):
            found: Features = self.session.run(["log_probs"], inputs)[0][0]
        return found

    def _cropped(self, video: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The centre of the frames, as the model was validated on it."""
        size = self.crop_size
        free = [side - size for side in video.shape[1:]]
        if min(free) < 0:
            raise MediaError(
                f"frames of {video.shape[2]}x{video.shape[1]} pixels are smaller than the {size} that "
                f"{self.path} takes; crop the mouth again at {self.crop_side} pixels"
            )
        if max(video.shape[1:]) > LARGEST_FRAME * size:
            raise MediaError(
                f"frames of {video.shape[2]}x{video.shape[1]} pixels are no mouth crops for {self.path} "
                f"({size} to {int(LARGEST_FRAME * size)}); crop the video at {self.crop_side} pixels"
            )
        top, left = (round(side / 2) for side in free)
        return video[:, top : top + size, left : left + size]

    def _recognition(
        self, log_probs: Features, samples: NDArray[np.int16] | None, word_times: bool
    ) -> Recognition:
        log_probs[:, 1:SPECIAL] = -math.inf
        tokens, score = prefix_search(log_probs, self.beam)[0]
        symbols = [self.symbols[token] for token in tokens]
        text = " ".join(symbols) if self.tokenizer is None else str(self.tokenizer.decode_pieces(symbols))
        words: tuple[Word, ...] = ()
        if word_times:
            levels = None if samples is None else loudness(samples)
            words = align(log_probs, spell(symbols, tokens, self.tokenizer is not None), levels)
        return Recognition(composed(text), confidence(score, len(tokens)), words)


def open_session(path: Path, content: bytes | None) -> Any:
    """The network on the CPU; DataError if the package is missing or the file cannot be used."""
    onnxruntime = optional_package("onnxruntime", "onnx")
    if content is None and not path.is_file():
        raise DataError(f"{path}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is in the exception
    # Threads that wait would keep the cores busy on which the next part is cropped.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with explained(f"{path}: {UNUSABLE}", "onnxruntime"):
        return onnxruntime.InferenceSession(content or str(path), options, providers=["CPUExecutionProvider"])


def open_tokenizer(model: str | None) -> Any:
    """A sentencepiece model in base64, or None for a dictionary of words."""
    if model is None:
        return None
    return sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(model))
