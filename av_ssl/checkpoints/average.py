"""Mean of a model's weights over several checkpoints of one run (Vaswani et al., 2017, section 6.1)."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from av_ssl.checkpoints.files import read_stored
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.errors import DataError

EPOCH_FILE = re.compile(r"checkpoint(\d+)\.pt")
UPDATE_FILE = re.compile(r"checkpoint_\d+_(\d+)\.pt")
"""Names that fairseq gives checkpoints of epochs and of every so many updates."""


def average_checkpoints(paths: Sequence[Path]) -> StoredModel:
    """Average all floating tensors, batch-norm statistics included; the rest is the last checkpoint's.

    Checkpoints are read one after the other, and sums are float32 (float64 for tensors of that type).

    Args:
        paths: fairseq checkpoints or safetensors, in the order of training.

    Raises:
        DataError: one cannot be read or is named twice; they are of different models or dictionaries.
    """
    if not paths:
        raise DataError("no checkpoint to average was named")
    repeated = {path for path in paths if sum(path.resolve() == other.resolve() for other in paths) > 1}
    if repeated:
        raise DataError(f"{min(repeated)}: is named more than once")
    last = read_stored(paths[-1])
    sums = {
        name: torch.zeros(tensor.shape, dtype=torch.promote_types(tensor.dtype, torch.float32))
        for name, tensor in last.tensors.items()
        if tensor.is_floating_point()
    }
    for path in paths:
        stored = last if path == paths[-1] else read_stored(path)
        check_same_model(stored, last)
        for name, total in sums.items():
            total += stored.tensors[name]
    means = {name: (total / len(paths)).to(last.tensors[name].dtype) for name, total in sums.items()}
    return dataclasses.replace(last, tensors={**last.tensors, **means})


def check_same_model(stored: StoredModel, last: StoredModel) -> None:
    """Raise DataError where two checkpoints cannot be of one run."""
    if stored.model_cfg.get("_name") != last.model_cfg.get("_name"):
        raise DataError(
            f"{stored.path} holds a model {stored.model_cfg.get('_name')!r}, {last.path} one "
            f"{last.model_cfg.get('_name')!r}"
        )
    shapes, wanted = ({name: t.shape for name, t in s.tensors.items()} for s in (stored, last))
    differing = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
    if differing:
        raise DataError(
            f"{stored.path} and {last.path} are of different models: {', '.join(differing[:3])} "
            f"({len(differing)} tensors) are missing in one or of another shape"
        )
    symbols, wanted_symbols = ((s.text or {}).get("symbols") for s in (stored, last))
    if symbols != wanted_symbols or stored.label_sets != last.label_sets:
        raise DataError(f"{stored.path} and {last.path} were trained with different dictionaries")


def last_checkpoints(folder: Path, number: int, updates: bool = False) -> list[Path]:
    """The last ``number`` checkpoints of a folder, in the order of training.

    Args:
        updates: count those of updates (``checkpoint_3_5000.pt``), not those of epochs (``checkpoint3.pt``).

    Raises:
        DataError: the folder holds fewer.
    """
    pattern = UPDATE_FILE if updates else EPOCH_FILE
    matches = [(match, path) for path in folder.glob("*.pt") if (match := pattern.fullmatch(path.name))]
    found = [path for _, path in sorted(matches, key=lambda item: int(item[0][1]))]
    if len(found) < number:
        kind, keys = ("EPOCH", "no_epoch_checkpoints, save_interval and keep_last_epochs")
        if updates:
            kind, keys = ("_EPOCH_UPDATE", "save_interval_updates and keep_interval_updates")
        raise DataError(
            f"{folder}: holds {len(found)} checkpoints checkpoint{kind}.pt, not {number}; in training, "
            f"checkpoint.{keys} decide which are kept"
        )
    return found[len(found) - number :]
