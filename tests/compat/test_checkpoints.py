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

from av_ssl.errors import DataError
from av_ssl_fairseq_hook.checkpoints import read_file

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(TORCH < (2, 6), reason="torch before 2.6 reads checkpoints without a check")


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    from av_ssl.compat import prepare

    prepare()


class Touch:
    """Pickles as a call that writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("reader", [torch.load, read_file])
def test_what_fairseq_saves_comes_back(reader: Callable[[Path], Any], tmp_path: Path) -> None:
    from fairseq.data import Dictionary
    from omegaconf import BooleanNode, FloatNode, IntegerNode, OmegaConf, StringNode

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
    from fairseq.checkpoint_utils import load_checkpoint_to_cpu

    torch.save({"model": {}, "cfg": Touch(tmp_path / "harm")}, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match=r"checkpoint\.pt: refused"):
        load_checkpoint_to_cpu(str(tmp_path / "checkpoint.pt"))
    assert not (tmp_path / "harm").exists()


def sentencepiece_model(folder: Path) -> Path:
    import sentencepiece

    text = folder / "text.txt"
    text.write_text("the cat sat on the mat\nlay green with l four soon\n" * 20)
    options = {"input": str(text), "model_prefix": str(folder / "spm"), "vocab_size": 24, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(**options)
    return folder / "spm.model"


def test_a_pickled_tokenizer_comes_back_and_can_be_saved_again(tmp_path: Path) -> None:
    from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE, SentencepieceConfig

    tokenizer = SentencepieceBPE(SentencepieceConfig(sentencepiece_model=str(sentencepiece_model(tmp_path))))
    torch.save({"tokenizer": tokenizer}, tmp_path / "first.pt")
    first = torch.load(tmp_path / "first.pt")["tokenizer"]
    torch.save({"tokenizer": first}, tmp_path / "second.pt")
    second = torch.load(tmp_path / "second.pt")["tokenizer"]
    assert isinstance(second, SentencepieceBPE)
    assert second.decode(second.encode("the cat sat")) == "the cat sat"
    assert first.encode("the mat") == tokenizer.encode("the mat") == second.encode("the mat")


def test_a_pickle_cannot_have_a_tokenizer_read_a_file(tmp_path: Path) -> None:
    """The stock class takes a path or URL when it is called; what it is read as takes nothing."""
    from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE

    class Fetch:
        def __reduce__(self) -> tuple[Any, ...]:
            options = {"enable_sampling": False, "alpha": None, "model": str(sentencepiece_model(tmp_path))}
            return SentencepieceBPE, (
                argparse.Namespace(**{f"sentencepiece_{k}": v for k, v in options.items()}),
            )

    torch.save({"tokenizer": Fetch()}, tmp_path / "checkpoint.pt")
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        torch.load(tmp_path / "checkpoint.pt")
