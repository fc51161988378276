"""A stored model as plain data: configuration, tensors, dictionary and tokenizer."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fairseq.models import MODEL_REGISTRY
from omegaconf import Node
from torch import Tensor

from av_ssl.layout import STREAMS

SHOWN = 5
ENCODER = "w2v_model."
"""Last part of the prefix of the encoder's names in a fine-tuned model."""


@dataclass
class StoredModel:
    """Everything that is needed to rebuild a model.

    Attributes:
        path: file that it was read from, for messages.
        cfg: fairseq's configuration, plain values; sections ``model``, ``task`` and others.
        tensors: the model's state dict.
        text: ``symbols`` and ``tokenizer`` of a recogniser (see ``TextEncoder.state_dict``), or None.
        label_sets: symbols of each dictionary of cluster ids.
        classes: names of a classifier's classes, by id.
        bare: it held weights alone, from which the configuration was inferred.
    """

    path: Path
    cfg: dict[str, Any]
    tensors: dict[str, Tensor]
    text: dict[str, Any] | None
    label_sets: list[list[str]]
    classes: list[str] = field(default_factory=list)
    bare: bool = False

    @property
    def model_cfg(self) -> dict[str, Any]:
        return self.cfg["model"]

    @property
    def task_cfg(self) -> dict[str, Any]:
        return self.cfg["task"]


def plain_config(cfg: Any) -> dict[str, Any]:
    """Nested dicts and lists, without references to other keys, which cannot be resolved any more."""
    cfg = plain(cfg)
    return cfg if isinstance(cfg, dict) else {}


def plain(value: Any) -> Any:
    if isinstance(value, Node):
        # Not by its methods: in a node from a damaged file they call each other endlessly.
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
    """Names of tensors in which a model and a file differ; as text, the first few of each kind."""

    missing: list[str]
    left_over: list[str]
    reshaped: list[str]

    def __str__(self) -> str:
        return (
            f"missing: {listed(self.missing)}; left over: {listed(self.left_over)}; "
            f"of another shape: {listed(self.reshaped)}"
        )


def compare(own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> Differences:
    return Differences(
        sorted(own.keys() - stored.keys()),
        sorted(stored.keys() - own.keys()),
        sorted(name for name in own.keys() & stored.keys() if own[name].shape != stored[name].shape),
    )


def encoder_prefix(tensors: Mapping[str, Tensor]) -> str | None:
    """What stands before the names of a fine-tuned model's encoder; None if it has none."""
    inside = next((name for name in tensors if ENCODER in name), None)
    return None if inside is None else inside[: inside.index(ENCODER)] + ENCODER


def parts(names: Iterable[str]) -> set[str]:
    """The modules at the top of a model that tensors of these names belong to."""
    return {name.partition(".")[0] for name in names}


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def pretraining_only() -> tuple[str, ...]:
    """Prefixes of the tensors that only pre-training uses, of all registered models.

    A model class lists its own in the attribute ``pretraining_only``; fine-tuning does not take them.
    """
    return tuple(
        sorted({p for model in MODEL_REGISTRY.values() for p in getattr(model, "pretraining_only", ())})
    )


def stored_streams(task_cfg: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The streams of a stored task, this package's (a name) or AV-HuBERT's (a list); None if it has none."""
    stored = task_cfg.get("modalities")
    if isinstance(stored, Sequence) and not isinstance(stored, str):
        return next((streams for streams in STREAMS.values() if sorted(stored) == sorted(streams)), None)
    return STREAMS.get(str(stored))


def untrained_streams(task_cfg: Mapping[str, Any], streams: Sequence[str]) -> str:
    """What is wrong with giving ``streams`` to a model that was trained on others; empty: nothing.

    A model of both streams takes each alone. ``task_cfg`` is the task of the model's last training.
    """
    trained = stored_streams(task_cfg)
    if trained is None or set(trained).issuperset(streams):
        return ""
    given = " and ".join(stream for stream in streams if stream not in trained)
    return f"was trained on {' and '.join(trained)} alone and now receives {given}"
