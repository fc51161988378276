"""Transcripts of a subset: from a manifest to `{subset}.hyp.tsv`, in shards that can be resumed.

    OUT/{subset}.hyp.tsv            id, confidence, words, seconds, text
    OUT/{subset}.hyp.json           settings; other settings are refused
    OUT/bad_clips.{subset}.tsv      clips that could not be read
    OUT/{subset}.hyp.shards/        while the transcripts are being made

A shard is written in one step, so a run that was killed continues after its last finished shard.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from av_ssl.data.dataset import BadClips
from av_ssl.errors import DataError
from av_ssl.inference import Hypothesis, RecogniserSpec
from av_ssl.io import digest, keep_settings, remove_abandoned, write_atomically
from av_ssl.jobs import ClusterOptions, run_shards
from av_ssl.layout import Clip, read_manifest
from av_ssl.transcription.hypotheses import HEADER, hypotheses_text, read_hypotheses

CLIPS_A_SHARD = 500
LEAST_CLIPS_A_SHARD = 8
LEAST_SHARDS = 16


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
    bad = BadClips(job.bad_clips, {clip.id for clip in clips})
    with torch_threads(job.threads):
        hypotheses = recogniser.transcribe(own, job.lengths.batch, job.threads or 2, bad)
        found = {hypothesis.id: hypothesis for hypothesis in hypotheses}
    in_order = [found[clip.id] for clip in own if clip.id in found]
    write_atomically(job.file, hypotheses_text(in_order).encode())
    return len(in_order)


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


Progress = Callable[[int, int], None]
Stage = Callable[[str], AbstractContextManager[Progress]]
"""Called with what begins; gives what is told how many shards are done, of how many."""


@dataclass(frozen=True)
class TranscriptPlan:
    """What is to be transcribed, how, and where to.

    Args:
        data: folder with `{subset}.tsv`.
        subset: its name.
        out: folder for the transcripts.
        spec: the model.
        lengths: of clips and batches, in frames.
    """

    data: Path
    subset: str
    out: Path
    spec: RecogniserSpec
    lengths: Lengths

    @property
    def manifest(self) -> Path:
        """The clips."""
        return self.data / f"{self.subset}.tsv"

    @property
    def transcripts(self) -> Path:
        """The result."""
        return self.out / f"{self.subset}.hyp.tsv"

    @property
    def settings_file(self) -> Path:
        """What the result was made with."""
        return self.out / f"{self.subset}.hyp.json"

    @property
    def shards(self) -> Path:
        """Folder of what is done so far."""
        return self.out / f"{self.subset}.hyp.shards"

    @property
    def bad_clips(self) -> Path:
        """List of clips that cannot be read."""
        return self.out / f"bad_clips.{self.subset}.tsv"


@dataclass(frozen=True)
class Transcripts:
    """What came of a plan: hypotheses, and the clips that have none."""

    hypotheses: list[Hypothesis]
    unreadable: list[str]
    too_short: list[str]
    too_long: list[str]


def transcribe(
    plan: TranscriptPlan, cluster: ClusterOptions, stage: Stage, threads: int | None
) -> Transcripts:
    """Transcribe the clips of a subset, those that are not done yet.

    Args:
        plan: what to do.
        cluster: where shards run.
        stage: told what begins and how far it is.
        threads: of each worker; None: as many as torch likes.

    Raises DataError when the manifest cannot be used, the model cannot be loaded, or `plan.out` holds
    transcripts that were made in another way.
    """
    clips = checked_clips(plan)
    if not plan.transcripts.exists():
        # A mistake shows here, before it is noted as a setting and many processes make it.
        here = cluster.kind == "local" and cluster.workers == 1
        # The machine that starts Slurm jobs may have no GPU; one that only waits needs none of its memory.
        spec = plan.spec if here else replace(plan.spec, device="cpu")
        check_streams(plan, clips, spec.open().streams)
    keep_plan_settings(plan)
    remove_abandoned(plan.out)
    if not plan.transcripts.exists():
        jobs = shard_jobs(plan, len(plan.lengths.of(clips)), threads)
        with stage(f"{plan.manifest}: {len(plan.lengths.of(clips))} clips") as progress:
            run_missing(jobs, cluster, plan.shards / "logs", progress)
        rows = b"".join(job.file.read_bytes() for job in jobs)
        write_atomically(plan.transcripts, HEADER.encode() + rows)
    shutil.rmtree(plan.shards, ignore_errors=True)
    return summarise(plan, clips)


def checked_clips(plan: TranscriptPlan) -> list[Clip]:
    """The clips of the manifest; DataError when an id occurs twice or none has an allowed length."""
    clips = read_manifest(plan.manifest)
    lines: dict[str, int] = {}
    for clip in clips:
        if clip.id in lines:
            raise DataError(
                f"{plan.manifest}, line {clip.line}: id {clip.id!r} stands on line {lines[clip.id]}, too: "
                "their transcripts could not be told apart; rename one"
            )
        lines[clip.id] = clip.line
    if not plan.lengths.of(clips):
        raise DataError(
            f"{plan.manifest}: none of {len(clips)} clips has {plan.lengths.shortest} to "
            f"{plan.lengths.longest} video frames; widen --min-frames and --max-frames (--max-tokens)"
        )
    return clips


def check_streams(plan: TranscriptPlan, clips: list[Clip], streams: tuple[str, ...]) -> None:
    """Raise DataError when a clip lacks a stream that the model reads."""
    for clip in clips:
        for stream in streams:
            if getattr(clip, stream) is None:
                raise DataError(
                    f"{plan.manifest}, line {clip.line}: clip {clip.id} has no {stream}, which "
                    f"{plan.spec.checkpoint.name} is to transcribe; fill in the column, or name --modalities"
                )


def keep_plan_settings(plan: TranscriptPlan) -> None:
    """Note what transcripts are made with; DataError when the folder holds others."""
    if plan.transcripts.exists() and not plan.settings_file.exists():
        raise DataError(
            f"{plan.transcripts}: was not made by this command; move it away, or choose another --out"
        )
    if not plan.transcripts.exists() and not any(plan.shards.glob("*.tsv")):
        plan.settings_file.unlink(missing_ok=True)  # nothing was made with them
    settings = {**plan.spec.settings(), **vars(plan.lengths), "manifest": digest(plan.manifest)}
    mend = f"delete {plan.transcripts.with_suffix('')}.*, or choose another --out"
    keep_settings(plan.settings_file, settings, mend)


def shard_jobs(plan: TranscriptPlan, clips: int, threads: int | None) -> list[TranscribeJob]:
    """All shards of so many clips."""
    count = shards_for(clips)
    return [
        TranscribeJob(
            plan.shards, rank, count, plan.manifest, plan.bad_clips, plan.spec, plan.lengths, threads
        )
        for rank in range(count)
    ]


def run_missing(jobs: list[TranscribeJob], cluster: ClusterOptions, logs: Path, progress: Progress) -> None:
    """Work through the shards that are not complete."""
    todo = [job for job in jobs if not job.complete]
    done = len(jobs) - len(todo)
    run_shards(
        transcribe_shard, todo, cluster, logs, lambda finished, _: progress(done + finished, len(jobs))
    )


def summarise(plan: TranscriptPlan, clips: list[Clip]) -> Transcripts:
    """The finished transcripts, and why other clips have none."""
    hypotheses = read_hypotheses(plan.transcripts)
    known = {hypothesis.id for hypothesis in hypotheses}
    return Transcripts(
        hypotheses,
        unreadable=[clip.id for clip in plan.lengths.of(clips) if clip.id not in known],
        too_short=[clip.id for clip in clips if clip.frames < plan.lengths.shortest],
        too_long=[clip.id for clip in clips if clip.frames > plan.lengths.longest],
    )
