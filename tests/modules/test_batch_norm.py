"""Whose statistics batch norm uses."""

import pytest
import torch
from torch import distributed, nn

from av_ssl.modules.relative_transformer import DropPath, synchronise_batch_norm, use_batch_statistics


def parts():
    return nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), DropPath(0.5))


def test_batch_statistics_without_dropout():
    module = parts()
    use_batch_statistics(module)
    assert [part.training for part in module] == [True, False, False]
    use_batch_statistics(module, drop_path=True)
    assert [part.training for part in module] == [True, False, True]
    x = torch.arange(8.0).view(2, 4)
    assert module[0](x).mean(0).abs().max() < 1e-6


@pytest.mark.parametrize(("workers", "gpu"), [(1, True), (2, False)])
def test_one_process_and_cpus_keep_their_batch_norms(monkeypatch, workers, gpu):
    """A machine may have GPUs and train on its CPU all the same."""
    pretend(monkeypatch, workers, gpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    module = parts()
    synchronise_batch_norm(module)
    assert type(module[0]) is nn.BatchNorm1d


def test_several_gpus_share_statistics(monkeypatch):
    pretend(monkeypatch, workers=2, gpu=True)
    module = parts()
    weight = module[0].weight
    synchronise_batch_norm(module)
    assert type(module[0]) is nn.SyncBatchNorm
    assert module[0].weight is weight  # what the optimizer was told about it stays


def pretend(monkeypatch, workers: int, gpu: bool) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: workers)
    if gpu:
        monkeypatch.setattr("av_ssl.modules.relative_transformer.on_gpu", lambda module: True)
