"""When a training is ended, and the numbers that show a collapse."""

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import distributed

from av_ssl.targets.collapse import (
    Bounds,
    CollapseGuard,
    decorrelation_loss,
    target_monitor,
)
from tests.stock import SERVER

BOUNDS = {"std": Bounds("model.min_std", low=0.1), "cosine": Bounds("model.max_cosine", high=0.95)}


def guard(start=0, patience=500) -> CollapseGuard:
    return CollapseGuard(BOUNDS, start, patience, "Lower the learning rate.")


def train(watched: CollapseGuard, first: int, last: int, std: float = 1.0, cosine: float = 0.0) -> None:
    """Updates ``first`` to ``last`` of two micro-batches; the trainer says their number before each."""
    for update in range(first, last + 1):
        for _ in range(2):
            watched.look(update)
            watched.record({"std": torch.tensor(std), "cosine": torch.tensor(cosine)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"std": 0.05},
            r"update 500: std is 0\.0500, beyond 0\.1 \(model\.min_std\).* in 500 in a row\. Lower the l",
        ),
        ({"cosine": 0.99}, r"update 500: cosine is 0\.9900, beyond 0\.95 \(model\.max_cosine\)"),
    ],
)
def test_a_lasting_collapse_ends_training(value, message, caplog):
    watched = guard()
    with caplog.at_level(logging.WARNING):
        train(watched, 0, 499, **value)
    assert len(caplog.records) == 4
    with pytest.raises(FloatingPointError, match=message):
        train(watched, 500, 500, **value)


def test_what_passes_does_not():
    watched = guard()
    train(watched, 0, 450, std=0.0)
    train(watched, 451, 520)
    train(watched, 521, 999, std=0.0)
    assert watched.looks_outside["std"] == 3


def test_single_outliers_are_averaged_out():
    watched = guard(patience=100)
    train(watched, 0, 80)
    train(watched, 81, 199, std=0.0)
    assert watched.looks_outside["std"] == 0


def test_the_start_is_not_looked_at():
    watched = guard(start=300, patience=100)
    train(watched, 0, 399, std=0.0)
    with pytest.raises(FloatingPointError, match="at update 400"):
        watched.look(400)


def test_an_update_is_looked_at_once():
    """The totals of its own first micro-batch must not be taken for those of the 100 updates before."""
    watched = guard(patience=100)
    train(watched, 0, 99)
    train(watched, 100, 100, std=0.0)
    watched.look(100)
    assert watched.looks_outside["std"] == 0


def test_numbers_that_no_batch_had_do_not_count():
    watched = guard(patience=100)
    for update in range(101):
        watched.look(update)
        watched.record({"std": torch.tensor(1.0)})
    for update in range(101, 200):  # few have it: their mean counts
        watched.record({"std": torch.tensor(1.0), **({"cosine": torch.tensor(1.0)} if update > 195 else {})})
    with pytest.raises(FloatingPointError, match="cosine is 1"):
        watched.look(200)


def test_nothing_recorded_is_nothing_to_judge():
    watched = guard(patience=100)
    for update in (100, 200):  # reading a checkpoint announces updates, too
        watched.look(update)


def worker(rank: int, store: str, ends: Any) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    watched = CollapseGuard({"std": Bounds("key", low=0.1)}, start=0, patience=200, advice="")
    try:
        for update in range(1000):
            watched.look(update)
            collapsed = rank == 0 or update >= 300  # one worker alone is no collapse
            watched.record({"std": torch.tensor(0.0 if collapsed else 1.0)})
    except FloatingPointError as error:
        ends.put(str(error))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_all_workers_stop_together(tmp_path):
    ends = SERVER.SimpleQueue()
    workers = [SERVER.Process(target=worker, args=(rank, str(tmp_path / "store"), ends)) for rank in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(300)
    assert [process.exitcode for process in workers] == [0, 0]
    assert all("collapsed at update 500" in ends.get() for _ in workers)


# -- monitors ------------------------------------------------------------------------------------------------


def test_directions_drawn_at_random_are_healthy():
    generator = torch.Generator().manual_seed(0)
    monitor = target_monitor(torch.randn(8, 50, 64, generator=generator))
    assert abs(monitor.std - 1) < 0.05
    assert abs(monitor.cosine_between_clips) < 0.02
    assert abs(monitor.cosine_of_neighbours) < 0.02


def test_one_vector_for_all_is_a_collapse():
    monitor = target_monitor(torch.tensor([1.0, -2, 3]).expand(3, 7, 3) * 5)
    assert monitor.std < 1e-3
    assert torch.allclose(monitor.cosine_between_clips, torch.tensor(1.0))


def test_one_vector_a_clip_does_not_change_in_time():
    clips = torch.eye(4)[:, None].expand(4, 9, 4)
    monitor = target_monitor(clips)
    assert monitor.cosine_of_neighbours == 1
    assert monitor.cosine_between_clips.abs() < 1e-6


def test_padding_is_left_out():
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(2, 6, 8, generator=generator)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    changed = target.clone()
    changed[1, 4:] = 100
    for one, other in zip(target_monitor(target, padding), target_monitor(changed, padding), strict=True):
        assert torch.equal(one, other)


def test_mean_cosine_is_that_of_all_pairs():
    generator = torch.Generator().manual_seed(2)
    target = torch.randn(3, 4, 5, generator=generator)
    unit = F.normalize(target, dim=-1)
    pairs = [(unit[a] @ unit[b].T).mean() for a in range(3) for b in range(3) if a != b]
    assert torch.allclose(target_monitor(target).cosine_between_clips, torch.stack(pairs).mean(), atol=1e-6)


def test_a_single_clip_has_no_other():
    assert target_monitor(torch.ones(1, 3, 2)).cosine_between_clips == 0


def test_rank_counts_the_directions_that_share_the_variance():
    generator = torch.Generator().manual_seed(3)
    frames = torch.randn(8, 500, 4, generator=generator)
    assert abs(target_monitor(frames).rank - 4) < 0.05
    assert abs(target_monitor(1e-3 * frames).rank - 4) < 0.05
    one = frames[..., :1] * torch.tensor([1.0, -2, 3, 0.5]) + 1  # all channels carry the same signal
    collapsed = target_monitor(one)
    assert abs(collapsed.rank - 1) < 1e-3
    assert collapsed.std > 0.5  # what the other number does not show
    assert target_monitor(torch.ones(1, 3, 4)).rank == 1


def test_decorrelation_is_channels_over_rank():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(300, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    rank = target_monitor(standard[None]).rank
    assert decorrelation_loss(x) == pytest.approx(float(6 / rank - 1), rel=1e-3)
    x.requires_grad_()
    decorrelation_loss(x).backward()
    assert x.grad.isfinite().all()


def test_workers_are_averaged_before_anyone_decides(monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    other = torch.tensor([[1.0 * 200, 200], [0.0, 0]])  # a worker whose targets are healthy, of single clips
    monkeypatch.setattr(distributed, "all_reduce", lambda totals: totals.add_(other))
    watched = guard(patience=100)
    train(watched, 0, 100, std=0.0)
    other[0, 0] = 0
    with pytest.raises(FloatingPointError):
        train(watched, 101, 200, std=0.0)


def test_a_new_training_from_a_checkpoint_is_watched():
    watched = guard(patience=100)
    watched.look(5000)
    with pytest.raises(FloatingPointError, match="update 100: "):
        train(watched, 0, 100, std=0.0)
