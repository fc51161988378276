"""Self-supervised pre-training on audio-visual clips."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, List

from fairseq.data import Dictionary
from fairseq.tasks import register_task

from av_ssl.compat.keys import option
from av_ssl.data.labels import FrameLabels, keep_agreeing
from av_ssl.data.text import dictionary_of, load_dictionary, stored_label_sets
from av_ssl.errors import DataError
from av_ssl.manifest import Clip
from av_ssl.methods.teacher_heads import attach_teacher_shapes
from av_ssl.tasks.audio_visual import AudioVisualTask, AudioVisualTaskConfig

logger = logging.getLogger(__name__)


@dataclass
class PretrainingConfig(AudioVisualTaskConfig):
    """Keys of cluster labels, for methods that predict them."""

    labels: List[str] = option(
        [], "label sets: files {split}.LABEL with dictionaries dict.LABEL.txt; empty: none"
    )
    label_rate: float = option(25.0, "labels a second")


@register_task("av_pretraining", dataclass=PretrainingConfig)
class PretrainingTask(AudioVisualTask):
    """Clips, with cluster ids or without.

    A checkpoint holds the symbols of each label set's dictionary, so that it loads without these files.
    """

    cfg: PretrainingConfig

    def __init__(self, cfg: PretrainingConfig) -> None:
        super().__init__(cfg)
        self.label_dir = Path(cfg.label_dir or cfg.data)

    @property
    def target_dictionary(self) -> None:
        return None

    @cached_property
    def dictionaries(self) -> list[Dictionary]:
        """One for each label set; DataError names a file that is missing or malformed."""
        return [load_dictionary(self.label_dir / f"dict.{label}.txt") for label in self.cfg.labels]

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a model; ValueError if ``task.audio_input`` is not its input."""
        if not from_checkpoint:
            attach_teacher_shapes(cfg)
        model = super().build_model(cfg, from_checkpoint)
        if str(self.cfg.audio_input) != self.needs.audio_input:
            raise ValueError(
                f"task.audio_input is {self.cfg.audio_input}, but this model takes "
                f"{self.needs.audio_input}: set task.audio_input={self.needs.audio_input}"
            )
        return model

    def load_split(self, split: str, task_cfg: Any) -> None:
        clips, kept = self.read_split(split)
        labels = self.read_labels(split, clips)
        if labels:
            kept = keep_agreeing(clips, labels, kept)
        self.datasets[split] = self.make_dataset(
            split,
            [clips[index] for index in kept],
            train=self.trains_on(split),
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
        """Take the dictionaries of a checkpoint (AV-HuBERT's are pickled) if there are no files.

        Raises DataError if the data has other dictionaries, so that cluster ids have another meaning.
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
                "labels that it was trained with, or start again in another checkpoint.save_dir"
            )
