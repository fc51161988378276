"""What all tasks share: the keys of the data pipeline, and how a split becomes a data set."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Optional

import numpy as np
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import FairseqTask
from omegaconf import II, MISSING, OmegaConf

from av_ssl.checkpoints.stored import untrained_streams
from av_ssl.compat.keys import option
from av_ssl.data.clip_reader import AUDIO_INPUTS, ClipReader, CropAndFlip
from av_ssl.data.dataset import AudioVisualDataset, DataNeeds, needs_of
from av_ssl.data.noise import NoiseMixer, noise_list, parse_snr
from av_ssl.device import keep_freed_memory
from av_ssl.errors import DataError
from av_ssl.layout import FRAME_RATE, IMAGE_MEAN, IMAGE_STD, STREAMS
from av_ssl.manifest import Clip, keep_by_length, read_manifest
from av_ssl.methods.encoder_model import EncoderModel
from av_ssl.methods.teacher_heads import target_digests
from av_ssl.tasks.data_wait import DataWaitMeter, OnlyRead, WatchedEpochs
from av_ssl.tasks.resuming import ResumableEpochs, data_digest
from av_ssl.tasks.training_log import TrainingLog

logger = logging.getLogger(__name__)

TEACHERS = "teacher_targets"
"""Key of a checkpoint's task state: digests of its speech teachers."""
TOLERATED_BATCH = 1.1
"""Frames that GPUs take at a time, in multiples of those of an update."""
FEATURE_KEYS = ("audio_input", "normalize", "image_crop_size", "image_mean", "image_std")
"""How the model's training read clips; decoding and evaluation take these keys from the checkpoint."""


@dataclass
class AudioVisualTaskConfig(FairseqDataclass):
    """Keys of the data pipeline; those that AV-HuBERT has keep its names."""

    data: str = option(MISSING, "folder with {split}.tsv")
    label_dir: Optional[str] = option(None, "folder with labels and dictionaries; null: data")
    modalities: ChoiceEnum(list(STREAMS)) = option(  # type: ignore[valid-type]
        "av", "streams to load: audio, video, or both (av)"
    )
    audio_input: ChoiceEnum(list(AUDIO_INPUTS)) = option(  # type: ignore[valid-type]
        "filterbank",
        "input of models: stacked log-mel filterbanks, or the 640 raw samples of each video frame (waveform)",
    )
    normalize: bool = option(True, "layer norm of each stacked filterbank frame; no effect on waveforms")
    max_sample_size: Optional[int] = option(500, "leave out longer clips, in video frames")
    min_sample_size: Optional[int] = option(5, "leave out shorter clips, in video frames")
    max_trim_sample_size: Optional[int] = option(
        II("task.max_sample_size"), "cut clips of a batch to so many frames"
    )
    pad_audio: bool = option(True, "pad to the longest clip of a batch; false: cut to the shortest")
    random_crop: bool = option(False, "cut at a random place instead of the end")
    image_aug: bool = option(True, "random crop and flip of training frames")
    image_crop_size: int = option(88, "side of the model's frames, in pixels")
    image_mean: float = option(IMAGE_MEAN, "mean of the pixel values, on the scale 0..1")
    image_std: float = option(IMAGE_STD, "their standard deviation")
    noise_wav: Optional[str] = option(None, "folder with {split}.tsv noise lists")
    noise_prob: float = option(0.0, "probability of noise, a clip")
    noise_snr: str = option("0", "signal-to-noise ratio in dB: a number, or (low,high)")
    noise_num: int = option(1, "noise files averaged")
    seed: int = option(II("common.seed"), "of crops, noise, masks")
    bad_clips_dir: Optional[str] = option(
        None, "folder for bad_clips.{split}.tsv, the clips that cannot be read; null: that of checkpoints"
    )
    frames_per_update: int = option(
        0,
        "frames of an update over all GPUs: sets optimization.update_freq by the number of GPUs; 0: "
        "update_freq stays as it is",
    )


class AudioVisualTask(FairseqTask):
    """Reads manifests and makes data sets; sub-classes add labels.

    What a model asks of the data pipeline is read once, when it is built (``needs``), so data is loaded after
    that, as fairseq's commands do.
    """

    cfg: AudioVisualTaskConfig
    dataset_class: ClassVar[type[AudioVisualDataset]] = AudioVisualDataset

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.data_wait = DataWaitMeter()
        root = root_config(cfg)
        self.log: TrainingLog | None = None
        self.bad_clips_dir = Path(cfg.bad_clips_dir or root.checkpoint.save_dir) if root is not None else None
        self.for_training = True
        self.needs = DataNeeds()
        if cfg.noise_prob > 0 and not cfg.noise_wav:
            logger.warning("noise_prob=%g has no effect: noise_wav names no noise", cfg.noise_prob)
        if cfg.noise_wav and cfg.noise_prob <= 0:
            logger.warning("noise_wav=%s has no effect: noise_prob is 0, so all is clean", cfg.noise_wav)

    @property
    def source_dictionary(self) -> None:
        return None

    @property
    def streams(self) -> tuple[str, ...]:
        return STREAMS[str(self.cfg.modalities)]

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a model and read its ``data_needs``; for training, prepare the process for it."""
        self.for_training = not from_checkpoint
        root = root_config(self.cfg)
        if self.for_training and root is not None:
            self.log = TrainingLog(root)
            keep_effective_batch(root, self.cfg.frames_per_update)
            forget_bad_clips(root)
            if root.common.cpu:
                keep_freed_memory()
        model = super().build_model(cfg, from_checkpoint)
        self.needs = needs_of(model)
        if self.log is not None:
            self.log.describe_model(cfg._name, model)
        return model

    def build_criterion(self, cfg: Any) -> Any:
        """Build the criterion; DataError if no validation measures what is to choose the best checkpoint."""
        root, measured = root_config(self.cfg), self.measured(cfg)
        if root is not None and measured and not root.dataset.disable_validation:
            metric = root.checkpoint.best_checkpoint_metric
            if metric not in measured:
                raise DataError(
                    f"checkpoint.best_checkpoint_metric={metric}: validation measures "
                    f"{', '.join(sorted(measured))}; take one"
                )
        return super().build_criterion(cfg)

    def measured(self, criterion: Any) -> set[str]:
        """What validation measures with a criterion, by its configuration; empty: not known beforehand."""
        return set()

    def build_generator(self, models: Any, args: Any, *others: Any, **options: Any) -> Any:
        """fairseq's search; DataError for models that encode only, and for tasks without transcripts."""
        root = root_config(self.cfg)
        path = root.common_eval.path if root is not None else "the model"
        for model in models:
            if isinstance(model, EncoderModel) or hasattr(model, "encoder_family"):
                raise DataError(
                    f"{path}: is pre-trained only ({type(model).__name__}) and cannot be decoded; fine-tune "
                    "it first (model.w2v_path)"
                )
        if self.target_dictionary is None:
            raise DataError(f"--task {self.cfg._name}: has no transcripts; decode with --task av_recognition")
        return super().build_generator(models, args, *others, **options)

    # -- batching, as fairseq asks for it --------------------------------------------------------------------

    def max_positions(self) -> None:
        return None

    def filter_indices_by_size(
        self, indices: Any, dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """Keep all: clips were selected by length when the manifest was read."""
        return indices

    def get_batch_iterator(self, dataset: Any, *args: Any, **options: Any) -> Any:
        """fairseq's iterator over epochs; that of a training split is timed, and compared when resumed."""
        check_budget(dataset, options.get("max_tokens"))
        epochs = super().get_batch_iterator(dataset, *args, **options)
        if not dataset.train:
            # Of several processes each must take equally many; there fairseq leaves empty batches out itself.
            return epochs if epochs.num_shards > 1 else WatchedEpochs(epochs, OnlyRead())
        if self.log is not None:
            self.log.start(dataset, len(epochs), self.datasets)
        return self.data_wait.watch(ResumableEpochs(epochs, data_digest(dataset, str(self.teacher_state()))))

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        super().optimizer_step(optimizer, model, update_num)
        self.data_wait.end_update()
        if self.log is not None:
            self.log.end_update(update_num + 1)

    # -- from a split to a data set --------------------------------------------------------------------------

    def adopt_features(self, task_cfg: Any, *more: str) -> None:
        """Take ``FEATURE_KEYS`` and ``more`` from the task of the checkpoint that is used; None: none.

        Warns if the checkpoint was trained on other streams.
        """
        if task_cfg is not None and (wrong := untrained_streams(task_cfg, self.streams)):
            logger.warning(
                "task.modalities=%s (--modalities): the model %s: expect errors close to chance",
                self.cfg.modalities,
                wrong,
            )
        for key in (*FEATURE_KEYS, *more):
            if task_cfg is not None and key in task_cfg:
                self.cfg[key] = task_cfg[key]

    def load_dataset(self, split: str, combine: bool = False, task_cfg: Any = None, **unused: Any) -> None:
        """Read a split's lists, after the model was built; in training, none of validation that is off.

        Args:
            combine: fairseq's word for all subsets whose name begins with this one, set for training, too,
                where it has no effect.
            task_cfg: the task's section of a checkpoint that is decoded; its keys of features win.
        """
        if combine and not self.trains_on(split):
            raise DataError(
                "dataset.combine_valid_subsets=true is not supported: set dataset.valid_subset=valid,valid1"
            )
        root = root_config(self.cfg)
        without_validation = root is not None and root.dataset.disable_validation and self.for_training
        if self.trains_on(split) or not without_validation:
            self.require_list(split)
            self.load_split(split, task_cfg)
        if root is not None and self.for_training and split in self.datasets and not self.trains_on(split):
            check_budget(self.datasets[split], root.dataset.max_tokens_valid, "dataset.max_tokens_valid")

    def trains_on(self, split: str) -> bool:
        """Whether a split is trained on, and so augmented in every epoch: that of ``dataset.train_subset``.

        Without fairseq's configuration its name tells.
        """
        root = root_config(self.cfg)
        if root is None:
            return split.startswith("train")
        return self.for_training and split == root.dataset.train_subset

    def require_list(self, split: str) -> None:
        """Raise DataError, with the subsets that there are, if a split has no list of clips."""
        data = Path(self.cfg.data)
        if not (data / f"{split}.tsv").exists():
            there = ", ".join(sorted(path.stem for path in data.glob("*.tsv"))) or "none"
            raise DataError(
                f"{data / f'{split}.tsv'}: does not exist, so {split!r} is no subset; subsets there: {there} "
                "(dataset.train_subset, dataset.valid_subset, --gen-subset; without validation: "
                "dataset.disable_validation=true)"
            )

    def load_split(self, split: str, task_cfg: Any) -> None:
        """Set ``datasets[split]`` from ``{data}/{split}.tsv`` and its labels."""
        raise NotImplementedError

    def read_split(self, split: str) -> tuple[list[Clip], list[int]]:
        """All clips of a split's manifest, and the indices of those of allowed length."""
        clips = read_manifest(Path(self.cfg.data) / f"{split}.tsv")
        return clips, keep_by_length(clips, self.cfg.min_sample_size, self.cfg.max_sample_size)

    def make_dataset(self, split: str, clips: list[Clip], train: bool, **parts: Any) -> AudioVisualDataset:
        """The data set of some clips of allowed length.

        ``split`` names noise lists, teachers' targets and the list of bad clips; ``train`` is with
        augmentation; ``parts`` are labels, and options in place of the configuration's.
        """
        cfg, needs = self.cfg, self.needs
        options = {
            "clips": clips,
            "reader": self.make_reader(split, train),
            "masking": needs.masking,
            "teachers": () if needs.teachers is None else needs.teachers().inputs(split, clips),
            "max_frames": cfg.max_trim_sample_size,
            "pad": cfg.pad_audio,
            "random_crop": cfg.random_crop,
            "seed": cfg.seed,
            "train": train,
            "bad_clips_file": self.bad_clips_dir and self.bad_clips_dir / f"bad_clips.{split}.tsv",
        }
        return self.dataset_class(**{**options, **parts})

    def make_reader(self, split: str, train: bool) -> ClipReader:
        cfg, needs = self.cfg, self.needs
        return ClipReader(
            CropAndFlip(cfg.image_crop_size, random=cfg.image_aug and train),
            modalities=self.streams,
            audio_input=str(cfg.audio_input),
            normalize=cfg.normalize,
            noise=self.make_noise(split, train),
            clean_audio=needs.clean_audio,
            clean_waveform=needs.teachers is not None and any(needs.teachers().online),
        )

    def make_noise(self, split: str, train: bool) -> NoiseMixer | None:
        """The noise that is added to the audio of a split; None: none."""
        cfg = self.cfg
        if not cfg.noise_wav or cfg.noise_prob <= 0 or "audio" not in self.streams:
            return None
        return NoiseMixer(
            noise_list(Path(cfg.noise_wav), split),
            probability=cfg.noise_prob,
            snr=parse_snr(cfg.noise_snr),
            number=cfg.noise_num,
            random_offset=train,
        )

    # -- speech teachers in checkpoints ----------------------------------------------------------------------

    def teacher_state(self) -> dict[str, list[str]]:
        """Digests of the speech teachers for a checkpoint; empty if there are none."""
        return {} if self.needs.teachers is None else {TEACHERS: target_digests(self.needs.teacher_shapes)}

    def check_teachers(self, state: Mapping[str, Any]) -> None:
        """Raise DataError if a checkpoint was trained with other speech teachers than the present ones."""
        stored, now = state.get(TEACHERS), self.teacher_state().get(TEACHERS)
        if stored is not None and now is not None and list(stored) != now:
            raise DataError(
                "model.teachers: the checkpoint was trained with others (other models, layers or clusters, "
                "or another order); name those, or start again in another checkpoint.save_dir"
            )


def check_budget(
    dataset: AudioVisualDataset, max_tokens: int | None, key: str = "dataset.max_tokens"
) -> None:
    """Raise DataError if a batch of ``max_tokens`` frames does not hold the longest clip."""
    frames = dataset.num_tokens_vec(np.arange(len(dataset)))
    if max_tokens and frames.max() > max_tokens:
        clip = dataset.clips[int(frames.argmax())]
        raise DataError(
            f"{key}={max_tokens} (--max-tokens): is less than the {frames.max()} frames of clip {clip.id}: "
            "raise it, or lower task.max_sample_size, or take the clip out of the list"
        )


def root_config(cfg: Any) -> Any:
    """The entire configuration around a task's section; None outside fairseq's commands."""
    root = cfg._get_parent() if OmegaConf.is_config(cfg) else None
    return root if root is not None and {"dataset", "optimization", "checkpoint"} <= set(root) else None


def forget_bad_clips(root: Any) -> None:
    """Remove the lists of a run that left no checkpoint: its clips may have been corrected since."""
    folder = Path(root.checkpoint.save_dir)
    if root.distributed_training.distributed_rank == 0 and not any(folder.glob("checkpoint*.pt")):
        for path in folder.glob("bad_clips.*.tsv"):
            path.unlink()


def keep_effective_batch(root: Any, frames_per_update: int) -> None:
    """Set ``optimization.update_freq``: ``frames_per_update`` frames an update on any number of GPUs.

    Raises DataError if the GPUs take more at a time.
    """
    budget, gpus = root.dataset.max_tokens, root.distributed_training.distributed_world_size
    if not budget:
        return
    if frames_per_update > 0:
        if budget * gpus > TOLERATED_BATCH * frames_per_update:
            raise DataError(
                f"task.frames_per_update is {frames_per_update}, but {gpus} GPUs take {budget * gpus} frames "
                f"at a time: lower dataset.max_tokens to {frames_per_update // gpus}, or set "
                "task.frames_per_update=0 for larger updates"
            )
        given = list(root.optimization.update_freq)
        root.optimization.update_freq = [max(1, round(frames_per_update / (budget * gpus)))]
        if given not in ([1], list(root.optimization.update_freq)):
            logger.warning(
                "optimization.update_freq=%s has no effect: task.frames_per_update=%d decides", given,
                frames_per_update,
            )  # fmt: skip
    accumulate = root.optimization.update_freq[0]
    frames = budget * gpus * accumulate
    logger.info(
        "effective batch: up to %d frames (%.0f s) an update = %d a GPU x %d GPUs x %d micro-batches",
        frames, frames / FRAME_RATE, budget, gpus, accumulate,
    )  # fmt: skip
