"""A fine-tuned recogniser over clips: loaded once a process, searched as `fairseq-generate` searches.

RecogniserSpec(path).open().transcribe(clips)               # a Hypothesis a clip, in batches
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from av_ssl.data.clip_reader import STREAMS
from av_ssl.data.collate import add_lengths
from av_ssl.data.dataset import AudioVisualDataset, BadClips
from av_ssl.errors import DataError
from av_ssl.inference import (
    Streams,
    given_modalities,
    one_clip,
    open_model,
    read_batches,
    stored_streams,
)
from av_ssl.io import digest
from av_ssl.layout import Clip
from av_ssl.targets.feature_shards import device_of
from av_ssl.tasks.audio_visual import FEATURE_KEYS
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask
from av_ssl.transcription.hypotheses import Hypothesis, confidence


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search; names and meaning are fairseq-generate's.

    Args:
        beam: hypotheses kept; 1 is greedy.
        lenpen: scores of attention decoders are divided by the length to this power; above 1 favours longer
            hypotheses.
        max_len_a, max_len_b: at most ``max_len_a * frames + max_len_b`` tokens.
    """

    beam: int = 20
    lenpen: float = 1.0
    max_len_a: float = 1.0
    max_len_b: int = 10


@dataclass(frozen=True)
class RecogniserSpec:
    """A recogniser and how it is used; small, so that it can be sent to other processes.

    Args:
        checkpoint: a fine-tuned model, ``.pt`` or ``.safetensors``.
        modalities: ``audio``, ``video`` or ``av``; None: those that it was trained with.
        device: see `device_of`.
        search: options of the search.
        task_options: further keys of the task ``av_recognition``, as ``KEY=VALUE``.
    """

    checkpoint: Path
    modalities: str | None = None
    device: str = "auto"
    search: SearchOptions = SearchOptions()
    task_options: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """What the transcripts depend on; a checkpoint counts by its content."""
        settings = {"checkpoint": digest(self.checkpoint), "modalities": self.modalities, **vars(self.search)}
        return {**settings, "task options": sorted(self.task_options)}

    def open(self, rank: int = 0) -> Recogniser:
        """The recogniser, loaded once a process; ``rank`` selects one of several GPUs."""
        return _open_recogniser(self, device_of(self.device, rank))


class Recogniser:
    """Transcribes clips with the search that its task gives to ``fairseq-generate``.

    Raises DataError if the checkpoint cannot be read, or holds no dictionary and so no recogniser.
    """

    def __init__(self, spec: RecogniserSpec, device: str = "cpu") -> None:
        self.spec, self.device = spec, torch.device(device)
        self.model = open_model(spec.checkpoint, device)
        if self.model.text_encoder is None:
            raise DataError(
                f"{spec.checkpoint}: holds no dictionary, so its output cannot be turned into words; name a "
                "recogniser that was fine-tuned with av_ssl, or one published by AV-HuBERT"
            )
        self.task = RecognitionTask(self._task_config(self.model.task_cfg), self.model.text_encoder)

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

    def dataset(self, clips: Sequence[Clip]) -> AudioVisualDataset:
        """The clips, without transcripts, as they are given to the model."""
        # Noise, if it is asked for, comes from the list for test clips.
        return self.task.make_dataset("test", list(clips), train=False, shuffle=False)

    @cached_property
    def generator(self) -> Any:
        return self.task.build_generator([self.model], GenerationConfig(**vars(self.spec.search)))

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
            add_lengths(batch["net_input"], self.task.target_dictionary.pad())
            found = self.task.inference_step(self.generator, [self.model], batch)
            for index, (best, *_) in zip(batch["id"].tolist(), found, strict=True):
                yield self._hypothesis(clips[index], best)

    def _hypothesis(self, clip: Clip, found: Mapping[str, Any]) -> Hypothesis:
        strip = self.generator.symbols_to_strip_from_output
        tokens = found["tokens"].int().cpu()
        symbols = self.task.target_dictionary.string(tokens, extra_symbols_to_ignore=strip)
        scores = found["positional_scores"]
        total = float(scores.sum()) if len(scores) else float(found["score"])
        text = self.task.text_encoder.decode(symbols)
        return Hypothesis(clip.id, confidence(total, len(scores)), clip.frames, text)


def transcribe_clip(
    checkpoint: Path,
    video: Path | None = None,
    audio: Path | None = None,
    modalities: str | None = None,
    beam: int = SearchOptions.beam,
) -> Hypothesis:
    """The transcript of one clip; see `av_ssl.transcribe`."""
    modalities = modalities or given_modalities(video, audio)
    recogniser = RecogniserSpec(checkpoint, modalities, search=SearchOptions(beam)).open()
    clip = one_clip(video, audio, recogniser.streams, checkpoint)
    bad = BadClips(None, {clip.id})
    found = list(recogniser.transcribe([clip], bad_clips=bad))
    if not found:
        raise DataError(bad.reasons[clip.id])
    return found[0]


@lru_cache(maxsize=1)
def _open_recogniser(spec: RecogniserSpec, device: str) -> Recogniser:
    return Recogniser(spec, device)
