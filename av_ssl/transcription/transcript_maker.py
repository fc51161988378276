"""From a manifest without transcripts to `{subset}.hyp.tsv`.

Shards appear whole or not at all, so a killed run goes on where it was.  What the file was made with is kept
beside it, and other settings are refused:

    OUT/{subset}.hyp.tsv            id, confidence, words, seconds, text
    OUT/{subset}.hyp.json           settings
    OUT/bad_clips.{subset}.tsv      clips that could not be read
    OUT/{subset}.hyp.shards/        while it is being made
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from av_ssl.cluster import ClusterOptions, run_shards
from av_ssl.data.manifest import Clip, read_manifest
from av_ssl.errors import DataError
from av_ssl.media.files import remove_abandoned, write_atomically
from av_ssl.targets.kept_settings import digest, keep_settings
from av_ssl.transcription.hypotheses import HEADER, Hypothesis, read_hypotheses
from av_ssl.transcription.recogniser import RecogniserSpec
from av_ssl.transcription.transcript_shards import Lengths, TranscribeJob, shards_for, transcribe_shard

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
