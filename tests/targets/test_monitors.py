"""Numbers that tell a collapse."""

import torch
import torch.nn.functional as F

from av_ssl.targets.collapse import target_monitor


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
