"""A recipe as `fairseq-hydra-train` would read it, without starting anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq import tasks
from fairseq.dataclass.initialize import add_defaults, hydra_init
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import av_ssl
import av_ssl.tasks
from av_ssl.errors import DataError
from av_ssl.tasks.classification import ClassificationTask


def read_recipe(path: Path, data: Path, overrides: Sequence[str] = ()) -> Any:
    """The whole configuration of the YAML file `path` for the folder `data`, with all defaults.

    `overrides` are hydra's, such as `dataset.max_tokens=1000`. Raises DataError when the file is missing, is
    no recipe, or does not fit the overrides.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such file; name the YAML of a recipe, e.g. one of examples/*/conf"
        )
    hydra_init(path.stem)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(path.parent.absolute())):
            cfg = compose(path.stem, list(overrides))
        # Set here and not by an override, in which a path may have no blank, comma or equals sign.
        OmegaConf.set_struct(cfg, False)
        cfg.task.data, cfg.common.user_dir = str(data), str(Path(av_ssl.__file__).parent)
        add_defaults(cfg)
        whole = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    except Exception as error:  # hydra, omegaconf, antlr and PyYAML each have errors of their own
        raise DataError(f"{path}: is no recipe, or not with {list(overrides)}: {error}") from error
    finally:
        GlobalHydra.instance().clear()
    return OmegaConf.create(whole)


def build_on_no_device(cfg: Any, path: Path) -> tuple[Any, torch.nn.Module]:
    """Task and model of a recipe; the model has shapes but no memory.

    Sets `optimization.update_freq`, as the task does when training. A fine-tuning recipe takes the encoder's
    size from its checkpoint. Teachers and students of classifiers are not read. Raises DataError when the
    encoder's checkpoint is not given, or the model cannot be built.
    """
    if OmegaConf.is_missing(cfg.model, "w2v_path"):
        raise DataError(f"{path}: add model.w2v_path=CHECKPOINT, which says how large the encoder is")
    if "no_pretrained_weights" in cfg.model:
        cfg.model.no_pretrained_weights = True  # sizes are all that is wanted
    for key in ("teacher_path", "init_student_from"):
        if OmegaConf.is_missing(cfg.model, key):
            cfg.model[key] = ""
    try:
        task = tasks.setup_task(cfg.task)
        with torch.device("meta"):
            if not isinstance(task, ClassificationTask):
                return task, task.build_model(cfg.model)
            task.complete(cfg.model)
            return task, task.build_model(cfg.model, from_checkpoint=True)
    except DataError:
        raise
    except (ValueError, OmegaConfBaseException) as error:
        raise DataError(f"{path}: its model cannot be built: {error}") from error
