"""Checkpoints of fairseq are read, and what would run code in them is not."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from fairseq.data import Dictionary
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE, SentencepieceConfig
from omegaconf import BooleanNode, FloatNode, IntegerNode, OmegaConf, StringNode

from av_ssl.errors import DataError
from av_ssl_fairseq_hook.checkpoints import read_file
from tests.checkpoints.published_layout import Call
from tests.data_folder import write_vocabulary

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(TORCH < (2, 6), reason="torch before 2.6 reads checkpoints without a check")


@pytest.mark.parametrize("reader", [torch.load, read_file])
def test_what_fairseq_saves_comes_back(reader: Callable[[Path], Any], tmp_path: Path) -> None:
    dictionary = Dictionary()
    dictionary.add_symbol("hello")
    state = {
        "args": argparse.Namespace(lr=[0.1], seed=1),
        "cfg": OmegaConf.create({"task": {"labels": ["wrd"], "rate": None}}),
        "typed": OmegaConf.create([BooleanNode(True), FloatNode(0.5), IntegerNode(3), StringNode("wrd")]),
        "task_state": {"dictionaries": [dictionary]},
        "best": np.float64(1.5),
        "order": np.arange(3),
        "counts": collections.defaultdict(float),
        "model": {"weight": torch.ones(2)},
    }
    torch.save(state, tmp_path / "checkpoint.pt")
    read = reader(tmp_path / "checkpoint.pt")
    assert read["args"].lr == [0.1]
    assert read["cfg"].task.labels == ["wrd"]
    assert read["typed"] == [True, 0.5, 3, "wrd"]
    assert read["task_state"]["dictionaries"][0].index("hello") == 4
    assert read["best"] == 1.5
    np.testing.assert_array_equal(read["order"], [0, 1, 2])
    assert read["counts"]["new"] == 0


def test_a_hostile_checkpoint_runs_nothing(tmp_path: Path) -> None:
    torch.save({"model": {}, "cfg": Call(Path.touch, tmp_path / "harm")}, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match=r"checkpoint\.pt: refused"):
        load_checkpoint_to_cpu(str(tmp_path / "checkpoint.pt"))
    assert not (tmp_path / "harm").exists()


def test_a_pickled_tokenizer_comes_back_and_can_be_saved_again(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    tokenizer = SentencepieceBPE(SentencepieceConfig(sentencepiece_model=str(tmp_path / "spm.model")))
    torch.save({"tokenizer": tokenizer}, tmp_path / "first.pt")
    first = torch.load(tmp_path / "first.pt")["tokenizer"]
    torch.save({"tokenizer": first}, tmp_path / "second.pt")
    second = torch.load(tmp_path / "second.pt")["tokenizer"]
    assert isinstance(second, SentencepieceBPE)
    assert second.decode(second.encode("bin blue at")) == "bin blue at"
    assert first.encode("two now") == tokenizer.encode("two now") == second.encode("two now")


def test_a_pickle_cannot_have_a_tokenizer_read_a_file(tmp_path: Path) -> None:
    """The stock class takes a path or URL when it is called; what it is read as takes nothing."""
    write_vocabulary(tmp_path)
    options = {"enable_sampling": False, "alpha": None, "model": str(tmp_path / "spm.model")}
    fetch = Call(
        SentencepieceBPE, argparse.Namespace(**{f"sentencepiece_{key}": v for key, v in options.items()})
    )
    torch.save({"tokenizer": fetch}, tmp_path / "checkpoint.pt")
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        torch.load(tmp_path / "checkpoint.pt")
