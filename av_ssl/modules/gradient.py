"""How much of the gradient reaches a front-end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fairseq.modules import GradMultiply
from torch import Tensor


def with_scaled_gradient(extract: Callable[[], Tensor], scale: float) -> Tensor:
    """Call ``extract``; the gradient into its result is multiplied by ``scale`` (0: no backward pass)."""
    if scale <= 0:
        with torch.no_grad():
            return extract()
    features = extract()
    return features if scale == 1.0 or not features.requires_grad else GradMultiply.apply(features, scale)
