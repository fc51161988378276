"""A hybrid recogniser decoded by fairseq-generate with a language model, all trained by stock commands."""

import re
import shutil

import pytest
from omegaconf import OmegaConf

from av_ssl.cli.main import main
from tests.stock import stock

from .conftest import assert_decoded, generate

LANGUAGE_MODEL = [
    "--task", "language_modeling", "--arch", "transformer_lm", "--decoder-layers", "1",
    "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16", "--decoder-attention-heads", "2",
    "--tokens-per-sample", "64", "--sample-break-mode", "eos", "--max-tokens", "512", "--optimizer", "adam",
    "--lr", "0.01", "--max-update", "3", "--disable-validation", "--cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def language_model(data, tmp_path_factory):
    """As the README says it is made; the folder of its data, and the checkpoint."""
    folder = tmp_path_factory.mktemp("lm")
    for split in ("train", "valid"):
        words = [data, data / f"{split}.wrd", folder / f"{split}.pieces"]
        assert main(["data", "pieces", *map(str, words)]) == 0
    stock(
        "fairseq-preprocess", "--only-source", "--srcdict", data / "dict.wrd.txt",
        "--trainpref", folder / "train.pieces", "--validpref", folder / "valid.pieces",
        "--destdir", folder / "data",
    )  # fmt: skip
    stock("fairseq-train", folder / "data", *LANGUAGE_MODEL, "--save-dir", folder)
    return folder / "data", folder / "checkpoint_last.pt"


@pytest.fixture
def folder(data, language_model, tmp_path):
    """A data folder with the language model's dictionary in it."""
    shutil.copytree(data, tmp_path / "data")
    shutil.copy(language_model[0] / "dict.txt", tmp_path / "data")
    return tmp_path / "data"


def scores(text):
    return [float(score) for score in re.findall(r"^H-\d+\t(\S+)\t", text, re.MULTILINE)]


@pytest.mark.slow
def test_joint_search_with_a_language_model(folder, mean_hybrid, language_model, tmp_path):
    options = ["--modalities", "audio", "--beam", "4", "--ctc-weight", "0.3"]
    with_lm = ["--lm-path", language_model[1], "--lm-weight", "0.4", "--results-path", tmp_path]
    generate(folder, mean_hybrid, *options, *with_lm)
    text = (tmp_path / "generate-test.txt").read_text()
    assert_decoded(text)
    stored = OmegaConf.load(tmp_path / "options-test.yaml")
    assert stored.search.name == "JointBeamSearch"
    assert (stored.search.ctc_weight, stored.search.lm_weight, stored.search.beam) == (0.3, 0.4, 4)
    assert stored.generation.lm_path == str(language_model[1])
    without = generate(folder, mean_hybrid, *options)
    assert_decoded(without)
    assert scores(without) != scores(text)


@pytest.mark.slow
def test_without_ctc_fairseq_searches(folder, mean_hybrid, language_model, tmp_path):
    lm = ["--lm-path", language_model[1], "--lm-weight", "0.4", "--results-path", tmp_path]
    search = ["--beam", "2", "--max-len-b", "9", "--ctc-weight", "0"]
    generate(folder, mean_hybrid, "--modalities", "audio", *search, *lm)
    assert_decoded((tmp_path / "generate-test.txt").read_text())
    assert OmegaConf.load(tmp_path / "options-test.yaml").search == {"name": "SequenceGenerator"}
