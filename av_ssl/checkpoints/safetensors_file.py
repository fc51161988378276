"""A model as ``.safetensors`` and, of the same name beside it, JSON with all that is no tensor."""

import base64
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from av_ssl.checkpoints.stored import StoredModel
from av_ssl.errors import DataError
from av_ssl.io import write_atomically

FORMAT = "av_ssl model 1"


def read_safetensors(path: Path) -> StoredModel:
    """Read both files; DataError if either is missing, cut off, or of another program."""
    beside = path.with_suffix(".json")
    try:
        rest = json.loads(beside.read_text(encoding="utf-8"))
        tensors = load_file(path)
    except OSError as error:
        raise DataError(f"{beside}: cannot be read ({error.strerror}); it belongs to {path.name}") from error
    except ValueError as error:
        raise DataError(f"{beside}: is not JSON ({error}); convert the checkpoint again") from error
    except SafetensorError as error:
        raise DataError(f"{path}: is no safetensors file, or is cut off ({error}); convert again") from error
    if not isinstance(rest, dict) or rest.get("format") != FORMAT:
        raise DataError(f"{beside}: its format is not {FORMAT!r}; it was not written by av-ssl convert")
    try:
        text = rest["text"]
        if text is not None and text["tokenizer"] is not None:
            model = base64.b64decode(text["tokenizer"])
            text["tokenizer"] = torch.from_numpy(np.frombuffer(model, np.uint8).copy())
        return StoredModel(path, rest["cfg"], tensors, text, rest["label_sets"], rest.get("classes", []))
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{beside}: its entries are damaged ({error}); convert the checkpoint again"
        ) from error


def write_safetensors(stored: StoredModel, path: Path) -> None:
    """Write both files; DataError if that cannot be done."""
    # The tensors last: where they are, the file beside them is complete.
    write_atomically(path.with_suffix(".json"), described(stored))
    write_atomically(path, tensor_bytes(stored.tensors))


def described(stored: StoredModel) -> bytes:
    """Everything but the tensors, as JSON."""
    text = stored.text
    if text is not None and text["tokenizer"] is not None:
        text = {**text, "tokenizer": base64.b64encode(text["tokenizer"].numpy().tobytes()).decode()}
    content = {
        "format": FORMAT,
        "cfg": finite(stored.cfg),
        "text": text,
        "label_sets": stored.label_sets,
        "classes": stored.classes,
    }
    return (json.dumps(content, indent=1, ensure_ascii=False, default=str, allow_nan=False) + "\n").encode()


def finite(value: Any) -> Any:
    """JSON has no infinity; fairseq takes the word."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:

    # Safetensors refuses tensors that share memory, as a slice of a flat parameter does with its neighbours.
    return save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()})
