"""A fine-tuned recogniser over clips: loaded once a process, searched as `fairseq-generate` searches.

RecogniserSpec(path).open().transcribe(clips)               # a Hypothesis a clip, in batches
RecogniserSpec(path).open().recognise(parts, ("audio",))    # a Recognition a part of a recording, in batches
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.dataclass.configs import GenerationConfig
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from av_ssl.checkpoints.files import model_file
from av_ssl.checkpoints.stored import stored_streams, untrained_streams
from av_ssl.data.clip_reader import ArrayClip
from av_ssl.data.collate import add_lengths
from av_ssl.data.dataset import AudioVisualDataset, BadClips
from av_ssl.device import device_of
from av_ssl.errors import DataError
from av_ssl.inference import (
    Streams,
    find_encoder,
    open_model,
    read_batches,
)
from av_ssl.io import digest
from av_ssl.layout import STREAMS, crop_side
from av_ssl.manifest import Clip
from av_ssl.media.recording import Part
from av_ssl.recognition.search import encode
from av_ssl.tasks.audio_visual import FEATURE_KEYS
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask
from av_ssl.transcription.hypotheses import Hypothesis, confidence
from av_ssl.transcription.transcript import Recognition, SearchOptions, Word
from av_ssl.transcription.word_times import Spelling, align, loudness, spell, spell_text

BATCH_FRAMES = 2000
"""Frames of a batch (80 s), padding included."""


@dataclass(frozen=True)
class RecogniserSpec:
    """A recogniser and how it is used; small, so that it can be sent to other processes.

    Args:
        checkpoint: a fine-tuned model, ``.pt`` or ``.safetensors``.
        modalities: ``audio``, ``video`` or ``av``; None: those that it was trained with.
        device: see `device_of`.
        search: options of the search.
        task_options: further keys of the task ``av_recognition``, as ``KEY=VALUE``.
        precision: of weights and activations, ``float32`` or ``bfloat16``.
    """

    checkpoint: Path
    modalities: str | None = None
    device: str = "auto"
    search: SearchOptions = field(default_factory=SearchOptions)
    task_options: tuple[str, ...] = ()
    precision: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoint", model_file(self.checkpoint))

    def settings(self) -> dict[str, Any]:
        """What the transcripts depend on; a checkpoint counts by its content."""
        settings = {"checkpoint": digest(self.checkpoint), "modalities": self.modalities, **vars(self.search)}
        if self.precision != "float32":  # settings of before the option have no such key
            settings["precision"] = self.precision
        return {**settings, "task options": sorted(self.task_options)}

    def open(self, rank: int = 0) -> Recogniser:
        """The recogniser, loaded once a process; ``rank`` selects one of several GPUs."""
        return _open_recogniser(self, device_of(self.device, rank))


class Recogniser:
    """Transcribes clips with the search that its task gives to ``fairseq-generate``.

    Args:
        spec: the checkpoint, and how it is used.
        device: for the model.
        model: of the checkpoint, on that device; None: it is read.

    Raises DataError if the checkpoint cannot be read, holds no dictionary and so no recogniser, was trained
    on other streams, or has no such search.
    """

    def __init__(self, spec: RecogniserSpec, device: str = "cpu", model: Any = None) -> None:
        self.spec, self.device = spec, torch.device(device)
        if model is None:
            model = open_model(spec.checkpoint, device, dtype=getattr(torch, spec.precision))
        self.model = model
        if self.model.text_encoder is None:
            raise DataError(
                f"{spec.checkpoint}: holds no dictionary, so its output cannot be turned into words; name a "
                "recogniser that was fine-tuned with av_ssl, or one published by AV-HuBERT"
            )
        self.task = RecognitionTask(self._task_config(self.model.task_cfg), self.model.text_encoder)
        if wrong := untrained_streams(self.model.task_cfg, self.streams):
            raise DataError(
                f"--modalities {self.task.cfg.modalities}: {spec.checkpoint} {wrong}, so its transcripts "
                "would be wrong; drop --modalities, or give it the stream of its training"
            )
        self.generator = self.task.build_generator([self.model], GenerationConfig(**vars(spec.search)))

    def _task_config(self, stored: Mapping[str, Any]) -> Any:
        """Clips are read as in training, but never cut."""
        features = {key: stored[key] for key in FEATURE_KEYS if stored.get(key) is not None}
        cfg = RecognitionConfig(data="", modalities=self._modalities(stored), seed=1, **features)
        cfg.max_sample_size = cfg.max_trim_sample_size = None
        try:
            return OmegaConf.merge(
                OmegaConf.structured(cfg), OmegaConf.from_dotlist(list(self.spec.task_options))
            )
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"--task-option: {reason}; av-ssl options av_recognition lists the keys"
            ) from error

    def _modalities(self, stored: Mapping[str, Any]) -> str:
        streams = stored_streams(stored)
        if self.spec.modalities is not None:
            if self.spec.modalities not in STREAMS:
                raise DataError(
                    f"--modalities {self.spec.modalities}: the recogniser takes {', '.join(STREAMS)}"
                )
            return self.spec.modalities
        if streams is None:
            raise DataError(
                f"{self.spec.checkpoint}: its task section does not say which streams it was trained with; "
                "name --modalities"
            )
        return next(name for name, choice in STREAMS.items() if choice == streams)

    @property
    def streams(self) -> Streams:
        return STREAMS[str(self.task.cfg.modalities)]

    @property
    def stream_choices(self) -> list[Streams]:
        """Sets of streams that it accepts: those asked for, or else of its training, and each alone if both.

        A recogniser of sound was not trained on lips, though its encoder may have a front-end for them.
        """
        encoder = find_encoder(self.model, self.spec.modalities, str(self.spec.checkpoint))[0]
        own = self.streams
        parts = dict.fromkeys([own, *((stream,) for stream in own)])
        return [streams for streams in parts if streams in encoder.stream_choices]

    @property
    def crop_side(self) -> int:
        """Side of the mouth crops of its parts, in pixels."""
        return crop_side(int(self.task.cfg.image_crop_size))

    def dataset(self, clips: Sequence[Clip], streams: Streams | None = None) -> AudioVisualDataset:
        """The clips, without transcripts, as they are given to the model; ``streams``: None for `streams`."""
        # Noise, if it is asked for, comes from the list for test clips.
        reader = self.task.make_reader("test", train=False)
        reader = reader if streams is None else replace(reader, modalities=streams)
        return self.task.make_dataset("test", list(clips), train=False, shuffle=False, reader=reader)

    def transcribe(
        self,
        clips: Sequence[Clip],
        max_frames: int = 2000,
        threads: int = 2,
        bad_clips: BadClips | None = None,
    ) -> Iterator[Hypothesis]:
        """The best hypothesis of each clip that can be read, longest clips first.

        Args:
            clips: have all `streams`.
            max_frames: of a batch, padding included.
            threads: that read clips.
            bad_clips: records those that cannot be read, and stops if they are too many; None: within this
                process.
        """
        dataset = self.dataset(clips)
        if bad_clips is not None:
            dataset.bad_clips = bad_clips
        for batch in read_batches(dataset, max_frames, self.device, threads):
            for index, best in zip(batch["id"].tolist(), self._search(batch), strict=True):
                clip = clips[index]
                yield Hypothesis(clip.id, self._confidence(best), clip.frames, self._text(best))

    def recognise(
        self, parts: Sequence[Part], streams: Streams, word_times: bool = False
    ) -> list[Recognition]:
        """See `SpeechRecogniser`; DataError if a part cannot be given to the model.

        Word times come from the CTC head. A model that has only an attention decoder gives them by its
        attention to the encoder's frames, which is less exact.
        """
        found: dict[int, Recognition] = {}
        for batch in self._batches(parts, streams):
            with one_pass(self._encoder):
                results = self._search(batch)
                words = self._word_times(batch, results, parts) if word_times else [()] * len(results)
            for index, best, times in zip(batch["id"].tolist(), results, words, strict=True):
                found[index] = Recognition(self._text(best), self._confidence(best), times)
        return [found[index] for index in range(len(parts))]

    def ctc_log_probs(self, parts: Sequence[Part], streams: Streams) -> list[NDArray[np.float32]]:
        """Output ``[T, V]`` of the CTC head at 25 Hz for each part; DataError if the model has none."""
        if not self.has_ctc:
            raise DataError(
                f"{self.spec.checkpoint}: has an attention decoder alone, but a text is aligned with the "
                "output of a CTC head; name a model av_hubert_ctc or hybrid_ctc_attention"
            )
        found: dict[int, NDArray[np.float32]] = {}
        for batch in self._batches(parts, streams):
            found.update(zip(batch["id"].tolist(), self._ctc(batch), strict=True))
        return [found[index] for index in range(len(parts))]

    def spell_text(self, text: str) -> list[list[Spelling]]:
        """The words of each line of a text with their tokens, see `word_times.spell_text`."""
        encode, indices = self.task.text_encoder.encode, self.task.target_dictionary.indices
        return spell_text(text, lambda word: encode(word).split(), indices)

    @property
    def has_ctc(self) -> bool:
        return not hasattr(self.model, "decoder") or hasattr(self.model, "ctc_log_probs")

    @property
    def _encoder(self) -> nn.Module:
        """The part of the model whose output search and word times share."""
        return getattr(self.model, "encoder", self.model)

    def _batches(self, parts: Sequence[Part], streams: Streams) -> Iterator[dict[str, Any]]:
        if not parts:
            return
        clips = [
            ArrayClip.of(
                str(number),
                part.frames if "video" in streams else None,
                part.samples if "audio" in streams else None,
                f"the part at {part.start:.2f} s",
            )
            for number, part in enumerate(parts)
        ]
        dataset = self.dataset(clips, streams)
        done = 0
        # A CPU gains nothing by batches, and their padding costs time: there each part is a batch.
        most = 1 if self.device.type == "cpu" else BATCH_FRAMES
        for batch in read_batches(dataset, most, self.device, threads=1):
            yield batch
            done += len(batch["id"])
        if done < len(parts):
            raise DataError("; ".join(dataset.bad_clips.reasons.values()))

    def _search(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """The best hypothesis of each clip of a batch."""
        add_lengths(batch["net_input"], self.task.target_dictionary.pad())
        return [best for best, *_ in self.task.inference_step(self.generator, [self.model], batch)]

    def _text(self, found: Mapping[str, Any]) -> str:
        strip = self.generator.symbols_to_strip_from_output
        tokens = found["tokens"].int().cpu()
        symbols = self.task.target_dictionary.string(tokens, extra_symbols_to_ignore=strip)
        return str(self.task.text_encoder.decode(symbols))

    @staticmethod
    def _confidence(found: Mapping[str, Any]) -> float:
        scores = found["positional_scores"]
        return confidence(float(scores.sum()) if len(scores) else float(found["score"]), len(scores))

    def _word_times(
        self, batch: dict[str, Any], results: Sequence[Mapping[str, Any]], parts: Sequence[Part]
    ) -> list[tuple[Word, ...]]:
        """Words of each hypothesis of a batch, times from the start of its part."""
        dictionary, pieces = self.task.target_dictionary, self.task.text_encoder.tokenizer is not None
        special = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
        outputs = self._ctc(batch) if self.has_ctc else self._attention(batch, results)
        has_sound = batch["net_input"]["source"]["audio"] is not None
        words = []
        for index, best, output in zip(batch["id"].tolist(), results, outputs, strict=True):
            tokens = best["tokens"].tolist()
            places = [place for place, token in enumerate(tokens) if token not in special]
            # The output of attention has a column for each token of the hypothesis, after the blank's.
            columns = [tokens[place] if self.has_ctc else place + 1 for place in places]
            spelled = spell([dictionary[tokens[place]] for place in places], columns, pieces)
            scores = None
            if not self.has_ctc:
                own = [column - 1 for word in spelled for column in word.tokens]
                scores = best["positional_scores"].double().cpu().numpy()[own]
            sound = parts[index].samples if has_sound else None
            words.append(align(output, spelled, None if sound is None else loudness(sound), scores))
        return words

    @torch.no_grad()
    def _attention(
        self, batch: dict[str, Any], results: Sequence[Mapping[str, Any]]
    ) -> list[NDArray[np.float32]]:
        """For each clip log-weights ``[T, 1 + L]`` of the frames for the L tokens of its hypothesis.

        They take the place of CTC's output. A token's weights, which add up to 1, are the decoder's attention
        to the frames, the mean over the heads of its last layer. Those of the blank, in the first column, are
        equal for all frames, so that a frame without much attention belongs to no token [ours].
        """
        encoder_out = self._encoder(**batch["net_input"])
        lengths = (~batch["net_input"]["padding_mask"]).sum(1).tolist()
        weights = []
        for row, (best, length) in enumerate(zip(results, lengths, strict=True)):
            tokens = best["tokens"][None].to(self.device)
            history = torch.cat([tokens[:, -1:], tokens[:, :-1]], 1)  # decoders start with the end's symbol
            clip = self.model.encoder.reorder_encoder_out(
                encoder_out, torch.tensor([row], device=self.device)
            )
            _, extra = self.model.decoder(history, encoder_out=clip)
            attention = extra["attn"][0][0, :, :length].float()
            both = torch.cat([attention.new_full((1, length), 1 / length), attention.clamp(min=1e-9)])
            weights.append(both.log().T.cpu().numpy())
        return weights

    @torch.no_grad()
    def _ctc(self, batch: dict[str, Any]) -> list[NDArray[np.float32]]:
        """Log-probabilities ``[T, V]`` of each clip of a batch."""
        _, log_probs = encode([self.model], batch["net_input"], ctc=True)
        assert log_probs is not None
        lengths = (~batch["net_input"]["padding_mask"]).sum(1).tolist()
        return [clip[:length].cpu().numpy() for clip, length in zip(log_probs, lengths, strict=True)]


@contextmanager
def one_pass(module: nn.Module) -> Iterator[None]:
    """Within it, a module is run at most once: further calls, for the same batch, give the first output."""
    forward = module.forward
    outputs: list[Any] = []

    def once(*args: Any, **kwargs: Any) -> Any:
        if not outputs:
            outputs.append(forward(*args, **kwargs))
        return outputs[0]

    module.forward = once
    try:
        yield
    finally:
        del module.forward  # the attribute of the object: the class's method is back


@lru_cache(maxsize=1)
def _open_recogniser(spec: RecogniserSpec, device: str) -> Recogniser:
    return Recogniser(spec, device)
