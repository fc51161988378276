"""Self-supervised pre-training on audio-visual clips."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, List

from fairseq.data import Dictionary
from fairseq.tasks import register_task

from av_ssl.data.clip_reader import ClipReader
from av_ssl.data.labels import FrameLabels, keep_agreeing
from av_ssl.data.text import dictionary_of, load_dictionary, stored_label_sets
from av_ssl.errors import DataError
from av_ssl.layout import Clip
from av_ssl.methods.teacher_heads import attach_teacher_shapes
from av_ssl.tasks.audio_visual import AudioVisualTask, AudioVisualTaskConfig, is_training_split

logger = logging.getLogger(__name__)


@dataclass
class PretrainingConfig(AudioVisualTaskConfig):
    """Keys of cluster labels, for the methods that predict them."""

    labels: List[str] = field(
        default_factory=list,
        metadata={"help": "label sets: files {split}.LABEL with dictionaries dict.LABEL.txt; empty: none"},
    )
    label_rate: float = field(default=25.0, metadata={"help": "labels a second"})


@register_task("av_pretraining", dataclass=PretrainingConfig)
class PretrainingTask(AudioVisualTask):
    """Clips, with cluster ids or without.

    The model says which masks the data workers draw (its ``masking``), where it is not filterbanks, what it
    hears (its ``audio_input``), whether it hears noisy clips without noise, too (``needs_clean_audio``; yes,
    where it says nothing), and what its speech teachers need (``needs_clean_waveform``, ``teacher_inputs``).

    The symbols of each label set's dictionary are stored in the checkpoint, which then loads without files.
    """

    cfg: PretrainingConfig

    def __init__(self, cfg: PretrainingConfig) -> None:
        super().__init__(cfg)
        self.label_dir = Path(cfg.label_dir or cfg.data)
        self.masking: Any = None
        self.clean_audio = True
        self.starts_from_pretrained = True

    @property
    def target_dictionary(self) -> None:
        return None

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """One for each label set; DataError names a file that is missing or malformed."""
        return [load_dictionary(self.label_dir / f"dict.{label}.txt") for label in self.cfg.labels]

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        self.starts_from_pretrained = not from_checkpoint
        if not from_checkpoint:
            attach_teacher_shapes(cfg)
        model = super().build_model(cfg, from_checkpoint)
        self.masking = getattr(model, "masking", None)
        self.clean_audio = bool(getattr(model, "needs_clean_audio", True))
        self.take_teachers(model)
        self.check_audio_input(getattr(model, "audio_input", "filterbank"))
        return model

    def check_audio_input(self, wanted: str) -> None:
        """Raise ValueError when ``task.audio_input`` is not what the model hears."""
        if str(self.cfg.audio_input) != wanted:
            raise ValueError(
                f"task.audio_input is {self.cfg.audio_input}, but this model hears {wanted}: set "
                f"task.audio_input={wanted}"
            )

    def make_reader(self, split: str, cfg: Any, train: bool) -> ClipReader:
        return replace(super().make_reader(split, cfg, train), clean_audio=self.clean_audio)

    def load_dataset(self, split: str, combine: bool = False, **unused: Any) -> None:
        """Read ``{data}/{split}.tsv`` and labels; the model must have been built (fairseq's commands do)."""
        clips, kept = self.read_split(split, self.cfg)
        labels = self.read_labels(split, clips)
        if labels:
            kept = keep_agreeing(clips, labels, kept)
        self.datasets[split] = self.make_dataset(
            split,
            [clips[index] for index in kept],
            self.cfg,
            train=is_training_split(split),
            masking=self.masking,
            labels=[one.select(kept) for one in labels],
        )

    def read_labels(self, split: str, clips: Sequence[Clip]) -> list[FrameLabels]:
        return [
            FrameLabels(self.label_dir / f"{split}.{label}", dictionary, clips, self.cfg.label_rate)
            for label, dictionary in zip(self.cfg.labels, self.dictionaries, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        state = {"label_symbols": [list(dictionary.symbols) for dictionary in self.dictionaries]}
        return {**state, **self.teacher_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the dictionaries of a checkpoint (AV-HuBERT's hold pickled ones) where there are no files.

        Raises:
            DataError: the data has other dictionaries: cluster ids would mean something else; or other speech
                teachers.
        """
        self.check_teachers(state_dict)
        stored = stored_label_sets(state_dict, "the checkpoint")
        if not stored:
            return
        files = [self.label_dir / f"dict.{label}.txt" for label in self.cfg.labels]
        if not all(file.exists() for file in files):
            self.dictionaries = [dictionary_of(symbols, "the checkpoint") for symbols in stored]
        elif [list(dictionary.symbols) for dictionary in self.dictionaries] != stored:
            raise DataError(
                f"{', '.join(map(str, files))}: the checkpoint was trained with other clusters; use the "
                "labels that it was trained with, or start anew in another checkpoint.save_dir"
            )
