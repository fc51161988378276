"""Transcripts of a data folder: from a manifest to `{subset}.hyp.tsv`, in shards that can be resumed.

    OUT/{subset}.hyp.tsv            id, confidence, words, seconds, text
    OUT/{subset}.hyp.json           settings; other settings are refused
    OUT/bad_clips.{subset}.tsv      clips that could not be read
    OUT/{subset}.hyp.shards/        while the transcripts are being made

A shard is written in one step, so a run that was killed continues after its last finished shard.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from av_ssl.data.dataset import BadClips
from av_ssl.device import torch_threads
from av_ssl.errors import DataError
from av_ssl.io import digest, keep_settings, remove_abandoned, write_atomically
from av_ssl.jobs import HERE, JobOptions, run_missing
from av_ssl.manifest import Clip, check_streams, read_manifest
from av_ssl.transcription.hypotheses import HEADER, Hypothesis, hypotheses_text, read_hypotheses
from av_ssl.transcription.recogniser import RecogniserSpec

CLIPS_A_SHARD = 500
LEAST_CLIPS_A_SHARD = 8
LEAST_SHARDS = 16


@dataclass(frozen=True)
class Lengths:
    """Allowed lengths of clips, and the size of a batch, all in frames."""

    shortest: int
    longest: int
    batch: int

    def of(self, clips: Sequence[Clip]) -> list[Clip]:
        return [clip for clip in clips if self.shortest <= clip.frames <= self.longest]


@dataclass(frozen=True)
class TranscriptPlan:
    """Clips ``{data}/{subset}.tsv`` that are transcribed by the model ``spec``, to the folder ``out``."""

    data: Path
    subset: str
    out: Path
    spec: RecogniserSpec
    lengths: Lengths

    @property
    def manifest(self) -> Path:
        return self.data / f"{self.subset}.tsv"

    @property
    def transcripts(self) -> Path:
        return self.out / f"{self.subset}.hyp.tsv"

    @property
    def settings_file(self) -> Path:
        return self.out / f"{self.subset}.hyp.json"

    @property
    def shard_folder(self) -> Path:
        return self.out / f"{self.subset}.hyp.shards"

    @property
    def bad_clips(self) -> Path:
        return self.out / f"bad_clips.{self.subset}.tsv"


@dataclass(frozen=True)
class TranscriptShard:
    """Shard ``rank`` (from 0) of ``count`` of the clips that are transcribed.

    ``threads`` serve torch and the reading of clips; None: torch's default, and two.
    """

    plan: TranscriptPlan
    rank: int
    count: int
    threads: int | None = None

    @property
    def file(self) -> Path:
        """Its lines of `{subset}.hyp.tsv`, in the manifest's order."""
        return self.plan.shard_folder / f"{self.rank}_{self.count}.tsv"

    def own(self, clips: Sequence[Clip]) -> list[Clip]:
        chosen = self.plan.lengths.of(clips)
        size = math.ceil(len(chosen) / self.count)
        return chosen[self.rank * size : (self.rank + 1) * size]


@dataclass(frozen=True)
class Transcripts:
    """The result of a plan: hypotheses, and ids of the clips that have none."""

    hypotheses: list[Hypothesis]
    unreadable: list[str]
    too_short: list[str]
    too_long: list[str]


def transcribe(plan: TranscriptPlan, where: JobOptions = HERE, threads: int | None = None) -> Transcripts:
    """Transcribe those clips of a subset that are not done yet; ``threads``: see `TranscriptShard`.

    Raises DataError if the manifest or the model cannot be used, or ``plan.out`` holds transcripts that were
    made with other settings.
    """
    clips = checked_clips(plan)
    chosen = plan.lengths.of(clips)
    if not plan.transcripts.exists():
        # A mistake shows here, before settings are kept and before many processes repeat it.
        here = where.kind == "local" and where.workers == 1
        # A process that only starts others takes no GPU: it may have none, or they need its memory.
        spec = plan.spec if here else replace(plan.spec, device="cpu")
        fix = f"{plan.spec.checkpoint.name} needs it: fill in the column, or name other --modalities"
        check_streams(plan.manifest, clips, spec.open().streams, fix)
    keep_plan_settings(plan)
    remove_abandoned(plan.out)
    if not plan.transcripts.exists():
        count = shards_for(len(chosen))
        shards = [TranscriptShard(plan, rank, count, threads) for rank in range(count)]
        title = f"{plan.manifest}: {len(chosen)} clips"
        logs = plan.shard_folder / "logs"
        run_missing(title, transcribe_shard, shards, lambda shard: shard.file.is_file(), where, logs)
        rows = b"".join(shard.file.read_bytes() for shard in shards)
        write_atomically(plan.transcripts, HEADER.encode() + rows)
    shutil.rmtree(plan.shard_folder, ignore_errors=True)
    return summarise(plan, clips)


def checked_clips(plan: TranscriptPlan) -> list[Clip]:
    """The clips of the manifest; DataError if no clip has an allowed length."""
    clips = read_manifest(plan.manifest)
    if not plan.lengths.of(clips):
        raise DataError(
            f"{plan.manifest}: none of {len(clips)} clips has {plan.lengths.shortest} to "
            f"{plan.lengths.longest} video frames; widen --min-frames and --max-frames (--max-tokens)"
        )
    return clips


def keep_plan_settings(plan: TranscriptPlan) -> None:
    """Write the settings of the transcripts; DataError if the folder holds transcripts of other settings."""
    if plan.transcripts.exists() and not plan.settings_file.exists():
        raise DataError(
            f"{plan.transcripts}: was not made by this command; move it away, or choose another --out"
        )
    if not plan.transcripts.exists() and not any(plan.shard_folder.glob("*.tsv")):
        plan.settings_file.unlink(missing_ok=True)  # nothing was made with them
    settings = {**plan.spec.settings(), **vars(plan.lengths), "manifest": digest(plan.manifest)}
    fix = f"delete {plan.transcripts.with_suffix('')}.*, or choose another --out"
    keep_settings(plan.settings_file, settings, fix)


def shards_for(clips: int) -> int:
    """Number of shards for so many clips; it does not depend on the machine, since another may resume."""
    least = min(LEAST_SHARDS, math.ceil(clips / LEAST_CLIPS_A_SHARD))
    return max(1, least, math.ceil(clips / CLIPS_A_SHARD))


@lru_cache(maxsize=1)
def read_clips(manifest: Path) -> tuple[Clip, ...]:
    """A manifest, read once by a process that transcribes several of its shards."""
    return tuple(read_manifest(manifest))


def transcribe_shard(shard: TranscriptShard) -> int:
    """Transcribe one shard; returns its number of transcripts.

    A clip that cannot be read is recorded and left out; DataError if they are more than 1 % of the subset.
    """
    plan = shard.plan
    clips = read_clips(plan.manifest)
    own = shard.own(clips)
    recogniser = plan.spec.open(shard.rank)
    bad = BadClips(plan.bad_clips, {clip.id for clip in clips})
    with torch_threads(shard.threads):
        hypotheses = recogniser.transcribe(own, plan.lengths.batch, shard.threads or 2, bad)
        found = {hypothesis.id: hypothesis for hypothesis in hypotheses}
    in_order = [found[clip.id] for clip in own if clip.id in found]
    write_atomically(shard.file, hypotheses_text(in_order).encode())
    return len(in_order)


def summarise(plan: TranscriptPlan, clips: list[Clip]) -> Transcripts:
    hypotheses = read_hypotheses(plan.transcripts)
    known = {hypothesis.id for hypothesis in hypotheses}
    return Transcripts(
        hypotheses,
        unreadable=[clip.id for clip in plan.lengths.of(clips) if clip.id not in known],
        too_short=[clip.id for clip in clips if clip.frames < plan.lengths.shortest],
        too_long=[clip.id for clip in clips if clip.frames > plan.lengths.longest],
    )
