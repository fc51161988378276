"""Word error rates in noise, from results folders and tables."""

import math

import pytest
import yaml

from av_ssl.analysis.plots import CLEAN, NoiseResult, by_method, read_results, read_table
from av_ssl.errors import DataError


def results(folder, rate="12.34", subset="test", **task):
    folder.mkdir(exist_ok=True)
    options = {"task": {"noise_prob": 1.0, "noise_snr": "0", **task},
               "common_eval": {"path": "/models/av2vec_av/checkpoint_best.pt"}}  # fmt: skip
    (folder / f"options-{subset}.yaml").write_text(yaml.safe_dump(options))
    (folder / f"generate-{subset}.txt").write_text(
        f"H-0\t-1\ta\nGenerate {subset} with beam=8: WER: {rate}\n"
    )
    return folder


def test_a_results_folder(tmp_path):
    folder = results(tmp_path / "r", noise_snr="-5")
    assert read_results(folder) == [NoiseResult("av2vec_av", -5.0, 12.34)]
    assert read_results(folder, "AV2vec") == [NoiseResult("AV2vec", -5.0, 12.34)]
    assert read_results(results(tmp_path / "clean", noise_prob=0.0))[0].snr == CLEAN
    results(folder, "50.0", "valid", noise_snr="5")
    assert [(row.snr, row.rate) for row in read_results(folder)] == [(-5, 12.34), (5, 50)]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"noise_prob": 0.25}, "noise was in 25% of the clips"),
        ({"noise_snr": "(-5,5)"}, "at \\(-5,5\\) dB"),
        ({"noise_snr": None}, "noise_snr is None"),
    ],
)
def test_noise_of_no_single_ratio(task, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_results(results(tmp_path / "r", **task))


def test_folders_that_hold_no_rate(tmp_path):
    with pytest.raises(DataError, match=r"has no options-\{subset\}\.yaml"):
        read_results(tmp_path)
    folder = results(tmp_path / "r")
    (folder / "generate-test.txt").write_text("H-0\t-1\ta\n")
    with pytest.raises(DataError, match=r"generate-test\.txt: holds no word error rate"):
        read_results(folder)
    (folder / "generate-test.txt").unlink()
    with pytest.raises(DataError, match=r"generate-test\.txt: cannot be read"):
        read_results(folder)
    (folder / "options-test.yaml").write_text("task: {}\n")
    with pytest.raises(DataError, match="was not written by this package"):
        read_results(folder)
    (folder / "options-test.yaml").write_text("a: [")
    with pytest.raises(DataError, match=r"options-test\.yaml: cannot be read"):
        read_results(folder)


@pytest.mark.parametrize("separator", ["\t", ","])
def test_a_table(separator, tmp_path):
    rows = [("wer", "method", "snr"), ("50", "A", "0"), ("20.5", "A", "clean"), ("60", "B", "-5")]
    path = tmp_path / "rates.tsv"
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n\n")
    found = read_table(path)
    assert found == [NoiseResult("A", 0, 50), NoiseResult("A", math.inf, 20.5), NoiseResult("B", -5, 60)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: needed are the columns method, snr, wer"),
        ("method,snr\nA,0\n", "wer is missing"),
        ("method,snr,wer\nA,0,50\nA,loud,50\n", "line 3: needed"),
        ("method,snr,wer\nA,0\n", "line 2: needed"),
    ],
)
def test_tables_that_cannot_be_used(text, message, tmp_path):
    (tmp_path / "rates.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "rates.csv")


def test_seeds_of_one_method_stand_together():
    rows = [
        NoiseResult("A", CLEAN, 10),
        NoiseResult("A", 0, 50),
        NoiseResult("B", 0, 60),
        NoiseResult("A", 0, 54),
    ]
    assert by_method(rows) == {"A": {0: [50, 54], CLEAN: [10]}, "B": {0: [60]}}
    assert list(by_method(rows)["A"]) == [0, CLEAN]
