"""A trained classifier on all clips of a manifest: embeddings, or classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from av_ssl.data.augment import CropAndFlip
from av_ssl.data.classification_dataset import ClassificationDataset
from av_ssl.data.clip_reader import ClipReader
from av_ssl.data.manifest import Clip, with_lengths
from av_ssl.data.noise import NoiseMixer
from av_ssl.data.segments import Segmentation
from av_ssl.errors import DataError
from av_ssl.models.classifier import AVClassifier
from av_ssl.models.loading import load

BATCH_FRAMES = 4000
"""Frames of a batch (160 s), padding included; a longer clip is a batch of its own."""

Progress = Callable[[int, int], None]


def load_classifier(path: Path, device: str) -> AVClassifier:
    """Read a classifier or student, in eval mode.

    Raises DataError when the file holds none, or the machine lacks the device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DataError("--device cuda: torch finds no GPU here; take --device cpu")
    model = load(path)
    if not isinstance(model, AVClassifier):
        raise DataError(f"{path}: holds {type(model).__name__}; needed is an av_classifier or lupi_student")
    return model.to(device)


class ClipRunner:
    """Runs a classifier over whole clips, as it was trained to hear and see.

    Args:
        model: on its device.
        noise: added to the audio; None for none.
        workers: processes that read clips; 0 for this one.
    """

    def __init__(self, model: AVClassifier, noise: NoiseMixer | None = None, workers: int = 0) -> None:
        self.model, self.workers = model, workers
        cfg: dict[str, Any] = dict(model.task_cfg)
        self.reader = ClipReader(
            CropAndFlip(int(cfg["image_crop_size"])),
            modalities=model.encoder.streams,
            audio_input=str(cfg["audio_input"]),
            normalize=bool(cfg["normalize"]),
            noise=noise,
        )
        self.segmentation = Segmentation.of(int(cfg["segment_frames"]), int(cfg["segment_hop"]))
        self.device = next(model.parameters()).device

    def embeddings(
        self, clips: list[Clip], layer: str = "auto", progress: Progress = lambda done, total: None
    ) -> dict[str, NDArray[np.float32]]:
        """Embeddings `[D]` by clip id; see `AVClassifier.embed`.

        Raises DataError when a clip cannot be read or lacks a stream.
        """
        return self._by_clip(clips, lambda **net_input: self.model.embed(layer=layer, **net_input), progress)

    def predictions(
        self, clips: list[Clip], progress: Progress = lambda done, total: None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits `[C]` by clip id; raises DataError as `embeddings` does, or when the model has no header."""
        if self.model.header is None:
            raise DataError("this student has no header yet: train it with model.phase=head")
        return self._by_clip(clips, lambda **net_input: self.model(**net_input)["logits"], progress)

    def _by_clip(
        self, clips: list[Clip], compute: Callable[..., Tensor], progress: Progress
    ) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        progress(0, len(clips))
        for batch in self._batches(clips):
            with torch.inference_mode():
                rows = compute(**batch["net_input"]).float().cpu().numpy()
            found.update(zip(batch["utt_id"], rows, strict=True))
            progress(len(found), len(clips))
        missing = [clip for clip in clips if clip.id not in found]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(clips)} clips cannot be read, e.g. {missing[0].id} (line "
                f"{missing[0].line} of its manifest); mend or remove them"
            )
        return found

    def _batches(self, clips: list[Clip]) -> Iterator[dict[str, Any]]:
        dataset = ClassificationDataset(
            clips=with_lengths(clips),
            reader=self.reader,
            classes=None,
            segmentation=self.segmentation,
            train=False,
            shuffle=False,
        )
        loader: Iterable[dict[str, Any]] = DataLoader(
            dataset,
            batch_sampler=frame_batches(dataset),
            collate_fn=dataset.collater,
            num_workers=self.workers,
        )
        for batch in loader:
            if batch:
                yield {**batch, "net_input": moved(batch["net_input"], self.device)}


def frame_batches(dataset: ClassificationDataset) -> list[list[int]]:
    """Indices of clips, longest first, in batches of up to `BATCH_FRAMES`."""
    batches: list[list[int]] = []
    longest = 0
    for index in dataset.ordered_indices():
        if not batches or longest * (len(batches[-1]) + 1) > BATCH_FRAMES:
            batches.append([])
            longest = dataset.size(int(index))
        batches[-1].append(int(index))
    return batches


def moved(value: Any, device: torch.device) -> Any:
    """Tensors of nested dicts on the device."""
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
