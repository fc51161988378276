"""Heads for speech teachers: order of their predictions, logits."""

import numpy as np
import torch

from av_ssl.methods.teacher_heads import TeacherHead
from tests.targets.teacher_folders import CLUSTERS, DIM


def test_heads_emit_earlier_targets_first():
    """Targets that are one linear map of x for even, another for odd ones can be met, swapped ones cannot."""
    torch.manual_seed(0)
    head = TeacherHead(16, DIM, 2, CLUSTERS, 8, 0.1)
    x = torch.randn(200, 16)
    maps = torch.randn(2, 16, DIM)
    targets = torch.stack([x @ maps[0], x @ maps[1]], dim=1).flatten(0, 1)
    with torch.no_grad():
        head.regression.weight.copy_(torch.cat([maps[0].T, maps[1].T]))
        head.regression.bias.zero_()
        np.testing.assert_allclose(head.regress(x), targets, atol=1e-4)
        swapped = targets.view(200, 2, DIM).flip(1).flatten(0, 1)
        assert (head.regress(x) - swapped).abs().mean() > 1


def test_logits_are_cosines_over_temperature():
    head = TeacherHead(16, DIM, 2, CLUSTERS, 8, 0.1)
    x = torch.randn(5, 16)
    g = head.cluster_proj(x).view(10, 1, 8)
    expected = torch.cosine_similarity(g, head.codebook[None], dim=2) / 0.1
    np.testing.assert_allclose(head.classify(x).detach(), expected.detach(), atol=1e-4)
