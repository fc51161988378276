"""Keys of version 0.1 are read under their new names: in checkpoints, YAML files and command lines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fairseq import criterions
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq.dataclass.initialize import add_defaults
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from omegaconf import OmegaConf

import av_ssl
import av_ssl.tasks
from av_ssl.compat.keys import NOW_A_LIST, RENAMED
from av_ssl.errors import DataError
from tests.checkpoints.published_layout import save, state
from tests.methods.helpers import TINY, tiny_av2vec

OLD_MODEL = {"min_target_var": 0.2, "min_pred_var": 0.03, "var_check_start": 7, "init_from": "/gone.pt"}
NEW_MODEL = {"min_target_std": 0.2, "min_pred_std": 0.03, "collapse_check_start": 7, "w2v_path": "/gone.pt"}
CRITERIONS = [
    (
        "av2vec",
        {"lambda_reg": 2.0, "lambda_mlm": 3.0, "lambda_mlm_unmasked": 0.5, "features_pen_weight": 4.0},
        {
            "regression_weight": 2.0,
            "pred_masked_weight": 3.0,
            "pred_nomask_weight": 0.5,
            "loss_weights": [4.0],
        },
    ),
    (
        "distillav",
        {"lambda_regression": 2.0, "lambda_clusters": 3.0, "features_pen_weight": 0.0},
        {"regression_weight": 2.0, "cluster_weight": 3.0, "loss_weights": [0.0]},
    ),
    ("raven", {"weight_va": 2.0, "weight_aa": 0.5}, {"va_weight": 2.0, "aa_weight": 0.5, "av_weight": None}),
]


def values(cfg: Any, keys: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg) if OmegaConf.is_config(cfg) else dataclasses.asdict(cfg)
    return {key: plain[key] for key in keys}


def test_a_checkpoint_of_version_0_1(tmp_path: Path) -> None:
    model = tiny_av2vec()
    cfg = {
        "model": {"_name": "av2vec", **TINY, **OLD_MODEL},
        "task": {"_name": "av_pretraining", "data": "/nowhere", "normalize": True},
    }
    path = save(state(cfg, dict(model.state_dict()), {}), tmp_path / "old.pt")
    (stock,), _, _ = load_model_ensemble_and_task([str(path)])
    for loaded in (av_ssl.load(path), stock):
        assert values(loaded.cfg, NEW_MODEL) == NEW_MODEL
        assert loaded.collapse_guard.start == 7


@pytest.mark.parametrize(("name", "old", "new"), CRITERIONS, ids=[name for name, _, _ in CRITERIONS])
def test_criterions(name: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    built = criterions.build_criterion(OmegaConf.create({"_name": name, **old}), SimpleNamespace())
    assert values(built.cfg, new) == new


def test_a_yaml_file() -> None:
    cfg = OmegaConf.create(
        {
            "model": {"_name": "braven", "mask_prob_video": 0.3, "ema_updates": "${optimization.max_update}"},
            "criterion": {"_name": "braven", "weight_vv": 0.5},
            "optimization": {"max_update": 60},
            "task": {"image_mean": 0.421, "image_std": 0.165},
        }
    )
    add_defaults(cfg)
    assert (cfg.model.mask_prob_image, cfg.model.mask_prob_audio) == (0.3, 0.4)
    assert cfg.model.ema_anneal_end_step == 60
    assert cfg.criterion.vv_weight == 0.5


def test_a_key_under_both_names() -> None:
    cfg = OmegaConf.create({"_name": "av2vec", "lambda_reg": 2.0, "regression_weight": 1.0})
    with pytest.raises(DataError, match="lambda_reg is the old name of regression_weight"):
        criterions.build_criterion(cfg, SimpleNamespace())


def test_other_keys_are_still_refused() -> None:
    with pytest.raises(Exception, match="lambda_clusters"):
        criterions.build_criterion(OmegaConf.create({"_name": "av2vec", "lambda_clusters": 1.0}), None)


def test_a_lupi_student() -> None:
    cfg = OmegaConf.create({"model": {"_name": "lupi_student", "target_norm": "none"}})
    add_defaults(cfg)
    assert cfg.model.embedding_norm == "none"
    cfg = OmegaConf.create({"model": {"_name": "raven", "target_norm": "instance"}})
    add_defaults(cfg)
    assert cfg.model.target_norm == "instance"


def test_the_table_names_keys_that_exist() -> None:
    registered = [*MODEL_DATACLASS_REGISTRY.values(), *REGISTRIES["criterion"]["dataclass_registry"].values()]
    keys = [
        {field.name for field in dataclasses.fields(structure)}
        for structure in registered
        if structure is not None and structure.__module__.startswith("av_ssl.")
    ]
    assert set(RENAMED.values()) <= set().union(*keys)
    assert not [(old, new) for old, new in RENAMED.items() for names in keys if {old, new} <= names]
    assert RENAMED.keys() & set().union(*keys) <= {"target_norm"}  # RAVEn's own
    assert set(NOW_A_LIST) <= set(RENAMED.values())
