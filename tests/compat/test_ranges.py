"""The numbers of a recipe are refused out of their range, by key, value and range."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from av_ssl.analysis.plan import read_recipe
from av_ssl.errors import DataError
from av_ssl_fairseq_hook.mistakes import Mistake
from av_ssl_fairseq_hook.ranges import check_values
from tests.compat.test_overrides import RECIPE

NAMES = {"model": "av2vec", "task": "av_pretraining", "criterion": "av2vec", "optimizer": "adam"}
INSIDE = {
    "_name": "distillation_finetuning",
    "recognition": {"_name": "label_smoothed_cross_entropy", "label_smoothing": 1.5},
}


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("model.dropout", 1.5, "0 to 1"),
        ("model.encoder_layerdrop", -0.1, "0 to 1"),
        ("model.mask_prob_audio", float("nan"), "0 to 1"),
        ("model.ema_decay", 1.0001, "0 to 1"),
        ("model.mask_length_image", 0, "1 or more"),
        ("model.image_std", 0.0, "above 0"),
        ("model.min_target_std", -0.1, "0 or more"),
        ("task.noise_prob", 2.0, "0 to 1"),
        ("task.max_sample_size", -5, "1 or more"),
        ("task.min_sample_size", -5, "0 or more"),
        ("criterion.regression_weight", -1.0, "0 or more"),
        ("criterion.loss_weights", [-10.0], "0 or more"),
        ("criterion", INSIDE["recognition"], "0 to 1"),
        ("criterion", INSIDE, "recognition.label_smoothing=1.5: 1.5 is out of range; allowed: 0 to 1"),
        ("optimizer.adam_betas", "(0.9,1.5)", "0 to 1"),
        ("optimization.update_freq", [], "[VALUE]"),
        ("optimization.update_freq", None, "[VALUE]"),
        ("optimization.update_freq", [0], "1 or more"),
        ("optimization.lr", [], "[VALUE]"),
        ("optimization.lr", [0.1, float("inf")], "0 or more"),
        ("dataset.batch_size", 0, "1 or more"),
        ("common.seed", -1, "0 to 4294967295"),
        ("checkpoint.patience", -1, None),
        ("model.dropout", 1, None),
        ("model.ema_decay", 1.0, None),
        ("model.skip_masked", True, None),
    ],
)
def test_a_number_out_of_range(key: str, value: object, allowed: str | None) -> None:
    section, _, name = key.partition(".")
    part = {"_name": NAMES.get(section), name: value} if name else value
    cfg = OmegaConf.create({section: part})
    if allowed is None:
        check_values(cfg)
        return
    with pytest.raises(Mistake, match=rf"^{section}.*{name}.*{re.escape(allowed)}$") as error:
        check_values(cfg)
    assert "\n" not in str(error.value)


def test_plan_refuses_it() -> None:
    with pytest.raises(DataError, match=r"model.dropout=1.5: .* 0 to 1"):
        read_recipe(RECIPE, Path("/data"), ["model.dropout=1.5"])
