"""A file in the layout of each kind of published checkpoint."""

import pytest

from tests.checkpoints.published_layout import finetuned_state, pretrained_state, save


@pytest.fixture(params=["av_hubert", "av_hubert_seq2seq", "av_hubert_ctc"])
def published(request, tmp_path):
    content = pretrained_state() if request.param == "av_hubert" else finetuned_state(tmp_path, request.param)
    return save(content, tmp_path / "published.pt")
