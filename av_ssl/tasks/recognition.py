"""Speech recognition from audio (ASR), video (VSR) or both (AVSR)."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from fairseq.tasks import register_task

from av_ssl.data.labels import TextLabels
from av_ssl.data.text import TextEncoder
from av_ssl.decoding.ctc import CTCBeamSearch
from av_ssl.models.ctc import CTCModel
from av_ssl.models.pretrained import attach_encoder_config
from av_ssl.tasks.audio_visual import AudioVisualTask, AudioVisualTaskConfig, is_training_split

logger = logging.getLogger(__name__)

FEATURE_KEYS = ("normalize", "image_crop_size", "image_mean", "image_std")
"""What the model was trained to see; decoding takes it from the checkpoint."""


@dataclass
class RecognitionConfig(AudioVisualTaskConfig):
    """Keys of the labels."""

    labels: str = field(
        default="wrd", metadata={"help": "label files are {split}.LABELS, the dictionary dict.LABELS.txt"}
    )
    tokenizer: Optional[str] = field(
        default=None,
        metadata={"help": "sentencepiece model; null: {label_dir}/spm.model if there is one, else none"},
    )


@register_task("av_recognition", dataclass=RecognitionConfig)
class RecognitionTask(AudioVisualTask):
    """Clips with transcripts, for ``av_hubert_seq2seq`` and ``av_hubert_ctc`` models.

    The dictionary and the tokenizer are stored in the checkpoint (as plain strings and bytes in a tensor, no
    pickled objects), and a checkpoint whose dictionary differs from the data's is refused.
    """

    cfg: RecognitionConfig

    def __init__(self, cfg: RecognitionConfig, text_encoder: TextEncoder) -> None:
        super().__init__(cfg)
        self.text_encoder = text_encoder
        self.starts_from_pretrained = True

    @classmethod
    def setup_task(cls, cfg: RecognitionConfig, **unused: Any) -> "RecognitionTask":
        label_dir = Path(cfg.label_dir or cfg.data)
        tokenizer = Path(cfg.tokenizer) if cfg.tokenizer else label_dir / "spm.model"
        if not cfg.tokenizer and not tokenizer.exists():
            tokenizer = None  # type: ignore[assignment]
        return cls(cfg, TextEncoder.load(label_dir / f"dict.{cfg.labels}.txt", tokenizer))

    @property
    def target_dictionary(self) -> Any:
        return self.text_encoder.dictionary

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a recogniser; for training, its encoder (configuration, weights) is ``model.w2v_path``'s."""
        self.starts_from_pretrained = not from_checkpoint
        if not from_checkpoint:
            attach_encoder_config(cfg)
        return super().build_model(cfg, from_checkpoint)

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **kwargs: Any) -> None:
        """Read ``{data}/{split}.tsv`` and its transcripts.

        Args:
            task_cfg: configuration stored in the checkpoint that is decoded; features are made as it says.
        """
        cfg = self.cfg
        for key in FEATURE_KEYS if task_cfg is not None else ():
            if key in task_cfg:
                cfg[key] = task_cfg[key]
        clips, kept = self.read_split(split, cfg)
        labels = TextLabels(
            Path(cfg.label_dir or cfg.data) / f"{split}.{cfg.labels}", self.text_encoder, clips
        )
        self.datasets[split] = self.make_dataset(
            split,
            [clips[index] for index in kept],
            cfg,
            train=is_training_split(split),
            labels=labels.select(kept),
        )

    def build_bpe(self, args: Any) -> Any:
        """The tokenizer joins pieces to words, unless ``--bpe`` asks for another."""
        if getattr(args, "_name", None):
            return super().build_bpe(args)
        return self.text_encoder

    def build_generator(
        self, models: Any, args: Any, seq_gen_cls: Any = None, extra_gen_cls_kwargs: Any = None, **kwargs: Any
    ) -> Any:
        """fairseq's beam search for attention decoders, CTC beam search for CTC models."""
        ctc = [isinstance(model, CTCModel) for model in models]
        if any(ctc) and not all(ctc):
            raise ValueError("an ensemble of CTC and attention models cannot be decoded together")
        if all(ctc):
            return CTCBeamSearch(self.target_dictionary, beam=args.beam)
        return super().build_generator(models, args, seq_gen_cls, extra_gen_cls_kwargs, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        return self.text_encoder.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a checkpoint was trained with this dictionary and tokenizer.

        Raises:
            DataError: it was not; its output would be read with the wrong words.
        """
        self.text_encoder.check_state(state_dict)
