"""Which clips are for training, validation and test."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from av_ssl.cli.data_folder import SPLITS
from av_ssl.errors import DataError

# Folder names that decide; pretrain and trainval are LRS3's.
FOLDER_SPLITS = {
    "train": "train",
    "pretrain": "train",
    "trainval": "train",
    "valid": "valid",
    "val": "valid",
    "test": "test",
}
SEVERAL = 3  # clips from which on a fraction above 0 gives at least one


def assign_splits(names: Sequence[str], fractions: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    """Ids of each split, sorted.

    A folder called train, pretrain, trainval, valid, val or test decides for the clips below it. A split that
    no folder names is drawn at random (`seed`) from the training clips, `fractions[split]` of them; all other
    clips are for training. Raises DataError when nothing is left to train on.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in sorted(names):
        splits[folder_split(name) or "train"].append(name)
    pool = splits["train"]
    drawn = list(pool)
    random.Random(seed).shuffle(drawn)
    for split in ("valid", "test"):
        fraction = fractions[split]
        if splits[split] or not fraction:
            continue
        count = round(fraction * len(pool))
        if len(pool) >= SEVERAL:
            count = max(1, count)
        splits[split] = sorted(drawn[:count])
        drawn = drawn[count:]
    splits["train"] = sorted(drawn)
    if not drawn:
        raise DataError(
            f"no clip is left for training: {len(splits['valid'])} are for validation, "
            f"{len(splits['test'])} for test; add clips or lower --valid and --test"
        )
    return splits


def folder_split(name: str) -> str | None:
    """Split that a folder in the id `name` decides, the outermost first; None without such a folder."""
    for part in name.split("/")[:-1]:
        if part.lower() in FOLDER_SPLITS:
            return FOLDER_SPLITS[part.lower()]
    return None
