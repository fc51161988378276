"""A model as it is stored: configuration, tensors, dictionary and tokenizer, all of them plain data."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

SHOWN = 5


@dataclass
class StoredModel:
    """What is needed to build a model again.

    Attributes:
        path: file that it was read from, for messages.
        cfg: fairseq's configuration, plain values; sections ``model``, ``task`` and others.
        tensors: the model's state dict.
        text: ``symbols`` and ``tokenizer`` of a recogniser (see ``TextEncoder.state_dict``), or None.
        label_sets: symbols of each dictionary of cluster ids.
        classes: names of a classifier's classes, by id.
    """

    path: Path
    cfg: dict[str, Any]
    tensors: dict[str, Tensor]
    text: dict[str, Any] | None
    label_sets: list[list[str]]
    classes: list[str] = field(default_factory=list)

    @property
    def model_cfg(self) -> dict[str, Any]:
        return self.cfg["model"]

    @property
    def task_cfg(self) -> dict[str, Any]:
        return self.cfg["task"]


def plain_config(cfg: Any) -> dict[str, Any]:
    """Nested dicts and lists without what cannot be resolved any more: references to other keys."""
    cfg = OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg
    return plain(cfg) if isinstance(cfg, Mapping) else {}


def plain(value: Any) -> Any:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=False)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if not is_reference(item)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value if not is_reference(item)]
    if hasattr(value, "__dict__") and not isinstance(value, type):  # an argparse.Namespace
        return plain(vars(value))
    return value


def listed(names: Collection[str]) -> str:
    """The first few names and how many there are, for messages."""
    if not names:
        return "none"
    more = f", ... ({len(names)})" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and "${" in value
