"""Every shipped YAML: composes as the stock command does it, builds, repeats nothing that is the default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from fairseq import criterions, optim, tasks
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.optim import lr_scheduler
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental import compose, initialize_config_dir
from omegaconf import OmegaConf

import av_ssl.tasks  # noqa: F401  (registers everything)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPES = sorted(EXAMPLES.glob("*/conf/**/*.yaml"))
# AV-HuBERT's published sizes less its cluster head and mask vector.
ENCODER_PARAMETERS = {768: 102_620_288, 1024: 324_622_976}
REQUIRED = ("user_dir", "data", "modalities", "w2v_path")
"""Stated as ??? because hydra lets a command line fill in only what the YAML names; save_dir likewise."""


def load(recipe: Path, **values: str):
    hydra_init(recipe.stem)
    GlobalHydra.instance().clear()
    overrides = [f"{key}={value}" for key, value in values.items()]
    with initialize_config_dir(str(recipe.parent)):
        cfg = compose(recipe.stem, overrides)
    add_defaults(cfg)
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))


def stated(recipe: Path) -> dict:
    return OmegaConf.to_container(OmegaConf.load(recipe))


def pretraining_model(channels: int) -> dict:
    recipe = EXAMPLES / "av2vec/conf/pretrain" / ("base_lrs3.yaml" if channels == 768 else "large_lrs3.yaml")
    return OmegaConf.to_container(load(recipe, **{"task.data": "/none", "common.user_dir": "/none"}).model)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "dict.wrd.txt").write_text("".join(f"piece{n} 1\n" for n in range(996)))
    return tmp_path


def build(recipe: Path, labels: Path):
    """Configuration, task and model (on no device: shapes without memory)."""
    values = {"task.data": str(labels), "common.user_dir": "/none"}
    if "w2v_path" not in stated(recipe)["model"]:
        cfg = load(recipe, **values)
    else:
        cfg = load(recipe, **values, **{"task.modalities": "av", "model.w2v_path": "/none"})
        channels = stated(recipe)["model"].get("decoder_embed_dim", 768)
        cfg.model.w2v_args = {"model": pretraining_model(channels), "task": {}}
        cfg.model.no_pretrained_weights = True
    task = tasks.setup_task(cfg.task)
    with torch.device("meta"):
        return cfg, task, task.build_model(cfg.model)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: "-".join(path.relative_to(EXAMPLES).parts))
def test_builds(recipe: Path, labels: Path):
    cfg, task, model = build(recipe, labels)
    criterions.build_criterion(cfg.criterion, task)
    optimizer = optim.build_optimizer(cfg.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    lr_scheduler.build_lr_scheduler(cfg.lr_scheduler, optimizer).step_update(1)
    encoder = next(module for module in model.modules() if hasattr(module, "post_extract_proj"))
    channels = encoder.cfg.encoder_embed_dim
    if channels in ENCODER_PARAMETERS:
        names = ("mask_emb", "mask_emb_video", "final_pred_proj.weight", "final_pred_proj.bias")
        count = sum(p.numel() for name, p in encoder.named_parameters() if name not in names)
        assert count == ENCODER_PARAMETERS[channels]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: "-".join(path.relative_to(EXAMPLES).parts))
def test_first_lines_give_the_command(recipe: Path):
    head = recipe.read_text().split("\n\n")[0]
    command = re.sub(r"\\\n#\s*", "", head)
    folder = recipe.parent.relative_to(EXAMPLES.parent)
    assert f"fairseq-hydra-train --config-dir {folder} --config-name {recipe.stem} " in command


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: "-".join(path.relative_to(EXAMPLES).parts))
def test_says_nothing_but_what_differs(recipe: Path):
    from fairseq.dataclass.configs import FairseqConfig
    from fairseq.registry import REGISTRIES

    whole = OmegaConf.structured(FairseqConfig())
    for group, keys in stated(recipe).items():
        if group in ("task", "model"):
            registry = tasks.TASK_DATACLASS_REGISTRY if group == "task" else model_dataclasses()
            defaults = registry[keys["_name"]]()
        elif "_name" in keys:
            defaults = REGISTRIES[group]["dataclass_registry"][keys["_name"]]()
        else:
            defaults = whole[group]
        for key, value in keys.items():
            if key in ("_name", "save_dir") or value == "???":
                assert value != "???" or key in REQUIRED
                continue
            default = getattr(defaults, key)
            assert plain(value) != plain(default), f"{group}.{key}={value} is the default"


def model_dataclasses() -> dict:
    from fairseq.models import MODEL_DATACLASS_REGISTRY

    return MODEL_DATACLASS_REGISTRY


def plain(value):
    """Compare lists, tuples and their strings alike."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, (list, tuple)):
        return str(list(value))
    return str(value).replace("(", "[").replace(")", "]")
