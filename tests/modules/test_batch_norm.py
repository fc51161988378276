"""Whose statistics batch norm uses."""

import torch
from torch import distributed, nn

from av_ssl.modules.batch_norm import synchronise_batch_norm, use_batch_statistics
from av_ssl.modules.relative_transformer import DropPath


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


def test_one_process_keeps_its_batch_norms():
    module = parts()
    assert synchronise_batch_norm(module) is module
    assert type(module[0]) is nn.BatchNorm1d


def test_several_gpus_share_statistics(monkeypatch):
    for name, value in (("is_initialized", True), ("get_world_size", 2)):
        monkeypatch.setattr(distributed, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert type(synchronise_batch_norm(parts())[0]) is nn.BatchNorm1d  # gloo has none that are synchronised
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    module = parts()
    weight = module[0].weight
    converted = synchronise_batch_norm(module)
    assert type(converted[0]) is nn.SyncBatchNorm
    assert converted[0].weight is weight  # what the optimizer was told about it stays
