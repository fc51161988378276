"""What tests of fine-tuning start from: a dictionary and a pre-trained checkpoint."""

import pytest
from fairseq.data import Dictionary

from tests.methods.helpers import tiny_av2vec
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture
def dictionary():
    dictionary = Dictionary()
    for number in range(6):
        dictionary.add_symbol(f"piece{number}")
    return dictionary


@pytest.fixture
def checkpoint(tmp_path):
    """The file of an AV2vec model and its teacher, and the model."""
    model = tiny_av2vec()
    model.teacher = model.make_teacher()
    return write_checkpoint(tmp_path / "pretrained.pt", model), model
