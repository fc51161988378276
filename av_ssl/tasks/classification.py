"""Classification of clips (speakers, emotions), and the equal error rate of a validation."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
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
from av_ssl.classification.lupi import (
    EMBEDDING_PHASE,
    MEANS,
    FrozenTeacher,
    LupiCriterion,
    LupiStudent,
    check_training,
)
from av_ssl.classification.verification import equal_error_rate, unit_length
from av_ssl.compat.keys import option
from av_ssl.data.classes import CLASSES, ClassificationDataset, ClassList, Segmentation
from av_ssl.data.labels import LabelFile
from av_ssl.errors import DataError
from av_ssl.manifest import Clip, keep_by_length, read_manifest
from av_ssl.recognition.encoder import read_pretrained
from av_ssl.tasks.audio_visual import (
    FEATURE_KEYS,
    AudioVisualTask,
    AudioVisualTaskConfig,
)

logger = logging.getLogger(__name__)

METRIC = "eer"
MOST_CLIPS = 3000  # above this, clips are subsampled: sorting all pairs is too slow


class ValidationEER:
    """Collects embeddings during a validation and writes the equal error rate into fairseq's statistics.

    fairseq reads the metric that selects checkpoints before a task can add one, so a placeholder is logged.
    """

    def __init__(self) -> None:
        self.speakers: dict[str, str] = {}
        self.embeddings: dict[str, NDArray[np.float32]] = {}
        self.validating = False

    def read_speakers(self, path: Path, clips: Sequence[Clip]) -> None:
        """Read the speaker of each clip from a label file; they need not occur in training."""
        labels = LabelFile(path, clips)
        self.speakers.update({clip.id: labels.line(k) for k, clip in enumerate(clips)})

    def check(self, path: Path, clips: Sequence[Clip]) -> None:
        """Raise DataError if there are no pairs of clips of one speaker, or none of two."""
        speakers = {self.speakers[clip.id] for clip in clips}
        if not 1 < len(speakers) < len(clips):
            raise DataError(
                f"{path}: task.eer=true: the {len(clips)} validation clips are of {len(speakers)} speakers; "
                "an error rate needs several clips of several speakers: choose other validation clips, or "
                "set task.eer=false"
            )

    def clear(self) -> None:
        self.embeddings = {}

    def add(self, sample: dict[str, Any], model: Any) -> None:
        """Embed a batch; a worker that has run out of data sends an empty one or repeats one."""
        self.validating = True
        if sample:
            embeddings = model.embed(**sample["net_input"]).cpu().numpy()
            self.embeddings.update(zip(sample["utt_id"], embeddings, strict=True))

    def log_placeholder(self) -> None:
        """Log the metric in validation only."""
        if self.validating:
            metrics.log_scalar(METRIC, 100.0, priority=10, round=3)
        self.validating = False

    def write(self, stats: dict[str, Any]) -> None:
        """Write the rate (%) of the collected clips into ``stats``, the same on all workers."""
        embeddings = all_workers(self.embeddings)
        self.clear()
        if not embeddings:
            return
        stats[METRIC] = round(100 * self.rate(embeddings), 3)
        if f"best_{METRIC}" in stats:
            stats[f"best_{METRIC}"] = min(checkpoint_utils.save_checkpoint.best, stats[METRIC])

    def rate(self, embeddings: dict[str, NDArray[np.float32]]) -> float:
        """Equal error rate over the pairs of clips, see `check`."""
        ids = balanced_clips({name: self.speakers[name] for name in embeddings}, MOST_CLIPS)
        if len(ids) < len(embeddings):
            logger.info("EER of %d of %d validation clips, of all speakers", len(ids), len(embeddings))
        unit = unit_length(np.stack([embeddings[name] for name in ids]))
        first, second = np.triu_indices(len(ids), k=1)
        speakers = np.unique([self.speakers[name] for name in ids], return_inverse=True)[1]
        same = speakers[first] == speakers[second]
        return equal_error_rate((unit @ unit.T)[first, second], same)


def balanced_clips(speakers: Mapping[str, str], most: int) -> list[str]:
    """Choose up to ``most`` clips, sorted, as many of each speaker as possible; the same in every call."""
    shuffled = sorted(speakers)
    random.Random(0).shuffle(shuffled)
    clips: dict[str, list[str]] = {}
    for name in shuffled:
        clips.setdefault(speakers[name], []).append(name)
    rounds = zip_longest(*clips.values())
    return sorted([name for each in rounds for name in each if name is not None][:most])


def all_workers(embeddings: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Merge the embeddings of all distributed workers."""
    if not (dist.is_available() and dist.is_initialized()):
        return embeddings
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, embeddings)
    return {name: row for part in gathered for name, row in part.items()}


@dataclass
class ClassificationConfig(AudioVisualTaskConfig):
    """Keys of labels, crops and segments.  All values are ours."""

    label: str = option(
        "emo",
        "label files are {split}.LABEL, one class name a line, the list of classes is classes.LABEL.txt; a "
        "student with model.phase=embed needs neither; empty: no labels",
    )
    max_trim_sample_size: Optional[int] = option(
        75, "frames of a training crop; evaluation takes whole clips; null: whole clips"
    )
    random_crop: bool = option(True, "crop at a random place instead of the start")
    segment_frames: int = option(
        0, "frames of the segments into which clips are cut (sequential setting); 0: whole clips"
    )
    segment_hop: int = option(0, "frames from one segment to the next; 0: segment_frames")
    class_balanced: bool = option(False, "draw the clips of every class equally often in training")
    eer: bool = option(
        False,
        "log the equal error rate (%) over the pairs of validation clips, whose labels are speakers, for "
        "checkpoint.best_checkpoint_metric=eer; of more than 3000 clips, a part that is balanced over "
        "speakers is used",
    )


@register_task("av_classification", dataclass=ClassificationConfig)
class ClassificationTask(AudioVisualTask):
    """One class per clip, for ``av_classifier`` and ``lupi_student`` models.

    Checkpoints store the names of the classes; one whose list differs from that of the data is refused.
    """

    cfg: ClassificationConfig
    dataset_class: ClassVar[type[ClassificationDataset]] = ClassificationDataset

    def __init__(self, cfg: ClassificationConfig) -> None:
        super().__init__(cfg)
        if cfg.eer and not cfg.label:
            raise DataError("task.eer=true: set task.label to the label of speakers, e.g. spk")
        self.classes_file = Path(cfg.label_dir or cfg.data) / f"classes.{cfg.label}.txt"
        self.classes: ClassList | None = None  # evaluation may take those of a checkpoint
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
        """Return the classes; DataError if neither the data nor a checkpoint has them."""
        if self.classes is None:
            self.classes = ClassList.load(self.classes_file)
        return self.classes

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a classifier or student; only training reads ``w2v_path`` and ``teacher_path``."""
        if not from_checkpoint:
            embedding = "phase" in cfg and str(cfg.phase) == EMBEDDING_PHASE  # a struct refuses other keys
            if self.cfg.label and not embedding:
                cfg.num_classes = len(self.require_classes())
            if cfg.get("w2v_path"):
                self.pretrained = read_pretrained(cfg, str(self.cfg.audio_input), str(cfg.streams))
            if "teacher_path" in cfg and cfg.teacher_path:
                own = OmegaConf.to_container(self.cfg)
                assert isinstance(own, dict)
                self.teacher = FrozenTeacher.load(cfg, own, FEATURE_KEYS)
        model = super().build_model(cfg, from_checkpoint)
        self.pretrained = None  # the model has its tensors
        self.student = model if isinstance(model, LupiStudent) and not from_checkpoint else None
        return model

    def build_criterion(self, cfg: Any) -> Any:
        """Build the criterion; DataError if its weights leave a part of the student untrained."""
        criterion = super().build_criterion(cfg)
        if self.student is not None and isinstance(criterion, LupiCriterion):
            check_training(self.student, criterion.cfg)
            if self.teacher is not None and str(criterion.cfg.soft_labels) != "none":
                self.teacher.check_classes(self.require_classes())
        return criterion

    def measured(self, criterion: Any) -> set[str]:
        of_labels = {"loss", "accuracy", "uar", "macro_f1"}
        known = {"av_classification": of_labels, "lupi": {*of_labels, *MEANS}}.get(
            str(criterion._name), set()
        )
        return known | {METRIC} if known and self.cfg.eer else known

    # -- data ------------------------------------------------------------------------------------------------

    def load_split(self, split: str, task_cfg: Any) -> None:
        self.adopt_features(task_cfg, "segment_frames", "segment_hop")
        cfg = self.cfg
        train = self.trains_on(split)
        clips, kept = self.read_split(split)
        classes = self.read_classes(split, clips, train)
        if self.validation_eer is not None and not train:
            self.validation_eer.check(self.label_file(split), [clips[index] for index in kept])
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
        """Return all clips, and indices of those that have the streams and, in training, a good length."""
        cfg, streams = self.cfg, self.streams
        manifest = Path(cfg.data) / f"{split}.tsv"
        clips = read_manifest(manifest)
        longest = cfg.max_sample_size if self.trains_on(split) else None
        kept = [
            index
            for index in keep_by_length(clips, cfg.min_sample_size, longest)
            if all(getattr(clips[index], stream) is not None for stream in streams)
        ]
        if not kept:
            raise DataError(
                f"{manifest}: no clip has {' and '.join(streams)}; set task.modalities to "
                "the streams that exist"
            )
        if len(kept) < len(clips):
            logger.info("%s: %d of %d clips are used", split, len(kept), len(clips))
        return clips, kept

    def label_file(self, split: str) -> Path:
        return Path(self.cfg.label_dir or self.cfg.data) / f"{split}.{self.cfg.label}"

    def read_classes(self, split: str, clips: list[Clip], train: bool) -> NDArray[np.int64] | None:
        if not self.cfg.label:
            return None
        path = self.label_file(split)
        if self.validation_eer is not None and not train:
            self.validation_eer.read_speakers(path, clips)
        if self.student is not None and self.student.header is None:
            return None  # the teacher's embeddings teach it: any clips will do
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
        """Write the error rate: fairseq calls this before results are printed and compared."""
        if self.validation_eer is not None:
            self.validation_eer.write(stats)

    # -- checkpoints -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {} if self.classes is None else {CLASSES: self.classes.names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a checkpoint was trained with these classes, or use its classes if there are none."""
        names = list(state_dict.get(CLASSES) or [])
        if not names:
            return
        if self.classes is None:
            self.classes = ClassList(names, "the checkpoint")
        elif self.classes.names != ClassList(names, "the checkpoint").names:
            raise DataError(
                f"{self.classes_file}: the checkpoint was trained with other classes ({len(names)}: "
                f"{', '.join(names[:5])}, ...); use its list, or start again in another checkpoint.save_dir"
            )
