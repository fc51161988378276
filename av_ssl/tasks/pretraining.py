"""Self-supervised pre-training on audio-visual clips."""

from dataclasses import dataclass
from typing import Any

from fairseq.tasks import register_task

from av_ssl.tasks.audio_visual import AudioVisualTask, AudioVisualTaskConfig, is_training_split


@dataclass
class PretrainingConfig(AudioVisualTaskConfig):
    """No keys of its own."""


@register_task("av_pretraining", dataclass=PretrainingConfig)
class PretrainingTask(AudioVisualTask):
    """Clips without labels; the model says which masks the data workers draw (its ``masking``)."""

    def __init__(self, cfg: PretrainingConfig) -> None:
        super().__init__(cfg)
        self.masking: Any = None

    @property
    def target_dictionary(self) -> None:
        return None

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        model = super().build_model(cfg, from_checkpoint)
        self.masking = getattr(model, "masking", None)
        return model

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **kwargs: Any) -> None:
        """Read ``{data}/{split}.tsv``; the model must have been built (fairseq's commands do)."""
        cfg = task_cfg or self.cfg
        clips, kept = self.read_split(split, cfg)
        self.datasets[split] = self.make_dataset(
            split,
            [clips[index] for index in kept],
            cfg,
            train=is_training_split(split),
            masking=self.masking,
            clean_audio=True,
        )
