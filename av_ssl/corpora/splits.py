"""Which clips are for training, validation and test."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from av_ssl.corpora.corpus import CorpusClip, Draw
from av_ssl.errors import DataError

SPLITS = ("train", "valid", "test")
SEVERAL = 3  # clips or speakers from which on a share above 0 gives at least one
LARGEST_SHARE = 0.1  # of a small corpus that a default number of validation clips may take


def assign_splits(
    clips: Mapping[str, CorpusClip], draw: Draw, seed: int, valid_ids: Collection[str] | None = None
) -> dict[str, list[str]]:
    """Ids of each split, sorted.

    Where the corpus decides, it is followed. Of the other clips (or their speakers) `draw.valid` and
    `draw.test` are drawn at random by `seed`, each unless the corpus has a split of that name; what is left
    is for training. With `valid_ids` just these are for validation. Raises DataError when nothing is left to
    train on.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    undecided = []
    for name in sorted(clips):
        split = clips[name].split
        if valid_ids is not None and name in valid_ids:
            splits["valid"].append(name)
        elif split is None:
            undecided.append(name)
        else:
            splits[split].append(name)
    units = _units(undecided, clips, draw.by_speaker)
    order = sorted(units)
    random.Random(seed).shuffle(order)
    for split, wanted in (("valid", draw.valid), ("test", draw.test)):
        if splits[split] or (split == "valid" and valid_ids is not None):
            continue
        count = _count(wanted, len(units))
        splits[split] = sorted(name for unit in order[:count] for name in units[unit])
        order = order[count:]
    splits["train"] = sorted([*splits["train"], *(name for unit in order for name in units[unit])])
    if not splits["train"]:
        raise DataError(
            f"no clip is left for training: {len(splits['valid'])} are for validation, "
            f"{len(splits['test'])} for test; add clips or lower --valid and --test"
        )
    return splits


def capped(draw: Draw, clips: Mapping[str, CorpusClip]) -> Draw:
    """`draw` with at most a tenth of the undecided clips for validation, as only a part may be at hand."""
    if draw.valid < 1:
        return draw
    undecided = [name for name, clip in clips.items() if clip.split is None]
    most = int(LARGEST_SHARE * len(_units(undecided, clips, draw.by_speaker)))
    return Draw(min(draw.valid, max(1, most)), draw.test, draw.by_speaker)


def _units(names: Sequence[str], clips: Mapping[str, CorpusClip], by_speaker: bool) -> dict[str, list[str]]:
    """What is drawn: single clips, or speakers with their clips."""
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(clips[name].speaker if by_speaker else name, []).append(name)
    return units


def _count(wanted: float, units: int) -> int:
    if not wanted:
        return 0
    if wanted >= 1:
        return int(wanted)
    count = round(wanted * units)
    return max(1, count) if units >= SEVERAL else count
