"""A model as it is stored: configuration, tensors, dictionary and tokenizer, all of them plain data."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fairseq.models import MODEL_REGISTRY
from omegaconf import Node
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
    cfg = plain(cfg)
    return cfg if isinstance(cfg, dict) else {}


def plain(value: Any) -> Any:
    if isinstance(value, Node):
        # Not by its methods: out of a damaged file, they call each other without end.
        held = vars(value)
        return plain(held.get("_content", held.get("_val")))
    if isinstance(value, Mapping):
        items = {str(key): plain(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if not is_reference(item)}
    if isinstance(value, (list, tuple)):
        return [item for item in map(plain, value) if not is_reference(item)]
    if hasattr(value, "__dict__") and not isinstance(value, type):  # an argparse.Namespace
        return plain(vars(value))
    return value


def listed(names: Collection[str]) -> str:
    """The first few names and how many there are, for messages."""
    if not names:
        return "none"
    more = f", ... ({len(names)})" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


class Differences(NamedTuple):
    """Names of tensors that a model and a file do not share; as text, the first few of each kind."""

    missing: list[str]
    left_over: list[str]
    reshaped: list[str]

    def __str__(self) -> str:
        return (
            f"missing: {listed(self.missing)}; left over: {listed(self.left_over)}; "
            f"of another shape: {listed(self.reshaped)}"
        )


def compare(own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> Differences:
    """What a model's tensors and stored ones differ in."""
    return Differences(
        sorted(own.keys() - stored.keys()),
        sorted(stored.keys() - own.keys()),
        sorted(name for name in own.keys() & stored.keys() if own[name].shape != stored[name].shape),
    )


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def pretraining_only() -> tuple[str, ...]:
    """Prefixes of the tensors that serve pre-training alone, as each registered model declares its own.

    A model lists them in its class attribute ``pretraining_only``; fine-tuning leaves these tensors behind.
    """
    return tuple(
        sorted({p for model in MODEL_REGISTRY.values() for p in getattr(model, "pretraining_only", ())})
    )
