"""Equal error rate of a speaker model over pairs of validation clips.

Classification of whole clips: speakers, emotions.
"""

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Optional

import numpy as np
import torch.distributed as dist
from fairseq import checkpoint_utils
from fairseq.logging import metrics
from fairseq.tasks import register_task
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor

from av_ssl.checkpoints.stored import StoredModel
from av_ssl.classification.lupi import FrozenTeacher, LupiCriterion, LupiStudent, check_losses
from av_ssl.classification.verification import equal_error_rate, unit_length
from av_ssl.data.classes import CLASSES, ClassificationDataset, ClassList, Segmentation
from av_ssl.data.dataset import DataNeeds
from av_ssl.data.labels import LabelFile
from av_ssl.errors import DataError
from av_ssl.layout import Clip, keep_by_length, read_manifest, with_lengths
from av_ssl.recognition.encoder import read_pretrained
from av_ssl.tasks.audio_visual import (
    FEATURE_KEYS,
    AudioVisualTask,
    AudioVisualTaskConfig,
    is_training_split,
)

logger = logging.getLogger(__name__)

METRIC = "eer"
MOST_CLIPS = 3000
"""The pairs of more would take longer to sort than they are worth; so many are taken, of all speakers."""


class ValidationEER:
    """Gathers embeddings while fairseq validates, and writes the rate into its statistics.

    fairseq looks for the metric by which it chooses checkpoints before it lets a task add one, so that a
    place is kept for it from the first batch on.
    """

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.embeddings: dict[str, NDArray[np.float32]] = {}
        self.validating = False

    def read_names(self, path: Path, clips: Sequence[Clip]) -> None:
        """Who speaks in each clip, by its label file; speakers need not be known from training."""
        labels = LabelFile(path, clips)
        self.names.update({clip.id: labels.line(number) for number, clip in enumerate(clips)})

    def clear(self) -> None:
        self.embeddings = {}

    def add(self, sample: dict[str, Any], model: Any) -> None:
        """Embed a batch; batches come twice where a worker has run out of them."""
        self.validating = True
        if not sample:
            return
        embeddings = model.embed(**sample["net_input"]).cpu().numpy()
        self.embeddings.update(zip(sample["utt_id"], embeddings, strict=True))

    def log_placeholder(self) -> None:
        """Keep a place among the metrics of a validation, none among those of training."""
        if self.validating:
            metrics.log_scalar(METRIC, 100.0, priority=10, round=3)
        self.validating = False

    def write(self, stats: dict[str, Any]) -> None:
        """Put the rate (%) of the clips gathered since the last call into ``stats``, alike on all workers.

        Raises:
            DataError: all clips are of one speaker, or no two of one.
        """
        embeddings = all_workers(self.embeddings)
        self.clear()
        if not embeddings:
            return
        stats[METRIC] = round(100 * self.rate(embeddings), 3)
        if f"best_{METRIC}" in stats:
            stats[f"best_{METRIC}"] = min(checkpoint_utils.save_checkpoint.best, stats[METRIC])

    def rate(self, embeddings: dict[str, NDArray[np.float32]]) -> float:
        ids = spread_over_speakers({name: self.names[name] for name in embeddings}, MOST_CLIPS)
        if len(ids) < len(embeddings):
            logger.info("EER of %d of %d validation clips, of all speakers", len(ids), len(embeddings))
        unit = unit_length(np.stack([embeddings[name] for name in ids]))
        first, second = np.triu_indices(len(ids), k=1)
        speakers = np.unique([self.names[name] for name in ids], return_inverse=True)[1]
        same = speakers[first] == speakers[second]
        if same.all() or not same.any():
            raise DataError(
                f"task.eer=true: the {len(ids)} validation clips are of {speakers.max() + 1} speakers; an "
                "error rate needs several clips of several speakers"
            )
        return equal_error_rate((unit @ unit.T)[first, second], same)


def spread_over_speakers(speakers: Mapping[str, str], most: int) -> list[str]:
    """Up to `most` clips in alphabetical order, of every speaker as many as of others where there are enough.

    Args:
        speakers: who speaks in each clip.
        most: clips; the same ones in every call.
    """
    shuffled = sorted(speakers)
    random.Random(0).shuffle(shuffled)
    turns: Counter[str] = Counter()
    turn: dict[str, int] = {}
    for name in shuffled:
        turn[name] = turns[speakers[name]]
        turns[speakers[name]] += 1
    return sorted(sorted(shuffled, key=turn.__getitem__)[:most])


def all_workers(embeddings: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The embeddings of all distributed workers together."""
    if not (dist.is_available() and dist.is_initialized()):
        return embeddings
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, embeddings)
    together: dict[str, NDArray[np.float32]] = {}
    for part in gathered:
        together.update(part)
    return together


@dataclass
class ClassificationConfig(AudioVisualTaskConfig):
    """Keys of labels, crops and segments."""

    label: str = field(
        default="emo",
        metadata={
            "help": "label files are {split}.LABEL, one class name a line, the list of classes is "
            "classes.LABEL.txt; empty: no labels (training by a teacher's embeddings alone)"
        },
    )
    max_trim_sample_size: Optional[int] = field(
        default=75,
        metadata={"help": "frames of a training crop; evaluation takes whole clips; null: whole clips"},
    )
    random_crop: bool = field(default=True, metadata={"help": "crop at a random place instead of the start"})
    segment_frames: int = field(
        default=0,
        metadata={"help": "cut clips into segments of so many frames (sequential setting); 0: do not"},
    )
    segment_hop: int = field(
        default=0, metadata={"help": "frames from one segment to the next; 0: segment_frames"}
    )
    class_balanced: bool = field(
        default=False, metadata={"help": "draw the clips of every class equally often in training"}
    )
    eer: bool = field(
        default=False,
        metadata={
            "help": "log the equal error rate (%) over the pairs of validation clips, whose labels say who "
            "speaks (of 3000 clips, evenly of all speakers, where there are more): for "
            "checkpoint.best_checkpoint_metric=eer"
        },
    )


@register_task("av_classification", dataclass=ClassificationConfig)
class ClassificationTask(AudioVisualTask):
    """Clips with a class each, for ``av_classifier`` and ``lupi_student`` models.

    The names of the classes are stored in the checkpoint as strings, and a checkpoint whose list differs from
    the data's is refused.
    """

    cfg: ClassificationConfig
    dataset_class: ClassVar[type[ClassificationDataset]] = ClassificationDataset

    def __init__(self, cfg: ClassificationConfig) -> None:
        super().__init__(cfg)
        if cfg.eer and not cfg.label:
            raise DataError(
                "task.eer=true: set task.label, e.g. spk, whose files say who speaks in each clip"
            )
        self.classes_file = Path(cfg.label_dir or cfg.data) / f"classes.{cfg.label}.txt"
        self.classes: ClassList | None = None  # decoding may take those of a checkpoint
        if cfg.label and self.classes_file.exists():
            self.classes = ClassList.load(self.classes_file)
        self.pretrained: StoredModel | None = None
        self.teacher: FrozenTeacher | None = None
        self.student: LupiStudent | None = None
        self.validation_eer = ValidationEER() if cfg.eer else None

    @property
    def target_dictionary(self) -> None:
        return None

    def require_classes(self) -> ClassList:
        """The classes; DataError if neither the data nor a checkpoint gave them."""
        if self.classes is None:
            self.classes = ClassList.load(self.classes_file)
        return self.classes

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a classifier.

        For training, the encoder is ``model.w2v_path``'s if that is set, and a student gets the teacher of
        ``model.teacher_path``; neither file is asked for when a checkpoint is loaded.
        """
        if not from_checkpoint:
            self.complete(cfg)
            if "teacher_path" in cfg and cfg.teacher_path:
                self.teacher = self.load_teacher(cfg)
        model = super().build_model(cfg, from_checkpoint)
        self.needs = DataNeeds(clean_audio=self.teacher is not None)
        self.pretrained = None  # the model has its tensors
        self.student = model if isinstance(model, LupiStudent) and not from_checkpoint else None
        return model

    def complete(self, cfg: Any) -> None:
        """Fill in a model's configuration: number of classes, size of the encoder."""
        if self.cfg.label:
            cfg.num_classes = len(self.require_classes())
        if cfg.get("w2v_path"):
            self.pretrained = read_pretrained(cfg, str(self.cfg.audio_input), str(cfg.streams))

    def load_teacher(self, cfg: Any) -> FrozenTeacher:
        """The teacher of a student's configuration; DataError if it cannot be the teacher of this data."""
        own = OmegaConf.to_container(self.cfg)
        return FrozenTeacher.load(cfg.teacher_path, str(cfg.target_norm), own, FEATURE_KEYS)

    def build_criterion(self, cfg: Any) -> Any:
        """Raises ValueError when a student that is to be trained cannot be, by these losses."""
        criterion = super().build_criterion(cfg)
        if self.student is not None and isinstance(criterion, LupiCriterion):
            check_losses(self.student, criterion.cfg)
            if self.teacher is not None and str(criterion.cfg.soft_labels) != "none":
                self.teacher.check_classes(self.require_classes())
        return criterion

    # -- data ------------------------------------------------------------------------------------------------

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **unused: Any) -> None:
        """Read ``{data}/{split}.tsv`` and its labels.

        Args:
            task_cfg: configuration stored in the checkpoint that is evaluated; features are made as it says.
        """
        self.adopt_features(task_cfg, "segment_frames", "segment_hop")
        cfg = self.cfg
        train = is_training_split(split)
        clips, kept = self.read_split(split)
        classes = self.read_classes(split, clips, train)
        self.datasets[split] = self.make_dataset(
            split,
            [clips[index] for index in kept],
            train,
            max_frames=cfg.max_trim_sample_size if train else None,
            classes=None if classes is None else classes[kept],
            segmentation=Segmentation.of(cfg.segment_frames, cfg.segment_hop),
            class_balanced=cfg.class_balanced,
        )

    def read_split(self, split: str) -> tuple[list[Clip], list[int]]:
        """All clips of a manifest, and the indices of those that have the streams that are to be loaded; for
        training, of allowed length.

        Raises:
            DataError: none is left.
        """
        cfg = self.cfg
        clips = with_lengths(read_manifest(Path(cfg.data) / f"{split}.tsv"))
        longest = cfg.max_sample_size if is_training_split(split) else None
        streams = self.streams
        kept = [
            index
            for index in keep_by_length(clips, cfg.min_sample_size, longest)
            if all(getattr(clips[index], stream) is not None for stream in streams)
        ]
        if not kept:
            raise DataError(
                f"{Path(cfg.data) / split}.tsv: no clip has {' and '.join(streams)}; set task.modalities to "
                "what there is"
            )
        if len(kept) < len(clips):
            logger.info("%s: %d of %d clips are used", split, len(kept), len(clips))
        return clips, kept

    def read_classes(self, split: str, clips: list[Clip], train: bool) -> NDArray[np.int64] | None:
        if not self.cfg.label:
            return None
        path = Path(self.cfg.label_dir or self.cfg.data) / f"{split}.{self.cfg.label}"
        if self.validation_eer is not None and not train:
            self.validation_eer.read_names(path, clips)
        return self.require_classes().read(path, clips, train)

    # -- validation ------------------------------------------------------------------------------------------

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        super().begin_valid_epoch(epoch, model)
        if self.validation_eer is not None:
            self.validation_eer.clear()

    def valid_step(self, sample: Any, model: Any, criterion: Any) -> tuple[Tensor, int, dict[str, Any]]:
        result = super().valid_step(sample, model, criterion)
        if self.validation_eer is not None:
            self.validation_eer.add(sample, model)
        return result

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        super().reduce_metrics(logging_outputs, criterion)
        if self.validation_eer is not None:
            self.validation_eer.log_placeholder()

    def post_validate(self, model: Any, stats: dict[str, Any], agg: Any) -> None:
        """fairseq calls this behind a validation, before its results are printed and compared."""
        if self.validation_eer is not None:
            self.validation_eer.write(stats)

    # -- checkpoints -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {} if self.classes is None else {CLASSES: self.classes.names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a checkpoint was trained with these classes, or take its own.

        Raises:
            DataError: it was not; its classes would be taken for others.
        """
        names = list(state_dict.get(CLASSES) or [])
        if not names:
            return
        if self.classes is None:
            self.classes = ClassList(names, "the checkpoint")
        elif self.classes.names != names:
            raise DataError(
                f"{self.classes_file}: the checkpoint was trained with other classes ({len(names)}: "
                f"{', '.join(names[:5])}, ...); use its list, or start anew in another checkpoint.save_dir"
            )
