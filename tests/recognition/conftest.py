"""What tests of fine-tuning start from: a dictionary and a pre-trained checkpoint."""

import pytest

from tests.dictionaries import dictionary_of
from tests.methods.helpers import tiny_av2vec
from tests.tiny_checkpoints import write_checkpoint


@pytest.fixture
def dictionary():
    return dictionary_of(f"piece{number}" for number in range(6))


@pytest.fixture
def checkpoint(tmp_path):
    """The file of an AV2vec model and its teacher, and the model."""
    model = tiny_av2vec()
    model.teacher = model.make_teacher()
    return write_checkpoint(tmp_path / "pretrained.pt", model), model
