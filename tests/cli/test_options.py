"""``av-ssl options``: every key of what a recipe can name, as an override."""

from __future__ import annotations

import pytest

from .conftest import call


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("av2vec", "model.encoder_layers=12  [int, 1 or more]  number of Transformer layers"),
        ("av2vec", "criterion (criterion._name=av2vec)"),
        ("av_recognition", "task.modalities=av  [one of audio, video, av]  streams to load"),
        ("grouped_adam", "optimizer.head_lr=null  [float or null, 0 or more]"),
        ("tri_stage", "lr_scheduler.warmup_steps=0  [int, 0 or more]"),
        ("checkpoint", "checkpoint.best_checkpoint_metric=loss  [str]"),
    ],
)
def test_keys(name: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("options", name) == 0
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith(expected) for line in printed)


def test_names(refused, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("options") == 0
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("model: ") and "av_hubert_ctc" in line for line in printed)
    assert "checkpoint" in printed
    assert "av2vec" in refused(call("options", "av2vek"))


def test_every_structure_can_be_printed() -> None:
    from av_ssl.cli.options import keys, structures

    own = [each for each in structures() if each[2].__module__.startswith("av_ssl.")]
    assert len(own) > 15
    for section, _, kind in own:
        assert all(line.startswith(f"{section}.") for line in keys(section, kind))
