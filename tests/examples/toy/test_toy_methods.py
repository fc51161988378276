from __future__ import annotations

import pytest
from experiment import HERE
from methods import (
    AV2VEC,
    AV2VEC_MLM_STAGE,
    AV2VEC_STAGE,
    AV_HUBERT_1_LABELS,
    AV_HUBERT_1_STAGE,
    AV_HUBERT_2_STAGE,
    COMPARISONS,
    METHODS,
    SCRATCH,
    Comparison,
    Method,
    all_stages,
)
from stages import label_sets, label_stages


def test_each_training_comes_once_and_after_what_its_labels_need() -> None:
    stages = all_stages(METHODS.values())
    assert stages[:4] == [AV2VEC_STAGE, AV_HUBERT_1_STAGE, AV2VEC_MLM_STAGE, AV_HUBERT_2_STAGE]
    assert len({stage.name for stage in stages}) == len(stages)
    for stage in stages:
        assert all(stages.index(earlier) < stages.index(stage) for earlier in label_stages(stage))


def test_scratch_and_av2vec_share_one_training() -> None:
    assert all_stages([SCRATCH, AV2VEC]) == [AV2VEC_STAGE]


def test_labels_of_the_second_iteration_count_those_of_the_first() -> None:
    assert label_stages(AV_HUBERT_2_STAGE) == [AV_HUBERT_1_STAGE]
    assert [labels.name for labels in label_sets(AV_HUBERT_2_STAGE)] == ["mfcc", "av_hubert_1"]
    assert label_sets(AV2VEC_STAGE) == []


def test_teachers_need_labels_that_others_need_too() -> None:
    stage = METHODS["distillav"].stage
    assert [teacher.kind for teacher in stage.teachers] == ["hubert", "whisper"]
    assert label_sets(stage) == [AV_HUBERT_1_STAGE.labels]
    assert label_stages(stage) == []


def test_label_rates_are_those_of_mfcc_and_of_models() -> None:
    assert AV_HUBERT_1_STAGE.labels is not None
    assert (AV_HUBERT_1_STAGE.labels.rate, AV_HUBERT_1_LABELS.rate) == (100, 25)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_names_and_recipes_exist(method: Method) -> None:
    assert METHODS[method.name] is method
    assert (HERE / "conf" / f"{method.stage.config}.yaml").is_file()
    assert (HERE / "conf" / f"{method.recipe}.yaml").is_file()


@pytest.mark.parametrize("comparison", COMPARISONS[:2], ids=lambda comparison: comparison.title)
def test_pre_training_is_compared_with_the_same_recognisers_from_scratch(comparison: Comparison) -> None:
    for method in comparison.methods:
        assert (method.baseline is None) == (not method.pretrained)
        if method.baseline is not None:
            assert not method.baseline.pretrained
            assert method.baseline.conditions == method.conditions
            assert method.baseline.finetuning == method.finetuning


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.title)
def test_columns_are_what_the_methods_are_tested_in(comparison: Comparison) -> None:
    tested = {condition for method in comparison.methods for condition in method.conditions}
    assert set(comparison.columns) <= tested
