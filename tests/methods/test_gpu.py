"""A step of Base size in half precision, where there is a GPU."""

from typing import Any

import numpy as np
import pytest
import torch
from fairseq.utils import move_to_cuda
from omegaconf import OmegaConf

from av_ssl.methods.av2vec import AV2vecConfig, AV2vecCriterion, AV2vecCriterionConfig, AV2vecModel
from av_ssl.methods.av_hubert import AVHubertConfig, AVHubertCriterion, AVHubertCriterionConfig, AVHubertModel
from tests.methods.helpers import source

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

LENGTHS = [250, 250, 250, 240]
CLASSES = [2004]
GREY_VALUES = {"image_mean": 0.421, "image_std": 0.165}
BASE = {"final_dim": 256, "layer_norm_first": True, "selection_type": "same_seq", **GREY_VALUES}


def model_and_criterion(method: str) -> tuple[Any, Any]:
    if method == "av_hubert":
        cfg = OmegaConf.merge(OmegaConf.structured(AVHubertConfig()), BASE)
        return AVHubertModel(cfg, CLASSES), AVHubertCriterion(AVHubertCriterionConfig(), task=None)
    cfg = OmegaConf.merge(OmegaConf.structured(AV2vecConfig()), {**GREY_VALUES, "use_mlm": True})
    return AV2vecModel(cfg, CLASSES), AV2vecCriterion(AV2vecCriterionConfig(), task=None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["av_hubert", "av2vec"])
def test_step_of_a_thousand_frames(method, dtype):
    torch.manual_seed(0)
    model, criterion = model_and_criterion(method)
    batch = source(LENGTHS, max(LENGTHS), size=88)
    batch["masks"] = model.masking.draw(LENGTHS, max(LENGTHS), np.random.default_rng(0))
    targets = torch.randint(4, CLASSES[0], (len(LENGTHS), max(LENGTHS)))
    sample = {"net_input": batch, "target_list": [targets], "ntokens": sum(LENGTHS), "nsentences": 4}
    loss, size, _ = criterion(model.cuda().to(dtype).train(), move_to_cuda(sample))
    (loss / size).backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
