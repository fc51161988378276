"""What tests of fine-tuning start from: a dictionary and a pre-trained checkpoint."""

import pytest
import torch
from fairseq.data import Dictionary

from tests.methods.helpers import TINY, tiny_av2vec


@pytest.fixture
def dictionary():
    dictionary = Dictionary()
    for number in range(6):
        dictionary.add_symbol(f"piece{number}")
    return dictionary


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as fairseq writes it, with an AV2vec model and its teacher."""
    model = tiny_av2vec()
    model.teacher = model.make_teacher()
    cfg = {"model": {"_name": "av2vec", **TINY}, "task": {"_name": "av_pretraining", "normalize": True}}
    path = tmp_path / "pretrained.pt"
    history = [{"criterion_name": "AV2vecCriterion", "num_updates": 1, "lr_scheduler_state": {}}]
    extra = {"train_iterator": {"epoch": 1}}
    state = {
        "args": None,
        "cfg": cfg,
        "model": model.state_dict(),
        "optimizer_history": history,
        "extra_state": extra,
    }
    torch.save(state, path)
    return path, model
