"""The range of every number in a recipe, by the name of its key; others are refused before work starts.

A number is not negative, unless its default is; the table has what holds besides.
"""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from av_ssl_fairseq_hook.mistakes import Mistake


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``, without ``low`` itself if it is ``open``."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return self.low <= value <= self.high and not (self.open and value == self.low)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"{self.low:g} to {self.high:.10g}"
        if self.low == -math.inf:
            return "any finite number"
        return f"above {self.low:g}" if self.open else f"{self.low:g} or more"


ANY, NOT_NEGATIVE, SHARE = Range(), Range(0), Range(0, 1)
AT_LEAST_1, ABOVE_0 = Range(1), Range(0, open=True)
RANGES: dict[str, Range] = {
    "final_dim": NOT_NEGATIVE,  # 0: as wide as the encoder
    "hint_dim": NOT_NEGATIVE,
    "length_bonus": ANY,
    "*seed": Range(0, 2**32 - 1),  # numpy's
    **dict.fromkeys(
        ("*dropout", "dropout_*", "*layerdrop", "drop_path", "*_prob", "mask_prob_*"), SHARE
    ),
    **dict.fromkeys(
        ("label_smoothing", "ctc_weight", "ema_*decay", "layer_decay", "imitation"),
        SHARE,
    ),
    **dict.fromkeys(("phase_ratio", "adam_betas"), SHARE),
    **dict.fromkeys(("*_temp", "temperature", "image_std", "*_stride", "t_mult"), ABOVE_0),
    **dict.fromkeys(
        ("*_dim", "*_heads", "encoder_layers", "decoder_layers", "*_width", "mask_length*", "conv_pos*"),
        AT_LEAST_1,
    ),
    **dict.fromkeys(
        ("max_sample_size", "max_trim_sample_size", "image_crop_size", "noise_num", "mel_bands"),
        AT_LEAST_1,
    ),
    **dict.fromkeys(
        ("batch_size*", "max_tokens*", "update_freq", "*_multiple", "*_interval", "num_shards"), AT_LEAST_1
    ),
}  # fmt: skip
"""Pattern of a key (the first that fits counts) to its range."""
LITERALS = ("adam_betas",)
"""Keys whose value may be the text of a Python literal."""
PER_EPOCH = ("lr", "update_freq")
"""Lists that must not be empty."""
OF_FAIRSEQ = ("criterion", "optimizer", "lr_scheduler", "optimization", "dataset", "checkpoint", "common")
"""Sections of fairseq's own whose values are checked, beside all of av_ssl's."""


def allowed(field: dataclasses.Field[Any]) -> Range:
    """The range of the numbers of a field."""
    for pattern, known in RANGES.items():
        if fnmatchcase(field.name, pattern):
            return known
    default = field.default
    negative = isinstance(default, int | float) and not isinstance(default, bool) and default < 0
    return ANY if negative else NOT_NEGATIVE


def check_values(cfg: Any) -> None:
    """Raise `Mistake` for the first number of a whole configuration that is out of range."""
    from fairseq.dataclass.configs import FairseqConfig
    from omegaconf import OmegaConf

    for section, part in OmegaConf.to_container(cfg, resolve=True).items():
        structure = structure_of(section, part)
        if structure is None and section in FairseqConfig.__dataclass_fields__:
            structure = type(FairseqConfig.__dataclass_fields__[section].default)
        package = str(getattr(structure, "__module__", "")).partition(".")[0]
        if package == "av_ssl" or (package == "fairseq" and section in OF_FAIRSEQ):
            check_section(section, structure, part)


def structure_of(section: str, part: Any) -> Any:
    """The dataclass of what a section names; None if it names nothing that is registered with one."""
    from fairseq import models, registry, tasks

    name = part.get("_name") if isinstance(part, Mapping) else None
    if section == "task":
        return tasks.TASK_DATACLASS_REGISTRY.get(name)
    if section == "model":
        return models.MODEL_DATACLASS_REGISTRY.get(models.ARCH_MODEL_NAME_REGISTRY.get(name, name))
    return registry.REGISTRIES.get(section, {}).get("dataclass_registry", {}).get(name)


def check_section(section: str, structure: Any, part: Mapping[str, Any]) -> None:
    """Raise `Mistake` for the first number of a section that is out of range."""
    if not dataclasses.is_dataclass(structure):
        return
    for field in dataclasses.fields(structure):
        if field.name not in part:
            continue
        value = part[field.name]
        if isinstance(value, Mapping):  # a criterion inside another one
            check_section(f"{section}.{field.name}", structure_of(section.partition(".")[0], value), value)
            continue
        shown = f"{section}.{field.name}={value}"
        if not value and section == "optimization" and field.name in PER_EPOCH:
            raise Mistake(f"{shown}: names no number; name one, or one for each epoch: [VALUE]")
        limits = allowed(field)
        for number in numbers(field.name, value):
            if number not in limits:
                raise Mistake(f"{shown}: {number:g} is out of range; allowed: {limits}")


def numbers(key: str, value: Any) -> Iterator[int | float]:
    """The numbers of a value, which may be a list."""
    if key in LITERALS and isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            return  # not this check's mistake
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, int | float) and not isinstance(each, bool):
            yield each
