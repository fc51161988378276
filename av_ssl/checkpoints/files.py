"""Read and write model files; the suffix says which form a file has.  Reading runs no code from any of them.

- ``.pt``: a checkpoint of fairseq's, AV-HuBERT's published files included, or RAVEn's published weights;
- ``.safetensors``: the tensors, and beside them a JSON file of the same name with everything else;
- a folder, see `av_ssl.sharing`: ``model.safetensors`` and ``config.json``.
"""

import base64
import dataclasses
import io
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from av_ssl.checkpoints.raven_weights import published_tensors, stored_encoder
from av_ssl.checkpoints.recogniser_encoder import encoder_args, lacks_encoder_args
from av_ssl.checkpoints.stored import StoredModel, plain_config
from av_ssl.data.classes import CLASSES
from av_ssl.data.text import dictionary_of, stored_label_sets, text_state
from av_ssl.errors import DataError, optional_package
from av_ssl.io import read_json, write_atomically
from av_ssl.media.sources import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from av_ssl_fairseq_hook.checkpoints import completions
from av_ssl_fairseq_hook.checkpoints import read_file as read_torch_file

FAIRSEQ, SAFETENSORS = ".pt", ".safetensors"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""The files of a folder."""
FORMAT = "av_ssl model 1"
"""Of the JSON file beside the tensors."""
SPEECH_MODELS = (
    "speech models of other programs (Whisper, WavLM, HuBERT) are teachers: give the folder of a Hugging "
    "Face model as model.teachers, or to av-ssl targets and av-ssl features"
)
DATA_PARALLEL = "module."
"""Before the names of a model that was saved inside torch's ``DistributedDataParallel``."""
AV_HUBERT_TASK = "av_hubert_pretraining"
"""Its checkpoints hold dictionaries as pickled objects, whether pre-trained or fine-tuned."""


class CheckpointError(DataError):
    """A checkpoint does not hold what is asked of it."""


def read_checkpoint(path: str | Path, key: str = "model.w2v_path") -> StoredModel:
    """:func:`read_stored` for training; errors are CheckpointErrors that start with ``key``."""
    try:
        return read_stored(path)
    except DataError as error:
        raise CheckpointError(f"{key}: {error}") from error


def model_file(path: Path) -> Path:
    """The tensors in a folder of `av_ssl.sharing`; other paths, also those of speech models, as they are."""
    inner = path / WEIGHTS
    if not inner.is_file() or not (path / CONFIG).is_file():
        return path
    ours = read_json(path / CONFIG, "copy or download the folder again").get("format") == FORMAT
    return inner if ours else path


def read_stored(path: str | Path) -> StoredModel:
    """Read a model on the CPU from a file, or a folder with one; see the module's description.

    Raises:
        DataError: the file is missing, cut off, something else, or asks for code to be run.
    """
    path = Path(path)
    if path.is_dir():
        path = path / WEIGHTS
        if not path.is_file():
            raise DataError(f"{path.parent}: is no checkpoint, and holds no {WEIGHTS}; {SPEECH_MODELS}")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if path.suffix.lower() in VIDEO_SUFFIXES | AUDIO_SUFFIXES:
        raise DataError(f"{path}: is a recording, where a model is needed; commands take the model first")
    stored = read_file(path)
    for section in ("model", "task"):
        if not isinstance(stored.cfg.get(section), dict):
            raise DataError(f"{path}: its configuration has no section {section!r}; it is not from fairseq")
    return with_encoder_args(stored)


def read_file(path: Path) -> StoredModel:
    """Read a file in the form that its suffix names, without looking at its configuration."""
    return read_safetensors(path) if path.suffix == SAFETENSORS else read_pickled(path)


def with_encoder_args(stored: StoredModel) -> StoredModel:
    """The same model; a recogniser's with ``w2v_args``, also where that is null in the file.

    Its encoder's configuration is then that of ``w2v_path``, if there is such a file, or made from shapes.
    """
    if not lacks_encoder_args(stored.model_cfg):
        return stored
    args = encoder_args(stored, pretrained_config(stored.model_cfg.get("w2v_path")))
    return dataclasses.replace(stored, cfg={**stored.cfg, "model": {**stored.model_cfg, "w2v_args": args}})


def pretrained_config(path: str | None) -> dict[str, Any]:
    """The model's configuration in a pre-trained checkpoint; empty if that cannot be read or is none."""
    if not path or not Path(path).is_file():
        return {}
    try:
        model = read_file(Path(path)).cfg.get("model")
    except DataError:
        return {}
    return model if isinstance(model, dict) and "w2v_path" not in model else {}


def complete_state(state: dict[str, Any], path: str) -> None:
    """Add what :func:`with_encoder_args` adds, to a state that fairseq's own commands have read."""
    if all(str(name).startswith(DATA_PARALLEL) for name in state["model"]):
        state["model"] = without_wrapper(state["model"])
    cfg: Any = state.get("cfg")
    if not OmegaConf.is_dict(cfg) or not OmegaConf.is_dict(cfg.get("model")):
        return
    if lacks_encoder_args(cfg.model):
        stored = with_encoder_args(StoredModel(Path(path), plain_config(cfg), state["model"], None, []))
        with open_dict(cfg):
            cfg.model.w2v_args = stored.model_cfg["w2v_args"]


if complete_state not in completions:
    completions.append(complete_state)


def write_stored(stored: StoredModel, path: str | Path) -> list[Path]:
    """Write a model in the form that the suffix of ``path`` names; returns the files.

    Raises:
        DataError: the suffix is neither ``.pt`` nor ``.safetensors``, or a file cannot be written.
    """
    path = Path(path)
    if path.suffix == FAIRSEQ:
        content = io.BytesIO()
        torch.save(fairseq_state(stored), content)
        write_atomically(path, content.getvalue())
        return [path]
    if path.suffix == SAFETENSORS:
        write_safetensors(stored, path, path.with_suffix(".json"))
        return [path, path.with_suffix(".json")]
    raise DataError(f"{path}: name a file that ends in {FAIRSEQ} (fairseq) or {SAFETENSORS}, or a folder")


# -- fairseq's checkpoints -----------------------------------------------------------------------------------


def read_pickled(path: Path) -> StoredModel:
    """Read a file of ``torch.save`` without running code from it."""
    state = read_torch_file(path)
    if isinstance(state, dict) and isinstance(state.get("model"), dict) and state.get("cfg") is not None:
        return stored_model(state, path)
    tensors = published_tensors(state)
    if tensors is not None:
        return stored_encoder(tensors, path)
    keys = ", ".join(sorted(map(str, state))[:8]) if isinstance(state, dict) else type(state).__name__
    raise DataError(
        f"{path}: is no fairseq checkpoint with a configuration (it holds {keys}); needed is one that "
        f"fairseq-hydra-train wrote, or AV-HuBERT's or RAVEn's published files; {SPEECH_MODELS}"
    )


def stored_model(state: dict[str, Any], path: Path) -> StoredModel:
    """The model of a checkpoint that fairseq-hydra-train wrote; DataError if its entries are damaged."""
    try:
        task_state = state.get("task_state") or {}
        return StoredModel(
            path=path,
            cfg=plain_config(state["cfg"]),
            tensors=without_wrapper(state["model"]),
            text=text_state(task_state, str(path)),
            label_sets=stored_label_sets(task_state, str(path)),
            classes=[str(name) for name in task_state.get(CLASSES) or []],
        )
    except (TypeError, AttributeError, LookupError) as error:
        raise DataError(f"{path}: its entries are damaged ({error}); copy or download it again") from error


def without_wrapper(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, without the name of the wrapper that a model was saved in."""
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    wrapped = bool(tensors) and all(name.startswith(DATA_PARALLEL) for name in tensors)
    return {name.removeprefix(DATA_PARALLEL): x for name, x in tensors.items()} if wrapped else tensors


def fairseq_state(stored: StoredModel) -> dict[str, Any]:
    """A checkpoint as fairseq writes it, without optimizer: it can be decoded and fine-tuned, not resumed."""
    history = {
        "criterion_name": (stored.cfg.get("criterion") or {}).get("_name"),
        "optimizer_name": None,
        "lr_scheduler_state": {"best": None},
        "num_updates": 0,
    }
    return {
        "args": None,
        "cfg": stored.cfg,
        "model": stored.tensors,
        "criterion": None,
        "optimizer_history": [history],
        "task_state": task_state(stored),
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "val_loss": None},
        "last_optimizer_state": None,
    }


def task_state(stored: StoredModel) -> dict[str, Any]:
    """Dictionaries and tokenizer in the form that the stored task reads."""
    origin = str(stored.path)
    state: dict[str, Any] = {}
    if stored.classes:
        state[CLASSES] = stored.classes
    if stored.label_sets:
        state["dictionaries"] = [dictionary_of(symbols, origin) for symbols in stored.label_sets]
    if stored.text is None:
        return state
    if stored.task_cfg.get("_name") != AV_HUBERT_TASK:
        return {**state, **stored.text}
    state["target_dictionary"] = dictionary_of(stored.text["symbols"], origin)
    if stored.text["tokenizer"] is not None:
        state["s2s_tokenizer"] = pickled_tokenizer(stored.text["tokenizer"].numpy().tobytes())
    return state


def pickled_tokenizer(model: bytes) -> Any:
    """fairseq's tokenizer of a serialised sentencepiece model; the class itself wants a file's name."""
    tokenizer = object.__new__(SentencepieceBPE)
    tokenizer.enable_sampling, tokenizer.alpha = False, None
    tokenizer.sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    return tokenizer


# -- safetensors and JSON ------------------------------------------------------------------------------------


def safetensors_package() -> Any:
    return optional_package("safetensors.torch", "convert")


def read_safetensors(path: Path) -> StoredModel:
    """Read both files; DataError if either is missing, cut off, or of another program."""
    package, beside = safetensors_package(), path.with_suffix(".json")
    if path.name == WEIGHTS and not beside.exists():
        beside = path.with_name(CONFIG)
    if not beside.is_file():
        raise DataError(
            f"{path}: has no {beside.name} beside it, as av-ssl model convert writes it; {SPEECH_MODELS}"
        )
    rest = read_json(beside, "convert the checkpoint again")
    if rest.get("format") != FORMAT:
        raise DataError(
            f"{beside}: its format is not {FORMAT!r}, as av-ssl model convert writes it; {SPEECH_MODELS}"
        )
    try:
        if rest.get("crc32") is not None and file_crc32(path) != rest["crc32"]:
            raise ValueError("it does not have its checksum")
        with path.open("rb") as file:  # the library parses headers of up to 100 MB
            if (length := int.from_bytes(file.read(8), "little")) > LONGEST_HEADER:
                raise ValueError(f"its header would have {length} bytes")
        tensors = package.torch.load_file(path)  # it checks that the tensors fill the file
    except (
        OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, package.SafetensorError,
    ) as error:  # fmt: skip
        raise DataError(f"{path}: is no safetensors file, or is damaged ({error}); convert again") from error
    try:
        text = rest["text"]
        if text is not None and text["tokenizer"] is not None:
            model = base64.b64decode(text["tokenizer"])
            text["tokenizer"] = torch.from_numpy(np.frombuffer(model, np.uint8).copy())
        symbols = [*rest["label_sets"], rest.get("classes", []), *([] if text is None else [text["symbols"]])]
        if not isinstance(rest["cfg"], dict) or not all(type(s) is str for one in symbols for s in one):
            raise TypeError("cfg, or a list of symbols, is something else")
        return StoredModel(path, rest["cfg"], tensors, text, rest["label_sets"], rest.get("classes", []))
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{beside}: its entries are damaged ({error}); convert the checkpoint again"
        ) from error


LONGEST_HEADER = 1 << 22
"""Bytes; that of a model of 1,000 tensors has 100,000."""


def file_crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def write_safetensors(stored: StoredModel, path: Path, beside: Path) -> None:
    """Write both files, the tensors and what is beside them; DataError if that cannot be done."""
    # Safetensors refuses tensors that share memory, as slices of a flat parameter do.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in stored.tensors.items()}
    content = safetensors_package().torch.save(tensors)
    # The tensors last: where they are, the file beside them is complete.
    write_atomically(beside, described(stored, zlib.crc32(content)))
    write_atomically(path, content)


def described(stored: StoredModel, checksum: int) -> bytes:
    """Everything but the tensors, as JSON, with the CRC-32 of their file."""
    text = stored.text
    if text is not None and text["tokenizer"] is not None:
        text = {**text, "tokenizer": base64.b64encode(text["tokenizer"].numpy().tobytes()).decode()}
    content = {
        "format": FORMAT,
        "crc32": checksum,
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
