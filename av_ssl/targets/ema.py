"""Momentum teachers of self-distillation: moving averages of a student, and targets from their layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEACHER_PREFIX = "_ema."
"""Prefix of the names of teachers' tensors in the student's checkpoint."""


def annealed_decay(update: int, start: float, end: float, anneal_updates: int) -> float:
    """Decay after ``update`` updates: linear from ``start`` to ``end`` in ``anneal_updates``, then constant.

    As in data2vec (Baevski et al., 2022, section 3.2).

    >>> [round(annealed_decay(n, 0.999, 0.9999, 30000), 6) for n in (0, 10000, 30000, 50000)]
    [0.999, 0.9993, 0.9999, 0.9999]
    """
    if update >= anneal_updates:
        return end
    return end - (end - start) * (1 - update / anneal_updates)


def cosine_decay(update: int, start: float, updates: int) -> float:
    """Decay for the update with this index: half a cosine from ``start`` at 0 to 1 at ``updates``.

    As in RAVEn (Haliassos et al., 2023) and BYOL (Grill et al., 2020, section 3.3).

    >>> [round(cosine_decay(n, 0.999, 100), 8) for n in (0, 25, 50, 75, 100)]
    [0.999, 0.99914645, 0.9995, 0.99985355, 1.0]
    """
    if updates < 1:
        raise ValueError(f"the decay is to reach 1 after {updates} updates; there must be at least one")
    done = min(1.0, max(0, update) / updates)
    return 1 - (1 - start) * (1 + math.cos(math.pi * done)) / 2


class EMATeacher:
    """A moving average of a student's weights: average <- decay * average + (1 - decay) * student.

    It is not an ``nn.Module`` on purpose: optimiser, distributed wrapper and ``model.half()`` must not reach
    it.  The averages stay in float32 whatever the student's dtype; the module that computes the targets has
    the student's dtype.  fairseq's ``EMAModule`` is not used: it deep-copies, and under gradient accumulation
    it updates with every micro-batch.

    Args:
        student: has all tensors of the teacher by name.
        build: builds a module of the teacher's shape; its weights are replaced by the student's.
        copied: prefixes of names that are copied from the student, not averaged.
    """

    def __init__(
        self, student: nn.Module, build: Callable[[], nn.Module], copied: tuple[str, ...] = ()
    ) -> None:
        reference = next(student.parameters())
        with torch.random.fork_rng(devices=[]):  # its random initialisation is thrown away
            self.module = build().to(reference.device, reference.dtype)
        self.module.requires_grad_(False).eval()
        self.copied = copied
        self.updates = 0
        followed = tensors(student)
        self.average = {
            name: followed[name].detach().clone().float()
            for name, _ in self.module.named_parameters()
            if not name.startswith(copied)
        }
        self.refresh(followed)

    @torch.no_grad()
    def step(self, student: nn.Module, decay: float, updates: int) -> None:
        """Average once for each new update; calls without a new update change nothing.

        fairseq reports the number of finished updates at the start of every micro-batch, so with gradient
        accumulation the same number comes several times. A lower one begins a new training that starts from
        this checkpoint.
        """
        before, self.updates = self.updates, updates
        if updates <= before:
            return
        self.follow_device(next(student.parameters()))
        followed = tensors(student)
        students = [followed[name].float() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), students, 1.0 - decay)
        self.refresh(followed)

    @torch.no_grad()
    def refresh(self, followed: Mapping[str, Tensor]) -> None:
        """Write averages and copied tensors (buffers too) to the module that computes the targets."""
        own = tensors(self.module)
        torch._foreach_copy_(list(own.values()), [self.average.get(name, followed[name]) for name in own])

    def follow_device(self, reference: Tensor) -> None:
        """Move to the student's device (a checkpoint is read before the model is moved)."""
        own = next(self.module.parameters())
        if own.device == reference.device and own.dtype == reference.dtype:
            return
        self.module.to(reference.device, reference.dtype)
        self.average = {name: tensor.to(reference.device) for name, tensor in self.average.items()}

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.average, "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Tensor], student: nn.Module) -> None:
        """Restore the result of :meth:`state_dict`; ValueError if one is missing or has another shape."""
        for name, tensor in self.average.items():
            if name not in state or state[name].shape != tensor.shape:
                raise ValueError(
                    f"the checkpoint's teacher lacks {name} of shape {tuple(tensor.shape)}: was another part "
                    "of the model averaged (model.ema_scope, if the method has it), or is its size another?"
                )
            tensor.copy_(state[name])
        self.updates = int(state["updates"])
        self.refresh(tensors(student))


def without_teachers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(TEACHER_PREFIX)}


def under_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names start with the prefix, by their names without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def instance_norm(x: Tensor, padding_mask: Tensor | None, eps: float = 1e-5) -> Tensor:
    """Normalise each clip and channel of ``x`` ``[B, T, C]`` over its real frames, in float32.

    Without padding this is ``F.instance_norm`` over time.  Padded frames do not count, so that a clip's
    targets do not depend on the other clips in the batch.
    """
    x = x.float()
    if padding_mask is None:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return (x - mean) * (variance + eps).rsqrt()
    weight = (~padding_mask)[..., None].float()
    count = weight.sum(dim=1, keepdim=True)
    mean = (x * weight).sum(dim=1, keepdim=True) / count
    variance = ((x - mean).square() * weight).sum(dim=1, keepdim=True) / count
    return (x - mean) * (variance + eps).rsqrt()


def averaged_targets(
    layers: Sequence[Tensor],
    padding_mask: Tensor | None,
    normalize_layers: bool = True,
    normalize_sum: bool = False,
) -> Tensor:
    """Mean of layers ``[B, T, C]``, each instance-normalised first, in float32; with ``normalize_sum``
    layer-normalised.

    >>> import torch
    >>> y = averaged_targets([torch.arange(6.0).view(1, 3, 2)], None)
    >>> bool(y.mean(dim=1).abs().max() < 1e-6)
    True
    """
    total: Tensor | None = None
    for layer in layers:
        layer = instance_norm(layer, padding_mask) if normalize_layers else layer.float()
        total = layer if total is None else total + layer
    if total is None:
        raise ValueError("no layers to average")
    mean = total / len(layers)
    return F.layer_norm(mean, mean.shape[-1:]) if normalize_sum else mean
