"""Parts of a subset that are transcribed independently of each other; each is a file, whole or not there."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from av_ssl.data.bad_clips import BadClips
from av_ssl.data.dataset import AudioVisualDataset
from av_ssl.data.manifest import Clip, read_manifest
from av_ssl.media.files import write_atomically
from av_ssl.transcription.hypotheses import hypotheses_text
from av_ssl.transcription.recogniser import RecogniserSpec, batches_of

CLIPS_A_SHARD = 500
LEAST_CLIPS_A_SHARD = 8
LEAST_SHARDS = 16
BATCHES_AHEAD = 2
"""Read while the model works."""


@dataclass(frozen=True)
class Lengths:
    """Which clips are transcribed, by their frames, and how many frames make a batch."""

    shortest: int
    longest: int
    batch: int

    def of(self, clips: Sequence[Clip]) -> list[Clip]:
        """The clips that are neither too short nor too long."""
        return [clip for clip in clips if self.shortest <= clip.frames <= self.longest]


@dataclass(frozen=True)
class TranscribeJob:
    """Shard `rank` (from 0) of `count` of the clips that are transcribed.

    Args:
        folder: for the file.
        manifest: of all clips.
        bad_clips: lists clips that cannot be read, shared by all shards.
        spec: the model.
        lengths: of clips and batches.
        threads: of torch, and for reading clips; None leaves torch's as they are.
    """

    folder: Path
    rank: int
    count: int
    manifest: Path
    bad_clips: Path
    spec: RecogniserSpec
    lengths: Lengths
    threads: int | None = None

    @property
    def file(self) -> Path:
        """Lines of `{subset}.hyp.tsv`, in the manifest's order."""
        return self.folder / f"{self.rank}_{self.count}.tsv"

    @property
    def complete(self) -> bool:
        """Whether the shard is done."""
        return self.file.is_file()

    def own(self, clips: Sequence[Clip]) -> list[Clip]:
        """Its part of the clips that are transcribed."""
        chosen = self.lengths.of(clips)
        size = math.ceil(len(chosen) / self.count)
        return chosen[self.rank * size : (self.rank + 1) * size]


def shards_for(clips: int) -> int:
    """Number of shards for so many clips; it must not depend on the machine, as a run may go on elsewhere."""
    least = min(LEAST_SHARDS, math.ceil(clips / LEAST_CLIPS_A_SHARD))
    return max(1, least, math.ceil(clips / CLIPS_A_SHARD))


def transcribe_shard(job: TranscribeJob) -> int:
    """Transcribe one shard; returns its number of transcripts.

    A clip that cannot be read is written down and left out; raises DataError when these are more than 1 % of
    the subset.
    """
    clips = read_clips(job.manifest)
    own = job.own(clips)
    recogniser = job.spec.open(job.rank)
    dataset = recogniser.dataset(own)
    dataset.bad_clips = BadClips(job.bad_clips, {clip.id for clip in clips})
    with torch_threads(job.threads):
        found = {
            hypothesis.id: hypothesis
            for batch in read_ahead(dataset, batches_of(dataset, job.lengths.batch), job.threads or 2)
            for hypothesis in recogniser.transcribe(batch, own)
        }
    in_order = [found[clip.id] for clip in own if clip.id in found]
    write_atomically(job.file, hypotheses_text(in_order).encode())
    return len(in_order)


def read_ahead(
    dataset: AudioVisualDataset, batches: Sequence[Sequence[int]], threads: int
) -> Iterator[dict[str, Any]]:
    """Collated batches, without those of which no clip could be read; clips are read by threads meanwhile.

    Threads, for a worker of a pool may have no processes of its own; decoding releases Python's lock.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Any]] = deque()
        for batch in [*batches, *[None] * BATCHES_AHEAD]:
            waiting.append([pool.submit(dataset.__getitem__, index) for index in batch or ()])
            if len(waiting) > BATCHES_AHEAD:
                collated = dataset.collater([sample.result() for sample in waiting.popleft()])
                if collated:
                    yield collated


@contextlib.contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Let torch work in so many threads; None: as many as it likes."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def read_clips(manifest: Path) -> tuple[Clip, ...]:
    """A manifest, read once by a process that does many of its shards."""
    return tuple(read_manifest(manifest))
