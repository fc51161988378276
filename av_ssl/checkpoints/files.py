"""Models on disk: the suffix of a file says which form it has. Reading runs no code from any of them."""

import importlib
from pathlib import Path
from typing import Any

from av_ssl.checkpoints.fairseq_file import is_fairseq, read_state, stored_model, write_fairseq
from av_ssl.checkpoints.raven_weights import published_tensors, stored_encoder
from av_ssl.checkpoints.stored import StoredModel
from av_ssl.errors import DataError

FAIRSEQ, SAFETENSORS = ".pt", ".safetensors"


class CheckpointError(DataError):
    """A checkpoint does not hold what is asked of it."""


def read_stored(path: str | Path) -> StoredModel:
    """Read a model on the CPU: fairseq's checkpoint, RAVEn's weights, or ``.safetensors`` and its JSON.

    Raises:
        DataError: the file is missing, cut off, something else, or asks for code to be run.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    stored = safetensors_file().read_safetensors(path) if path.suffix == SAFETENSORS else read_pickled(path)
    for section in ("model", "task"):
        if not isinstance(stored.cfg.get(section), dict):
            raise DataError(f"{path}: its configuration has no section {section!r}; it is not from fairseq")
    return stored


def read_pickled(path: Path) -> StoredModel:
    """Read a file of ``torch.save``: a checkpoint with its configuration, or RAVEn's bare tensors."""
    state = read_state(path)
    if not is_fairseq(state):
        tensors = published_tensors(state)
        if tensors is not None:
            return stored_encoder(tensors, path)
    return stored_model(state, path)


def write_stored(stored: StoredModel, path: str | Path) -> list[Path]:
    """Write a model in the form that the suffix of ``path`` names; returns the files.

    Raises:
        DataError: the suffix is neither ``.pt`` nor ``.safetensors``, or a file cannot be written.
    """
    path = Path(path)
    if path.suffix == FAIRSEQ:
        write_fairseq(stored, path)
        return [path]
    if path.suffix == SAFETENSORS:
        safetensors_file().write_safetensors(stored, path)
        return [path, path.with_suffix(".json")]
    raise DataError(f"{path}: name a file that ends in {FAIRSEQ} (fairseq) or {SAFETENSORS}")


def safetensors_file() -> Any:
    try:
        return importlib.import_module("av_ssl.checkpoints.safetensors_file")
    except ModuleNotFoundError as error:
        if error.name != "safetensors":
            raise
        raise DataError("safetensors is not installed; pip install 'av_ssl[convert]'") from error


def read_checkpoint(path: str | Path, key: str = "model.w2v_path") -> StoredModel:
    """Read a pre-trained model on the CPU, without running code from its file; ``key`` names it in errors.

    Raises:
        CheckpointError: the file is missing, cut off, no checkpoint, or asks for code to be run.
    """
    try:
        return read_stored(path)
    except DataError as error:
        raise CheckpointError(f"{key}: {error}") from error
