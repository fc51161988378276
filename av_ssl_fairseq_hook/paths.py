"""Paths in the configuration of ``fairseq-hydra-train``: any characters, relative to the user's folder.

Hydra parses overrides by a grammar of its own, in which ``task.data=/données`` and ``task.data=/a (1)`` are
errors, and changes into its run folder before training starts, where relative paths name nothing.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

START_FOLDER = "AV_SSL_START_FOLDER"
"""Environment variable for the folder in which the command was started, as av_ssl.layout reads it."""
REQUIRED = frozenset(
    ["data", "finetune_from_model", "label_dir", "noise_wav", "teacher_path", "teachers", "w2v_path"]
)
"""Keys of files and folders that training reads, in any section."""
READ = REQUIRED | {"restore_file", "tokenizer", "tokenizer_bpe_model", "user_dir"}
PATHS = READ | {"bad_clips_dir", "dir", "log_file", "results_path", "save_dir", "tensorboard_logdir"}

QUOTES = ("'", '"')
PLUS_SIGNS = re.compile(r"^\++")
SWEEPS = frozenset(["-m", "--multirun"])
OVERRIDE = re.compile(r"([+~]*[\w./@-]+)=(.+)", re.DOTALL)


def take_literally(module: ModuleType) -> None:
    """Let `hydra.core.override_parser.overrides_parser` read paths that its grammar refuses."""
    stock: Callable[..., Any] = module.OverridesParser.parse_rule

    @functools.wraps(stock)
    def parse_rule(self: Any, text: str, rule: str) -> Any:
        if rule == "override":
            text = PLUS_SIGNS.sub("+", text)  # newer versions of hydra have two, for what one means here
        literal = quoted(text) if rule == "override" else None
        try:
            parsed = stock(self, text, rule)
            # Hydra reads a folder called 1 as a number, one called [1] as a list, one called a,b as two runs.
            sweep = literal is not None and parsed.is_sweep_override() and not SWEEPS.intersection(sys.argv)
            other = sweep or (literal is not None and isinstance(parsed.value(), int | float | list))
            if literal == text or not other:
                return parsed
        except module.HydraException:
            if literal is None:
                raise
        parsed = stock(self, literal, rule)
        parsed.input_line = text
        return parsed

    module.OverridesParser.parse_rule = parse_rule


def quoted(override: str) -> str | None:
    """An override with its path, or list of paths, in quotation marks; None if its value is no path."""
    match = OVERRIDE.fullmatch(override)
    if match is None:
        return None
    key, value = match.groups()
    name = key.rpartition(".")[2].lstrip("+~")
    if value[0] in "'\"{" or (name not in PATHS and ("/" not in value or value[0] == "[")):
        return None
    if name == "teachers" and value[0] == "[" and value[-1] == "]":
        items = [item.strip() for item in value[1:-1].split(",")]
        return f"{key}=[{','.join(item if item[:1] in QUOTES else _quote(item) for item in items)}]"
    return f"{key}={_quote(value)}"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"


def resolve_paths(module: ModuleType) -> None:
    """Let `hydra.core.utils` run a job whose relative paths start at the folder of the command."""
    stock: Callable[..., Any] = module.run_job

    @functools.wraps(stock)
    def run_job(config: Any, task_function: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Any:
        start = os.getcwd()

        def task(cfg: Any) -> Any:
            for section, key, name in _path_keys(cfg):
                _resolve(section, key, name, start)
            before = os.environ.get(START_FOLDER)
            os.environ[START_FOLDER] = start
            try:
                return task_function(cfg)
            finally:
                os.environ.pop(START_FOLDER)
                if before is not None:
                    os.environ[START_FOLDER] = before

        return stock(config, task, *args, **kwargs)

    module.run_job = run_job  # type: ignore[attr-defined]


def _path_keys(cfg: DictConfig, prefix: str = "") -> Iterator[tuple[DictConfig, str, str]]:
    """Section, key and full name of the keys of a configuration that are in ``READ`` and have a value."""
    for key in cfg:
        if OmegaConf.is_missing(cfg, key):
            continue
        value = cfg[key]
        if key in READ and isinstance(value, str | ListConfig):
            yield cfg, str(key), f"{prefix}{key}"
        elif isinstance(value, DictConfig):
            yield from _path_keys(value, f"{prefix}{key}.")


def _resolve(section: DictConfig, key: str, name: str, start: str) -> None:
    value = section[key]
    many = isinstance(value, ListConfig)
    paths = [_absolute(str(path), start) for path in (value if many else [value])]
    for path in paths:
        # Other tasks of fairseq take several folders with colons between them.
        if key in REQUIRED and path and ":" not in path and not os.path.exists(path):
            sys.exit(
                f"error: {name}={path}: no such file or folder; relative paths start at {start}, where the "
                "command was started"
            )
    with open_dict(section):
        section[key] = paths if many else paths[0]


def _absolute(path: str, start: str) -> str:
    """A path in ``start``; as it is if it is only in the present folder, hydra's, or not there at all."""
    path = os.path.expanduser(path)
    there = os.path.join(start, path)
    return there if path and os.path.exists(there) else path
