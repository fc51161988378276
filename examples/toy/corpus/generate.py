"""All clips of a corpus, in several processes. What is finished is never made again."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
from tqdm import tqdm

from av_ssl.errors import DataError
from corpus.clip import Settings, Slot, Studio
from corpus.files import is_finished, write_clip, write_text
from corpus.photographs import Portrait
from corpus.speech import Synthesiser
from corpus.voices import SPLITS

SETTINGS_FILE = "corpus.json"

# Several threads a process would only get in each other's way, and could sum in another order.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Report:
    """Clips that this run made, and clips that were there."""

    made: int
    kept: int


def plan(settings: Settings, counts: Mapping[str, int]) -> list[Slot]:
    """The clips of a corpus with so many in each split; the first do not depend on how many follow.

    Raises `ValueError` for a count below 0 and for a corpus without clips.
    """
    for split, count in counts.items():
        if count < 0:
            raise ValueError(f"{count} clips asked for {split}: give a number from 0")
    slots = [
        Slot(split, number, settings.speakers_in(split))
        for split in SPLITS
        for number in range(counts.get(split, 0))
    ]
    if not slots:
        raise ValueError("no clips asked for: give at least one of --train, --valid, --test a number above 0")
    return slots


def generate(
    root: Path, settings: Settings, counts: Mapping[str, int], portraits: Sequence[Portrait], workers: int
) -> Report:
    """Make the clips that `root` lacks.

    Raises `ValueError` for wrong counts, `DataError` where `root` holds a corpus with other settings or more
    clips, `SpeechError` where espeak-ng cannot be used, and `OSError` where `root` cannot be written.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: give at least 1")
    slots = plan(settings, counts)
    Synthesiser()  # where it is missing, say so here and once, rather than in every worker
    _claim(root, settings, counts)
    missing = [slot for slot in slots if not is_finished(root, slot)]
    if missing:
        with (
            _environment(_ONE_THREAD),
            ProcessPoolExecutor(
                min(workers, len(missing)),
                # A forked worker would inherit what other threads of this process hold locked.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(root, settings, portraits),
            ) as pool,
        ):
            for _ in tqdm(pool.map(_make, missing), total=len(missing), desc="toy corpus", unit="clip"):
                pass
    return Report(made=len(missing), kept=len(slots) - len(missing))


def _claim(root: Path, settings: Settings, counts: Mapping[str, int]) -> None:
    """Note in `root` what is made there, or check that it is what was made there before."""
    path = root / SETTINGS_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot be made ({error.strerror}): choose another folder", str(root)
        ) from error
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            before, had = Settings(**known["settings"]), known["clips"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not written by this program ({error}): choose another folder"
            ) from error
        if before != settings:
            raise DataError(f"{path}: made with {before}, asked for {settings}: choose another folder")
        for split in SPLITS:
            if had.get(split, 0) > counts.get(split, 0):
                raise DataError(
                    f"{path}: holds {had[split]} clips of {split}, asked for {counts.get(split, 0)}: "
                    "choose another folder (a corpus may grow, not shrink)"
                )
    named = asdict(settings)
    if not settings.emotions:
        del named["emotions"]  # as corpora from before there were emotions have it
    document = {"settings": named, "clips": {split: counts.get(split, 0) for split in SPLITS}}
    write_text(path, json.dumps(document, indent=2) + "\n")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment of the processes started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_worker: tuple[Path, Studio] | None = None


def _start_worker(root: Path, settings: Settings, portraits: Sequence[Portrait]) -> None:
    global _worker
    cv2.setNumThreads(1)
    _worker = root, Studio(settings, portraits)


def _make(slot: Slot) -> None:
    assert _worker is not None, "a worker begins with _start_worker"
    root, studio = _worker
    write_clip(root, studio.record(slot))
