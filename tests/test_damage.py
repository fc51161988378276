"""Damages the files of a data folder at random: each is an error that names it, or has the same extent.

A bit of a sample, a pixel or a label that was flipped cannot be told from another one: these formats have no
checksums.  What must not happen is that clips, frames or labels are lost, added or moved without a word.

    AV_SSL_DAMAGES=150 pytest -s tests/test_damage.py
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av_ssl.data.labels import FrameLabels, keep_agreeing
from av_ssl.data.reading import read_crops, read_wave
from av_ssl.data.text import load_dictionary
from av_ssl.errors import DataError
from av_ssl.io import growing_array, write_atomically
from av_ssl.manifest import read_manifest
from av_ssl.targets.feature_shards import FeatureShard
from tests.checkpoints.foreign import damaged
from tests.data_folder import write_data, write_labels

DAMAGES = int(os.environ.get("AV_SSL_DAMAGES", "30"))
"""Of each file."""


@dataclass(frozen=True)
class Kind:
    """A file, and what of its content must stay as it is unless an error is raised."""

    path: Path
    extent: Callable[[], Any]


def kinds(folder: Path) -> dict[str, Kind]:
    data = write_data(folder / "data")
    write_labels(data, data, "km", 25)
    clips = read_manifest(data / "train.tsv")
    shard = FeatureShard(folder, "train", 0, 1)
    with growing_array(shard.features, 4, "float32") as append:
        for clip in clips:
            append([[clip.frames] * 4] * clip.frames)
    write_atomically(shard.lengths, "".join(f"{clip.frames}\n" for clip in clips).encode())
    crops, wave = data / "train_3.npy", data / "train_3.wav"

    def labelled_clips() -> list[int]:
        """As training reads manifest, labels and dictionary."""
        clips, dictionary = read_manifest(data / "train.tsv"), load_dictionary(data / "dict.km.txt")
        labels = FrameLabels(data / "train.km", dictionary, clips, 25)
        return keep_agreeing(clips, [labels], list(range(len(clips))))

    return {
        "crops": Kind(crops, lambda: read_crops(crops).shape),
        "sound": Kind(wave, lambda: len(read_wave(wave))),
        **{name: Kind(data / name, labelled_clips) for name in ("train.tsv", "train.km", "dict.km.txt")},
        "targets": Kind(shard.features, lambda: shard.read()[0].shape),
        "lengths of targets": Kind(shard.lengths, lambda: list(shard.read()[1])),
    }


def try_damages(folder: Path, number: int, seed: int = 0) -> dict[str, Counter[str]]:
    """How many damages of each kind were refused, reported, without effect on the extent, or silent."""
    found: dict[str, Counter[str]] = {}
    for name, kind in kinds(folder).items():
        rng, content, expected = random.Random(seed), kind.path.read_bytes(), kind.extent()
        found[name] = Counter()
        for _ in range(number):
            kind.path.write_bytes(damaged(content, rng))
            with warnings() as reports:
                try:
                    outcome = "same" if kind.extent() == expected else "reported" if reports else "silent"
                except DataError as error:
                    outcome = "refused" if str(folder) in str(error) else str(error)
            found[name][outcome] += 1
        kind.path.write_bytes(content)
    return found


@contextlib.contextmanager
def warnings() -> Iterator[list[logging.LogRecord]]:
    """Collects the warnings that this package logs."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("av_ssl")
    logger.addHandler(handler)
    logger.propagate = False
    yield records
    logger.propagate = True
    logger.removeHandler(handler)


def test_damage_is_never_silent(tmp_path):
    for name, outcomes in try_damages(tmp_path, DAMAGES, seed=1).items():
        print(f"{name}: {dict(outcomes)}")
        assert outcomes.keys() <= {"refused", "reported", "same"}, name
        assert outcomes["refused"] + outcomes["reported"], name
