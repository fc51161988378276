"""A fine-tuned model out of its checkpoint, ready to transcribe batches.

It searches with the generator that its task gives to `fairseq-generate`, so whatever can be decoded there can
be transcribed with here.

Parts of a subset that are transcribed independently of each other; each is a file, whole or not there.

From a manifest without transcripts to `{subset}.hyp.tsv`.

Shards appear whole or not at all, so a killed run goes on where it was.  What the file was made with is kept
beside it, and other settings are refused:

    OUT/{subset}.hyp.tsv            id, confidence, words, seconds, text
    OUT/{subset}.hyp.json           settings
    OUT/bad_clips.{subset}.tsv      clips that could not be read
    OUT/{subset}.hyp.shards/        while it is being made
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.data.data_utils import batch_by_size
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from av_ssl.checkpoints.files import read_stored
from av_ssl.checkpoints.loading import assemble
from av_ssl.data.clip_reader import STREAMS
from av_ssl.data.collate import add_lengths
from av_ssl.data.dataset import AudioVisualDataset, BadClips
from av_ssl.errors import DataError
from av_ssl.inference import stored_modalities
from av_ssl.io import digest, keep_settings, remove_abandoned, write_atomically
from av_ssl.jobs import ClusterOptions, run_shards
from av_ssl.layout import Clip, read_manifest
from av_ssl.tasks.recognition import FEATURE_KEYS, RecognitionConfig, RecognitionTask
from av_ssl.transcription.hypotheses import HEADER, Hypothesis, confidence, hypotheses_text, read_hypotheses


@dataclass(frozen=True)
class SearchOptions:
    """How the best hypothesis is looked for; names and meaning are fairseq-generate's.

    Args:
        beam: hypotheses kept; 1 is greedy.
        lenpen: exponent of the length by which scores of attention decoders are divided; above 1 favours
            longer ones.
        max_len_a, max_len_b: at most `max_len_a * frames + max_len_b` tokens.
    """

    beam: int = 20
    lenpen: float = 1.0
    max_len_a: float = 1.0
    max_len_b: int = 10


@dataclass(frozen=True)
class RecogniserSpec:
    """Which model, and how it is used; small, so that it can be sent to other processes.

    Args:
        checkpoint: a fine-tuned model, `.pt` or `.safetensors`.
        modalities: `audio`, `video` or `av`; None: those it was trained with.
        device: `auto` (a GPU where there is one), `cpu` or `cuda`.
        search: options of the search.
        task_options: further keys of the task `av_recognition`, as `KEY=VALUE`.
    """

    checkpoint: Path
    modalities: str | None = None
    device: str = "auto"
    search: SearchOptions = SearchOptions()
    task_options: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        """What decides the transcripts; a checkpoint counts by its content."""
        settings = {"checkpoint": digest(self.checkpoint), "modalities": self.modalities, **vars(self.search)}
        return {**settings, "task options": sorted(self.task_options)}

    def open(self, rank: int = 0) -> Recogniser:
        """The model, loaded once a process; `rank` chooses among several GPUs when it is.

        Raises DataError when the file is no recogniser, see `Recogniser`, or there is no GPU.
        """
        if self not in _OPEN:
            _OPEN.clear()
            _OPEN[self] = Recogniser(self, torch_device(self.device, rank))
        return _OPEN[self]


_OPEN: dict[RecogniserSpec, Recogniser] = {}


def torch_device(name: str, rank: int = 0) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device of torch; GPUs take turns by `rank`; DataError where none is."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DataError("--device cuda: torch finds no GPU here; take --device cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


class Recogniser:
    """Transcribes clips.

    Args:
        spec: model and options.
        device: where it computes.

    Raises DataError when the checkpoint cannot be read, or holds no dictionary and so no recogniser.
    """

    def __init__(self, spec: RecogniserSpec, device: torch.device) -> None:
        stored = read_stored(spec.checkpoint)
        if stored.text is None:
            raise DataError(
                f"{spec.checkpoint}: holds no dictionary, so its output cannot be turned into words; name a "
                "recogniser that was fine-tuned with av_ssl, or a published one of AV-HuBERT"
            )
        self.spec = spec
        self.device = device
        self.model = assemble(stored).to(device)
        self.task = RecognitionTask(self._task_config(stored.task_cfg), self.model.text_encoder)

    def _task_config(self, stored: Mapping[str, Any]) -> Any:
        """Features as in training, of whole clips."""
        features = {key: stored[key] for key in FEATURE_KEYS if stored.get(key) is not None}
        modalities = self.spec.modalities or trained_modalities(stored, self.spec.checkpoint)
        cfg = RecognitionConfig(data="", modalities=modalities, seed=1, **features)
        cfg.max_sample_size = cfg.max_trim_sample_size = None
        try:
            return OmegaConf.merge(
                OmegaConf.structured(cfg), OmegaConf.from_dotlist(list(self.spec.task_options))
            )
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"--task-option: {reason}; fairseq-generate DATA --user-dir av_ssl --task av_recognition "
                "--help lists the keys"
            ) from error

    @property
    def streams(self) -> tuple[str, ...]:
        """What every clip must have."""
        return STREAMS[str(self.task.cfg.modalities)]

    def dataset(self, clips: Sequence[Clip]) -> AudioVisualDataset:
        """The clips without transcripts, as the model is to see them."""
        # Noise that is asked for comes from the list for test clips.
        return self.task.make_dataset("test", list(clips), self.task.cfg, train=False, shuffle=False)

    @cached_property
    def generator(self) -> Any:
        """The task's generator for this model."""
        options = GenerationConfig(**vars(self.spec.search))
        return self.task.build_generator([self.model], options)

    def transcribe(self, batch: dict[str, Any], clips: Sequence[Clip]) -> list[Hypothesis]:
        """Best hypotheses of a batch of `dataset(clips)`, in the order of the batch."""
        add_lengths(batch["net_input"], self.task.target_dictionary.pad())
        if self.device.type == "cuda":
            batch = utils.move_to_cuda(batch, self.device)
        found = self.task.inference_step(self.generator, [self.model], batch)
        indices = batch["id"].tolist()
        return [
            self._hypothesis(clips[index], best) for index, (best, *_) in zip(indices, found, strict=True)
        ]

    def _hypothesis(self, clip: Clip, found: Mapping[str, Any]) -> Hypothesis:
        dictionary = self.task.target_dictionary
        strip = self.generator.symbols_to_strip_from_output
        symbols = dictionary.string(found["tokens"].int().cpu(), extra_symbols_to_ignore=strip)
        scores = found["positional_scores"]
        total = float(scores.sum()) if len(scores) else float(found["score"])
        text = self.task.text_encoder.decode(symbols)
        return Hypothesis(clip.id, confidence(total, len(scores)), clip.frames, text)


def batches_of(dataset: AudioVisualDataset, max_tokens: int) -> list[list[int]]:
    """Indices of clips, longest first, cut into batches of at most `max_tokens` frames with padding."""
    indices = dataset.ordered_indices()
    sizes = dataset.num_tokens_vec(indices)
    batches = batch_by_size(
        indices, lambda index: dataset.num_tokens(index), num_tokens_vec=sizes, max_tokens=max_tokens
    )
    return [[int(index) for index in batch] for batch in batches]


def trained_modalities(task_cfg: Mapping[str, Any], origin: Path) -> str:
    """`audio`, `video` or `av` by the stored task, ours or AV-HuBERT's; DataError where it does not say."""
    modalities = stored_modalities(task_cfg)
    if modalities is None:
        raise DataError(f"{origin}: does not say which streams it was trained with; name --modalities")
    return modalities


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
