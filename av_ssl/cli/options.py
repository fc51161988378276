"""``av-ssl options``: the keys of a model, task, criterion, optimizer, schedule or section of a recipe."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

from av_ssl.errors import DataError
from av_ssl_fairseq_hook.ranges import allowed

SHOWN = ("task", "model", "criterion", "optimizer", "lr_scheduler")


def add_options_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="of a task, model, criterion, optimizer or schedule (av2vec, av_recognition, ...), or a section "
        "of fairseq's (checkpoint, dataset, ...) (default: list the names)",
    )


def run_options(args: argparse.Namespace) -> int:
    """Print the keys of NAME as overrides: default, type and help of each."""
    known = {(section, name): kind for section, name, kind in structures()}
    if args.name is None:
        for section in dict.fromkeys(section for section, _ in known):
            names = sorted({name for one, name in known if one == section})
            print(f"{section}: {', '.join(names)}" if names != [section] else section)
        return 0
    found = [key for key in known if key[1] == args.name]
    if not found:
        near = difflib.get_close_matches(args.name, [name for _, name in known], n=1)
        hint = f"did you mean {near[0]}?" if near else "av-ssl options lists the names"
        raise DataError(f"{args.name}: is no task, model, criterion, optimizer, schedule or section; {hint}")
    for section, name in found:
        own = "" if section == name else f" ({section}._name={name})"
        print(f"{section}{own}")
        for line in keys(section, known[section, name]):
            print(f"  {line}")
    return 0


def structures() -> Iterator[tuple[str, str, type]]:
    """Section, name and dataclass of all that a recipe can set."""
    # Here, because these import torch, which --help does not need.
    from fairseq.dataclass.configs import FairseqConfig
    from fairseq.models import MODEL_DATACLASS_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    import av_ssl.tasks  # noqa: F401 - registers everything

    registries = {"task": TASK_DATACLASS_REGISTRY, "model": MODEL_DATACLASS_REGISTRY}
    registries |= {name: each["dataclass_registry"] for name, each in REGISTRIES.items()}
    for section in SHOWN:
        for name, kind in registries[section].items():
            if kind is not None:
                yield section, name, kind
    for field in dataclasses.fields(FairseqConfig):
        if dataclasses.is_dataclass(field.default):
            yield field.name, field.name, type(field.default)


def keys(section: str, structure: type) -> Iterator[str]:
    """A line for each key: ``section.key=default``, its type and range, its help."""
    types = typing.get_type_hints(structure)
    for field in dataclasses.fields(structure):
        if field.name == "_name":
            continue
        factory: Any = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        text = " ".join(str(field.metadata.get("help") or "").split())
        kind = type_name(types[field.name])
        if "int" in kind or "float" in kind:
            kind += f", {allowed(field)}"
        yield f"{section}.{field.name}={shown(default)}  [{kind}]  {text}".rstrip()


def shown(default: Any) -> str:
    """A default as it is written in an override."""
    if default is None or default is dataclasses.MISSING:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, (list, tuple)):
        return f"[{','.join(map(shown, default))}]"
    return str(default.value if isinstance(default, Enum) else default)


def type_name(kind: Any) -> str:
    """``int``, ``float or null``, ``one of audio, video, av``."""
    arguments = [one for one in typing.get_args(kind) if one is not type(None)]
    if typing.get_origin(kind) is typing.Union:
        return " or ".join([*map(type_name, arguments), "null"])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(str(one.value) for one in kind)}"
    if typing.get_origin(kind) in (list, tuple):
        return f"list of {type_name(arguments[0])}" if arguments else "list"
    return getattr(kind, "__name__", str(kind)).lower()
