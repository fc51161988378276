"""A fine-tuned model out of its checkpoint, ready to transcribe batches.

It searches with the generator that its task gives to `fairseq-generate`, so whatever can be decoded there can
be transcribed with here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.data.data_utils import batch_by_size
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from av_ssl.data.clip_reader import STREAMS
from av_ssl.data.collate import add_lengths
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.data.manifest import Clip
from av_ssl.errors import DataError
from av_ssl.models.layered_encoder import stored_modalities
from av_ssl.models.loading import assemble
from av_ssl.models.model_files import read_stored
from av_ssl.targets.kept_settings import digest
from av_ssl.tasks.recognition import FEATURE_KEYS, RecognitionConfig, RecognitionTask
from av_ssl.transcription.hypotheses import Hypothesis, confidence


@dataclass(frozen=True)
class SearchOptions:
    """How the best hypothesis is looked for; names and meaning are fairseq-generate's.

    Args:
        beam: hypotheses kept; 1 is greedy.
        lenpen: exponent of the length by which scores of attention decoders are divided; above 1 favours
            longer ones.
        max_len_a, max_len_b: at most `max_len_a * frames + max_len_b` tokens.
    """

    beam: int = 20
    lenpen: float = 1.0
    max_len_a: float = 1.0
    max_len_b: int = 10


@dataclass(frozen=True)
class RecogniserSpec:
    """Which model, and how it is used; small, so that it can be sent to other processes.

    Args:
        checkpoint: a fine-tuned model, `.pt` or `.safetensors`.
        modalities: `audio`, `video` or `av`; None: those it was trained with.
        device: `auto` (a GPU where there is one), `cpu` or `cuda`.
        search: options of the search.
        task_options: further keys of the task `av_recognition`, as `KEY=VALUE`.
    """

    checkpoint: Path
    modalities: str | None = None
    device: str = "auto"
    search: SearchOptions = SearchOptions()
    task_options: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """What decides the transcripts; a checkpoint counts by its content."""
        settings = {"checkpoint": digest(self.checkpoint), "modalities": self.modalities, **vars(self.search)}
        return {**settings, "task options": sorted(self.task_options)}

    def open(self, rank: int = 0) -> Recogniser:
        """The model, loaded once a process; `rank` chooses among several GPUs when it is.

        Raises DataError when the file is no recogniser, see `Recogniser`, or there is no GPU.
        """
        if self not in _OPEN:
            _OPEN.clear()
            _OPEN[self] = Recogniser(self, torch_device(self.device, rank))
        return _OPEN[self]


_OPEN: dict[RecogniserSpec, Recogniser] = {}


def torch_device(name: str, rank: int = 0) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device of torch; GPUs take turns by `rank`; DataError where none is."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DataError("--device cuda: torch finds no GPU here; take --device cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


class Recogniser:
    """Transcribes clips.

    Args:
        spec: model and options.
        device: where it computes.

    Raises DataError when the checkpoint cannot be read, or holds no dictionary and so no recogniser.
    """

    def __init__(self, spec: RecogniserSpec, device: torch.device) -> None:
        stored = read_stored(spec.checkpoint)
        if stored.text is None:
            raise DataError(
                f"{spec.checkpoint}: holds no dictionary, so its output cannot be turned into words; name a "
                "recogniser that was fine-tuned with av_ssl, or a published one of AV-HuBERT"
            )
        self.spec = spec
        self.device = device
        self.model = assemble(stored).to(device)
        self.task = RecognitionTask(self._task_config(stored.task_cfg), self.model.text_encoder)

    def _task_config(self, stored: Mapping[str, Any]) -> Any:
        """Features as in training, of whole clips."""
        features = {key: stored[key] for key in FEATURE_KEYS if stored.get(key) is not None}
        modalities = self.spec.modalities or trained_modalities(stored, self.spec.checkpoint)
        cfg = RecognitionConfig(data="", modalities=modalities, seed=1, **features)
        cfg.max_sample_size = cfg.max_trim_sample_size = None
        try:
            return OmegaConf.merge(
                OmegaConf.structured(cfg), OmegaConf.from_dotlist(list(self.spec.task_options))
            )
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"--task-option: {reason}; fairseq-generate DATA --user-dir av_ssl --task av_recognition "
                "--help lists the keys"
            ) from error

    @property
    def streams(self) -> tuple[str, ...]:
        """What every clip must have."""
        return STREAMS[str(self.task.cfg.modalities)]

    def dataset(self, clips: Sequence[Clip]) -> AudioVisualDataset:
        """The clips without transcripts, as the model is to see them."""
        # Noise that is asked for comes from the list for test clips.
        return self.task.make_dataset("test", list(clips), self.task.cfg, train=False, shuffle=False)

    @cached_property
    def generator(self) -> Any:
        """The task's generator for this model."""
        options = GenerationConfig(**vars(self.spec.search))
        return self.task.build_generator([self.model], options)

    def transcribe(self, batch: dict[str, Any], clips: Sequence[Clip]) -> list[Hypothesis]:
        """Best hypotheses of a batch of `dataset(clips)`, in the order of the batch."""
        add_lengths(batch["net_input"], self.task.target_dictionary.pad())
        if self.device.type == "cuda":
            batch = utils.move_to_cuda(batch, self.device)
        found = self.task.inference_step(self.generator, [self.model], batch)
        indices = batch["id"].tolist()
        return [
            self._hypothesis(clips[index], best) for index, (best, *_) in zip(indices, found, strict=True)
        ]

    def _hypothesis(self, clip: Clip, found: Mapping[str, Any]) -> Hypothesis:
        dictionary = self.task.target_dictionary
        strip = self.generator.symbols_to_strip_from_output
        symbols = dictionary.string(found["tokens"].int().cpu(), extra_symbols_to_ignore=strip)
        scores = found["positional_scores"]
        total = float(scores.sum()) if len(scores) else float(found["score"])
        text = self.task.text_encoder.decode(symbols)
        return Hypothesis(clip.id, confidence(total, len(scores)), clip.frames, text)


def batches_of(dataset: AudioVisualDataset, max_tokens: int) -> list[list[int]]:
    """Indices of clips, longest first, cut into batches of at most `max_tokens` frames with padding."""
    indices = dataset.ordered_indices()
    sizes = dataset.num_tokens_vec(indices)
    batches = batch_by_size(
        indices, lambda index: dataset.num_tokens(index), num_tokens_vec=sizes, max_tokens=max_tokens
    )
    return [[int(index) for index in batch] for batch in batches]


def trained_modalities(task_cfg: Mapping[str, Any], origin: Path) -> str:
    """`audio`, `video` or `av` by the stored task, ours or AV-HuBERT's; DataError where it does not say."""
    modalities = stored_modalities(task_cfg)
    if modalities is None:
        raise DataError(f"{origin}: does not say which streams it was trained with; name --modalities")
    return modalities
