"""`av-ssl model average`."""

import pytest
import torch

from .conftest import call


def write(path, value, symbols=("a", "b"), **tensors):
    encoder = {"model": {"_name": "av_hubert"}, "task": {"_name": "av_hubert_pretraining"}}
    cfg = {"model": {"_name": "av_hubert_ctc", "w2v_args": encoder}, "task": {"_name": "av_recognition"}}
    model = {
        "weight": torch.full((2,), value),
        "half": torch.full((2,), value, dtype=torch.float16),
        "norm.running_mean": torch.tensor([value]),
        "norm.num_batches_tracked": torch.tensor(int(value)),
        **tensors,
    }
    text = {"symbols": list(symbols), "tokenizer": None}
    torch.save({"cfg": cfg, "model": model, "task_state": text}, path)
    return path


def average(*words):
    return call("model", "average", *words)


def test_floating_tensors_are_averaged_and_counters_are_the_last(tmp_path, capsys):
    paths = [write(tmp_path / f"checkpoint{n}.pt", float(n)) for n in (1, 2, 6)]
    assert average(tmp_path / "mean.pt", *paths) == 0
    assert "mean of checkpoint1.pt, checkpoint2.pt, checkpoint6.pt" in capsys.readouterr().out
    model = torch.load(tmp_path / "mean.pt", weights_only=True)["model"]
    assert model["weight"].tolist() == [3.0, 3.0]
    assert model["half"].dtype == torch.float16
    assert model["half"].tolist() == [3.0, 3.0]
    assert model["norm.running_mean"].tolist() == [3.0]
    assert model["norm.num_batches_tracked"].item() == 6


def test_half_precision_is_summed_in_single(tmp_path):
    """60000 + 60000 is infinite in float16, and 2048 + 1 is 2048."""
    for n, value in enumerate((60000.0, 60000.0, 2048.0, 1.0)):
        write(tmp_path / f"checkpoint{n}.pt", 1.0, large=torch.tensor([value], dtype=torch.float16))
    assert average(tmp_path / "mean.pt", *(tmp_path / f"checkpoint{n}.pt" for n in (0, 1))) == 0
    assert torch.load(tmp_path / "mean.pt")["model"]["large"].item() == 60000
    (tmp_path / "mean.pt").unlink()
    assert average(tmp_path / "mean.pt", *(tmp_path / f"checkpoint{n}.pt" for n in (2, 3))) == 0
    assert torch.load(tmp_path / "mean.pt")["model"]["large"].item() == torch.tensor(1024.5).half().item()


@pytest.mark.parametrize(
    ("option", "names", "expected"),
    [
        ("--epochs", ("checkpoint2.pt", "checkpoint9.pt", "checkpoint10.pt", "checkpoint_best.pt"), 9.5),
        ("--updates", ("checkpoint_1_900.pt", "checkpoint_2_1000.pt", "checkpoint11.pt"), 950.0),
    ],
)
def test_last_checkpoints_are_chosen_by_number(tmp_path, option, names, expected):
    for name in names:
        number = name.removesuffix(".pt").removeprefix("checkpoint").split("_")[-1]
        write(tmp_path / name, float(number) if number.isdigit() else 1000.0)
    assert average(tmp_path / "mean.pt", tmp_path, option, 2) == 0
    assert torch.load(tmp_path / "mean.pt")["model"]["weight"].tolist() == [expected] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("out.pt", "none.pt"), "none.pt: there is no such file"),
        (("a.pt", "b.pt"), "a.pt: exists; name another file"),  # OUT was forgotten
        (("out.pt", "a.pt", "b.pt", "a.pt"), "a.pt: is named more than once"),
        (("out.pt", "a.pt", "shape.pt"), "are of different models: weight (1 tensors)"),
        (("out.pt", "a.pt", "text.pt"), "were trained with different dictionaries"),
        (("out.pt", ".", "--epochs", "2"), "holds 0 checkpoints checkpointEPOCH.pt, not 2"),
        (("out.pt", "a.pt", "--epochs", "2"), "a.pt: with --epochs or --updates, name one folder"),
        (("out.bin", "a.pt"), "out.bin: name a file that ends in .pt"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, refused, words, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.pt", 1.0)
    write(tmp_path / "b.pt", 2.0)
    write(tmp_path / "shape.pt", 2.0, weight=torch.zeros(3))
    write(tmp_path / "text.pt", 2.0, symbols=("a", "c"))
    assert message in refused(average(*words))
    assert not (tmp_path / "out.pt").exists()


def test_without_pickled_code(tmp_path, refused):
    torch.save({"cfg": {"model": {}, "task": {}}, "model": print}, tmp_path / "evil.pt")
    assert "evil.pt" in refused(average(tmp_path / "out.pt", tmp_path / "evil.pt"))
