"""Configuration keys: how they are declared, and those of other versions and programs that stay readable.

Keys that were renamed since version 0.1 are read wherever fairseq merges a configuration with its defaults:
YAML files, command lines and stored checkpoints (the patch is in ``av_ssl_fairseq_hook.patches``).  Keys of
AV-HuBERT that have no effect here are accepted, so that its YAML files and checkpoints work unchanged.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, open_dict

from av_ssl.errors import DataError

logger = logging.getLogger(__name__)

Class = TypeVar("Class", bound=type)


def option(default: Any, help_text: str) -> Any:
    """A field of a configuration dataclass, as fairseq reads it; ``default`` may be a list."""
    metadata = {"help": help_text}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


RENAMED = {
    # model
    "init_from": "w2v_path",
    "target_norm": "embedding_norm",  # LUPI's; RAVEn's key of this name stays
    "mask_prob_video": "mask_prob_image",
    "ema_updates": "ema_anneal_end_step",
    "min_target_var": "min_target_std",
    "min_pred_var": "min_pred_std",
    "var_check_start": "collapse_check_start",
    # criterion
    "lambda_reg": "regression_weight",
    "lambda_regression": "regression_weight",
    "lambda_clusters": "cluster_weight",
    "lambda_mlm": "pred_masked_weight",
    "lambda_mlm_unmasked": "pred_nomask_weight",
    "features_pen_weight": "loss_weights",
    "weight_va": "va_weight",
    "weight_av": "av_weight",
    "weight_aa": "aa_weight",
    "weight_vv": "vv_weight",
}
"""Keys of version 0.1 and their names now, for configurations that have the new key and not the old one."""
NOW_A_LIST = ("loss_weights",)
"""New keys that take a list where the old one took its single entry."""


def rename_old_keys(structure: Any, cfg: DictConfig) -> None:
    """Rename the keys of version 0.1 in ``cfg``, in place.

    Args:
        structure: the configuration's dataclass, or an instance.

    Raises:
        DataError: a key is set under both of its names.
    """
    known = {field.name for field in dataclasses.fields(structure)}
    old_keys = [old for old, new in RENAMED.items() if old in cfg and old not in known and new in known]
    if not old_keys:
        return
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    for old in old_keys:
        new, value = RENAMED[old], values[old]
        if new in cfg:
            raise DataError(f"{old} is the old name of {new}, and both are set: leave out {old}")
        logger.info("%s is now called %s", old, new)
        with open_dict(cfg):
            del cfg[old]
            cfg[new] = [value] if new in NOW_A_LIST else value


def accepts_without_effect(help_text: str, **keys: Any) -> Callable[[Class], Class]:
    """Class decorator for a configuration dataclass: adds fields of any type that nothing reads.

    Args:
        help_text: of all these fields.
        keys: names and defaults.

    >>> @dataclasses.dataclass
    ... @accepts_without_effect("without effect", label_rate=None)
    ... class Keys:
    ...     width: int = 1
    >>> [field.name for field in dataclasses.fields(Keys)]
    ['width', 'label_rate']
    """

    def add(cls: Class) -> Class:
        annotations = inspect.get_annotations(cls)
        for name, default in keys.items():
            annotations[name] = Any
            setattr(cls, name, option(default, help_text))
        cls.__annotations__ = annotations
        return cls

    return add
