"""AV-HuBERT's task under its own name and keys, so that its YAML files and checkpoints work unchanged.

It translates them: pre-training becomes :class:`PretrainingTask`, fine-tuning :class:`RecognitionTask`.
"""

from dataclasses import dataclass
from typing import Any, List, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import FairseqTask, register_task
from omegaconf import MISSING, OmegaConf

from av_ssl.compat.keys import option
from av_ssl.layout import FRAME_RATE, IMAGE_MEAN, IMAGE_STD
from av_ssl.tasks.pretraining import PretrainingConfig, PretrainingTask
from av_ssl.tasks.recognition import RecognitionConfig, RecognitionTask

STACKED_FRAMES = 4
"""Filterbank frames of 10 ms in a frame of 25 Hz."""
SEQUENCE_LABELS = -1


@dataclass
class AVHubertTaskConfig(FairseqDataclass):
    """AV-HuBERT's keys, names and defaults, except those marked [ours]."""

    data: str = option(MISSING, "folder with {split}.tsv")
    label_dir: Optional[str] = option(None, "folder with labels and dictionaries; null: data")
    labels: List[str] = option(["ltr"], "extensions of the label files")
    label_rate: float = option(-1.0, "labels a second; -1: transcripts")
    sample_rate: int = option(16000, "unit of clip sizes in pre-training: 25, video frames a second")
    normalize: bool = option(False, "layer norm of each stacked filterbank frame")
    enable_padding: bool = option(False, "without effect")
    pdb: bool = option(False, "without effect")
    skip_verify: bool = option(False, "without effect: labels are always checked")
    input_modality: Optional[str] = option(None, "without effect")
    max_sample_size: Optional[int] = option(None, "leave out longer clips")
    min_sample_size: Optional[int] = option(None, "leave out shorter clips")
    # AV-HuBERT has ${task.max_sample_size} here, which fairseq-generate cannot resolve if that is null.
    max_trim_sample_size: Optional[int] = option(
        None, "cut clips of a batch to so many frames; null: max_sample_size"
    )
    single_target: Optional[bool] = option(False, "true for transcripts (label_rate -1)")
    random_crop: Optional[bool] = option(True, "cut at a random place")
    pad_audio: Optional[bool] = option(False, "pad to the longest of a batch")
    stack_order_audio: int = option(1, "filterbank frames in a frame; only 4 is supported")
    image_aug: bool = option(False, "random crop and flip in training")
    image_crop_size: int = option(88, "side of the frames, in pixels")
    image_mean: float = option(IMAGE_MEAN, "mean of the pixel values")
    image_std: float = option(IMAGE_STD, "their standard deviation")
    modalities: Optional[List[str]] = option(["audio", "video"], "streams to load")
    is_s2s: bool = option(False, "transcripts are cut into sentencepieces")
    fine_tuning: bool = option(False, "recognition instead of pre-training")
    tokenizer_bpe_name: Optional[str] = option(None, "sentencepiece")
    tokenizer_bpe_model: Optional[str] = option(None, "its model file; null: {label_dir}/spm.model")
    noise_wav: Optional[str] = option(None, "folder with {split}.tsv noise lists")
    noise_prob: float = option(0.0, "probability of noise, a clip")
    noise_snr: Optional[str] = option("0", "signal-to-noise ratio in dB: a number, or (low,high)")
    noise_num: int = option(1, "noise files averaged")
    frames_per_update: int = option(
        0,
        "frames of an update over all GPUs: sets optimization.update_freq by the number of GPUs; 0: "
        "update_freq stays as it is [ours]",
    )


SHARED_KEYS = (
    "data", "label_dir", "normalize", "max_sample_size", "min_sample_size", "max_trim_sample_size",
    "random_crop", "pad_audio", "image_aug", "image_crop_size", "image_mean", "image_std", "noise_wav",
    "noise_prob", "noise_num", "frames_per_update",
)  # fmt: skip
"""Keys that mean the same in our tasks."""


@register_task("av_hubert_pretraining", dataclass=AVHubertTaskConfig)
class AVHubertTask(FairseqTask):
    """Sets up :class:`PretrainingTask`, or with ``fine_tuning`` :class:`RecognitionTask`."""

    @classmethod
    def setup_task(cls, cfg: AVHubertTaskConfig, **unused: Any) -> FairseqTask:
        check_supported(cfg)
        parent = cfg._get_parent() if OmegaConf.is_config(cfg) else None
        if cfg.fine_tuning:
            tokenizer = cfg.tokenizer_bpe_model if cfg.is_s2s else ""
            own: Any = RecognitionConfig(labels=cfg.labels[0], tokenizer=tokenizer)
        else:
            own = PretrainingConfig(labels=list(cfg.labels), label_rate=cfg.label_rate)
        for key in SHARED_KEYS:
            setattr(own, key, cfg[key])
        if own.max_trim_sample_size is None:
            own.max_trim_sample_size = own.max_sample_size
        streams = list(cfg.modalities or [])
        own.modalities = "av" if len(streams) == 2 else streams[0]
        own.noise_snr = str(cfg.noise_snr)
        if parent is None or "common" not in parent:  # a stored task without its configuration has no seed
            own.seed = 1
        own = OmegaConf.structured(own)
        own._set_parent(parent)
        return (RecognitionTask if cfg.fine_tuning else PretrainingTask).setup_task(own)


def check_supported(cfg: AVHubertTaskConfig) -> None:
    """Raise ValueError for values that are not supported or contradict each other."""
    if cfg.stack_order_audio != STACKED_FRAMES:
        raise ValueError(
            f"task.stack_order_audio is {cfg.stack_order_audio}; {STACKED_FRAMES} filterbank frames of 10 ms "
            "make a frame of 25 Hz: set it to 4, as AV-HuBERT's recipes do"
        )
    streams = list(cfg.modalities or [])
    if not streams or not {"audio", "video"}.issuperset(streams) or len(set(streams)) != len(streams):
        raise ValueError(f"task.modalities is {streams}; take [audio], [video] or [audio,video]")
    if cfg.fine_tuning and cfg.is_s2s and cfg.tokenizer_bpe_name not in (None, "sentencepiece"):
        raise ValueError(
            f"task.tokenizer_bpe_name is {cfg.tokenizer_bpe_name}; only sentencepiece is supported"
        )
    if cfg.fine_tuning and len(cfg.labels) != 1:
        raise ValueError(f"task.labels is {list(cfg.labels)}; fine-tuning takes one set of transcripts")
    if not cfg.fine_tuning and cfg.label_rate == SEQUENCE_LABELS:
        raise ValueError("task.label_rate is -1 (transcripts) in pre-training: set it to the labels a second")
    if not cfg.fine_tuning and cfg.sample_rate != FRAME_RATE:
        raise ValueError(
            f"task.sample_rate is {cfg.sample_rate}; clips are measured in video frames: set it to "
            f"{FRAME_RATE}"
        )
