"""Clips as a fairseq data set; what a model asks of it; and the list of clips that cannot be read."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from fairseq.data import FairseqDataset
from numpy.typing import NDArray
from torch import Tensor, nn

from av_ssl.data.clip_reader import ClipReader
from av_ssl.data.collate import Extent, Sample, collate_frame_labels, collate_streams, collate_text
from av_ssl.data.labels import FrameLabels, TextLabels
from av_ssl.data.masking import Masking
from av_ssl.data.teacher_batch import TeacherInput, collate_teachers
from av_ssl.errors import DataError, MediaError
from av_ssl.manifest import Clip

logger = logging.getLogger(__name__)

TOLERATED_SHARE = 0.01
NAMED_IN_ERROR = 20


class BadClips:
    """Clips of one data set that cannot be read, shared by all workers and ranks through a file.

    Args:
        file: lines of id and reason, tab-separated; None: the list stays within the process.
        ids: of the clips of the data set; other lines of the file do not count.
    """

    def __init__(self, file: Path | None, ids: Set[str]) -> None:
        self.file = file
        self.ids = ids
        self.tolerated = max(1, int(TOLERATED_SHARE * len(ids)))
        self.reasons: dict[str, str] = {}

    def record(self, clip: Clip, error: Exception) -> None:
        """Record a bad clip; DataError with the list if they are more than one and more than 1 %."""
        if clip.id not in self.reasons:
            reason = " ".join(str(error).split())
            logger.warning("clip %s is left out: %s", clip.id, reason)
            self._share(clip.id, reason)
        if len(self.reasons) <= self.tolerated:
            return
        named = [f"  {id}: {reason}" for id, reason in self.reasons.items()][:NAMED_IN_ERROR]
        if len(self.reasons) > NAMED_IN_ERROR:
            named.append(f"  and {len(self.reasons) - NAMED_IN_ERROR} more")
        listed = f"; {self.file} lists them, delete it after that" if self.file else ""
        if len(kinds := {reason.partition(": ")[2] for reason in self.reasons.values()}) == 1:
            raise DataError(
                f"{len(self.reasons)} clips cannot be read, {self.tolerated} would be tolerated, all for one "
                f"reason: {kinds.pop()}{listed}. They are {', '.join(list(self.reasons)[:NAMED_IN_ERROR])}"
            )
        raise DataError(
            f"{len(self.reasons)} clips cannot be read, {self.tolerated} would be tolerated. Fix them, or "
            f"remove them from the manifest and its label files{listed}:\n" + "\n".join(named)
        )

    def _share(self, id: str, reason: str) -> None:
        """Add this clip, unless it is there, to what other processes have recorded, and read that."""
        self.reasons.update(self._written())
        if id in self.reasons:
            return
        self.reasons[id] = reason
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # A single write to a file opened for appending: lines of several processes do not mix.
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, f"{id}\t{reason}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.warning(
                "%s: cannot be written (%s); each process counts its own bad clips", self.file, error.strerror
            )
        # Of two processes that write at the same time, the later one must see both clips.
        self.reasons.update(self._written())

    def _written(self) -> dict[str, str]:
        if self.file is None or not self.file.exists():
            return {}
        lines = self.file.read_text(encoding="utf-8", errors="replace").splitlines()
        entries = (line.partition("\t") for line in lines if line)
        return {id: reason for id, _, reason in entries if id in self.ids}


class Teachers(Protocol):
    """Speech teachers, as the data pipeline uses them."""

    @property
    def online(self) -> Sequence[bool]:
        """For each teacher, whether it runs in the training step, on clean waveforms."""

    def inputs(self, split: str, clips: Sequence[Clip]) -> list[TeacherInput]:
        """What each teacher adds to the clips of a split."""


@dataclass(frozen=True)
class DataNeeds:
    """What a model asks of the data pipeline: its property `data_needs`, which tasks read in `needs_of`.

    Args:
        masking: draws the masks of each batch; None: there are none.
        audio_input: `filterbank` or `waveform`.
        clean_audio: batches also hold the audio without noise (`audio_clean`), for a teacher.
        teachers: opens the speech teachers, when data is loaded; None: there are none.
        teacher_shapes: sizes and digests of their targets, see `TeacherFolder.shape`.
    """

    masking: Masking | None = None
    audio_input: str = "filterbank"
    clean_audio: bool = False
    teachers: Callable[[], Teachers] | None = None
    teacher_shapes: Sequence[Mapping[str, Any]] = ()


def needs_of(model: nn.Module) -> DataNeeds:
    """What a model, or the encoder inside it, asks of the data pipeline; nothing if neither declares it."""
    declared = (part.data_needs for part in model.modules() if hasattr(part, "data_needs"))
    return cast(DataNeeds, next(declared, DataNeeds()))


CLIP, BATCH = 0, 1
"""Different random numbers for a clip, and for a batch whose first clip has the same number."""


class AudioVisualDataset(FairseqDataset):
    """Clips with audio, video or both, and their labels.

    Random numbers depend only on `seed`, on the epoch (in training) and on the clip or the clips of a batch:
    they are the same in a resumed run, for any number of workers and on any rank, and evaluation adds the
    same noise in every run.

    Args:
        clips: see `read_manifest`.
        reader: which streams are loaded, and how.
        labels: transcripts, or sets of frame labels; one entry per clip.
        masking: draws masks for each batch, which needs both streams.
        teachers: speech teachers, see `TeacherBatch`.
        max_frames: length to which clips of a batch are cut.
        pad: pad clips to the longest of a batch; False cuts them to the shortest.
        random_crop: cut at a random place instead of the end.
        train: other random numbers in every epoch.
        bad_clips_file: list of clips that cannot be read.
        shuffle: clips of equal length come in random order.

    Raises DataError if a clip lacks a stream that is loaded, ValueError if arguments contradict each other.
    """

    def __init__(
        self,
        *,
        clips: Sequence[Clip],
        reader: ClipReader,
        labels: TextLabels | list[FrameLabels] | None = None,
        masking: Masking | None = None,
        teachers: Sequence[TeacherInput] = (),
        max_frames: int | None = None,
        pad: bool = True,
        random_crop: bool = False,
        seed: int = 1,
        train: bool = True,
        bad_clips_file: Path | None = None,
        shuffle: bool = True,
    ) -> None:
        self.clips = list(clips)
        self.reader = reader
        self.text = labels if isinstance(labels, TextLabels) else None
        self.frame_labels = labels if isinstance(labels, list) else []
        self.masking = masking
        self.teachers = list(teachers)
        self.max_frames = max_frames
        self.pad = pad
        self.random_crop = random_crop
        self.seed = seed
        self.train = train
        self.shuffle = shuffle
        # fairseq's workers live for several epochs: they learn of a new one only through shared memory.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self.bad_clips = BadClips(bad_clips_file, {clip.id for clip in self.clips})
        self.sizes: NDArray[np.int64] = np.array([clip.frames for clip in self.clips], np.int64)
        self._check()

    def _check(self) -> None:
        if not self.clips:
            raise ValueError("there are no clips")
        self.reader.check_streams(self.clips)
        for labels in [self.text] if self.text is not None else self.frame_labels:
            if len(labels) != len(self.clips):
                raise ValueError(
                    f"{len(labels)} labels for {len(self.clips)} clips: select() those of these clips"
                )
        if self.text is not None and not self.pad:
            raise ValueError("transcripts belong to entire clips, which must not be cut: set pad_audio=true")
        if self.text is not None and self.max_frames is not None and self.sizes.max() > self.max_frames:
            raise ValueError(
                f"transcripts belong to entire clips, but clips of {self.sizes.max()} frames would be cut to "
                f"{self.max_frames}: raise max_trim_sample_size or lower max_sample_size"
            )
        if self.masking is not None and len(self.reader.modalities) < 2:
            raise ValueError("masks are drawn for audio and video: load both streams (modalities)")

    # -- samples ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample | None:
        """Read a clip; one that cannot be read is recorded (see `BadClips`) and gives None."""
        clip = self.clips[index]
        try:
            return self._read(index, clip)
        except MediaError as error:
            self.bad_clips.record(clip, error)
            return None

    def _read(self, index: int, clip: Clip) -> Sample:
        # By id, not by position: a test set that is sharded or filtered gets the same noise.
        rng = self._generator(CLIP, zlib.crc32(clip.id.encode()))
        sample = self.reader.read(index, clip, self._labels(index), rng)
        if self.teachers:
            sample = replace(sample, teachers=[teacher.read(index) for teacher in self.teachers])
        return sample.cut(min(map(len, sample.labels))) if self.frame_labels else sample

    def _labels(self, index: int) -> list[Tensor]:
        if self.text is not None:
            return [self.text[index]]
        return [labels[index] for labels in self.frame_labels]

    def _generator(self, kind: int, *numbers: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch if self.train else 0, kind, *numbers))

    # -- batches ---------------------------------------------------------------------------------------------

    def collater(self, samples: Sequence[Sample | None]) -> dict[str, Any]:
        """Make a batch of B clips and T frames.

        Returns:
            `id` int64 `[B]`, `utt_id`, `net_input` (see `collate_streams`, `collate_text`; `masks`, see
            `Masking`; `teachers`, see `TeacherBatch`), `nsentences`, `ntokens` (target tokens, or real
            frames), and `target` int64 `[B, L]`, or for frame labels `target_list` of int64 `[B, T]`. If no
            clip can be read, in training another one takes the place, since fairseq scales an update with an
            empty batch wrongly; else it is empty, as fairseq's batches at the end of a rank's data are.
        """
        readable = [sample for sample in samples if sample is not None]
        if not readable and self.train:
            others = (self[index] for index in range(len(self)))
            readable = list(islice((sample for sample in others if sample is not None), 1))
        if not readable:
            return {}
        ids = [sample.index for sample in readable]
        rng = self._generator(BATCH, *ids)
        extent = Extent.fit(
            [sample.frames for sample in readable], self.max_frames, self.pad, self.random_crop, rng
        )
        net_input = collate_streams(readable, extent)
        if self.masking is not None:
            net_input["masks"] = self.masking.draw(extent.lengths, extent.frames, rng, training=self.train)
        if self.teachers:
            masks = net_input.get("masks")
            net_input["teachers"] = collate_teachers(readable, self.teachers, extent, masks)
        batch = {
            "id": torch.tensor(ids),
            "utt_id": [sample.utt_id for sample in readable],
            "net_input": net_input,
            "nsentences": len(readable),
            "ntokens": sum(extent.lengths),
        }
        batch.update(self._targets(readable, extent, net_input))
        return batch

    def _targets(
        self, samples: Sequence[Sample], extent: Extent, net_input: dict[str, Any]
    ) -> dict[str, Any]:
        if self.text is not None:
            dictionary = self.text.dictionary
            return collate_text(samples, net_input, dictionary.pad(), dictionary.eos())
        if not self.frame_labels:
            return {}
        targets = [
            collate_frame_labels([sample.labels[k] for sample in samples], extent, labels.dictionary.pad())
            for k, labels in enumerate(self.frame_labels)
        ]
        return {"target_list": targets}

    # -- batching, as fairseq asks for it --------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Use the random numbers of this epoch from now on, in running workers too."""
        self._epoch.fill_(epoch)

    def size(self, index: int) -> int:
        return int(self.sizes[index])

    def num_tokens(self, index: int) -> int:
        """Frames that count towards the budget of a batch (`max_tokens`)."""
        return int(self.num_tokens_vec(np.array([index]))[0])

    def num_tokens_vec(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        sizes = self.sizes[indices]
        return sizes if self.max_frames is None else np.minimum(sizes, self.max_frames)

    def ordered_indices(self) -> NDArray[np.int64]:
        """Longest clips first, equal lengths in random order (numpy's generator, seeded by fairseq)."""
        ties = np.random.permutation(len(self)) if self.shuffle else np.arange(len(self))
        return np.lexsort((ties, -self.sizes))
