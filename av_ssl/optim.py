"""AdamW with learning rates by layer and gradients clipped by group, and how models name these groups.

RAVEn is fine-tuned with layer-wise learning-rate decay and a learning rate of the heads, and pre-trained with
each student clipped by its own norm (Haliassos et al., 2023, arXiv 2212.06246, and its published
configuration files). The steps are those of fairseq's ``adam``, which this module makes faster, too.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import fairseq.optim.adam as fairseq_adam
import torch
from fairseq.logging import metrics
from fairseq.optim import register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.utils import clip_grad_norm_
from omegaconf import II
from torch import nn
from torch.optim.adamw import adamw

from av_ssl.compat.keys import option
from av_ssl.modules.convolution import in_float32

logger = logging.getLogger(__name__)

# -- groups, named by the model ------------------------------------------------------------------------------

ATTRIBUTE = "param_group"
"""The parameter's attribute with its :class:`ParameterGroup`: the only one that fairseq copies to the fp32
parameters of ``--bf16`` and ``--fp16 --fp16-no-flatten-grads``."""


class ParameterGroup(NamedTuple):
    """Parameters with the same learning rate that are clipped together."""

    depth: int | None = None
    """Layers of a pre-trained encoder above these parameters; None outside of one, as in heads."""
    clip: str = ""
    """Gradients of parameters that share this name are clipped together."""


def group_of(parameter: nn.Parameter) -> ParameterGroup:
    """The group that a model gave a parameter, or that of heads."""
    group: ParameterGroup = getattr(parameter, ATTRIBUTE, ParameterGroup())
    return group


def mark_depths(encoder: nn.Module, layers: Sequence[nn.Module], top: Sequence[nn.Module] = ()) -> None:
    """Mark how far each parameter of a pre-trained encoder is from its output, for ``grouped_adam``.

    Args:
        encoder: parameters in none of the other arguments (front-ends, input projection) count as part of the
            first layer.
        layers: its layers, first to last.
        top: modules after the last layer; they count as part of it.
    """
    first = max(0, len(layers) - 1)
    set_depth(encoder.parameters(), first)
    for number, layer in enumerate(layers):
        set_depth(layer.parameters(), first - number)
    for module in top:
        set_depth(module.parameters(), 0)


def set_depth(parameters: Iterable[nn.Parameter], depth: int) -> None:
    for parameter in parameters:
        setattr(parameter, ATTRIBUTE, group_of(parameter)._replace(depth=depth))


def clip_together(parameters: Iterable[nn.Parameter], name: str) -> None:
    """Let ``grouped_adam`` clip the gradients of these parameters by their own common norm."""
    for parameter in parameters:
        setattr(parameter, ATTRIBUTE, group_of(parameter)._replace(clip=name))


# -- optimizer -----------------------------------------------------------------------------------------------


FUSED_ON_CPU = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 4)


class Adam(torch.optim.Optimizer):
    """fairseq's Adam by torch's fused kernel: one pass over memory in place of twelve."""

    supports_memory_efficient_fp16 = True
    supports_flat_params = True

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            by_age: dict[int, list[nn.Parameter]] = defaultdict(list)
            for parameter in self.moving(group["params"]):
                by_age[self.begin(parameter)].append(parameter)
            for age, parameters in by_age.items():
                self.update(group, age, parameters)
        return loss

    def moving(self, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Those that have a gradient, or had one.

        What has only had zeros is frozen: several processes, which add gradients up, and half precision give
        it zeros. It must neither decay nor count steps.
        """
        given = [parameter for parameter in parameters if parameter.grad is not None]
        new = [parameter for parameter in given if parameter not in self.state]
        if not new:
            return given
        moved = torch.stack([parameter.grad.any() for parameter in new if parameter.grad is not None])
        frozen = {id(one) for one, any_moved in zip(new, moved.tolist(), strict=True) if not any_moved}
        return [parameter for parameter in given if id(parameter) not in frozen]

    def begin(self, parameter: nn.Parameter) -> int:
        """Count a step of this parameter and return the number; its averages are float32 on its device."""
        state, like = self.state[parameter], in_float32(parameter.data)
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name].to(like) if name in state else torch.zeros_like(like)
        state["step"] = state.get("step", 0) + 1
        return int(state["step"])

    @torch.no_grad()
    def update(self, group: dict[str, Any], age: int, parameters: list[nn.Parameter]) -> None:
        """The step of parameters that have taken equally many."""
        values = [in_float32(parameter.data) for parameter in parameters]
        device = values[0].device
        beta1, beta2 = group["betas"]
        adamw(
            values,
            [in_float32(parameter.grad.data) for parameter in parameters if parameter.grad is not None],
            [self.state[parameter]["exp_avg"] for parameter in parameters],
            [self.state[parameter]["exp_avg_sq"] for parameter in parameters],
            [],
            list(torch.full((len(values),), age - 1.0, device=device).unbind()),
            fused=device.type == "cuda" or (FUSED_ON_CPU and device.type == "cpu"),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            # fairseq adds it to the root of the average before the average is corrected for its start.
            eps=group["eps"] / math.sqrt(1 - beta2**age),
            maximize=False,
        )
        for parameter, value in zip(parameters, values, strict=True):
            if value.dtype != parameter.dtype:
                parameter.data.copy_(value)


def use_fused_adam() -> None:
    """Let this Adam stand for fairseq's, which recipes name as ``adam``."""
    fairseq_adam.Adam = Adam


@dataclass
class GroupedAdamConfig(FairseqAdamConfig):
    """Keys in addition to those of fairseq's ``adam``; their defaults change nothing."""

    layer_decay: float = option(1.0, "factor on the learning rate for each encoder layer above")
    head_lr: Optional[float] = option(None, "peak rate outside the encoder; null: optimization.lr")
    lr_floor: float = option(0.0, "least peak learning rate of a group; the scheduler's min_lr")
    group_clip_norm: float = option(0.0, "clip each group's gradient to this; needs optimization.clip_norm=0")
    clip_norm: float = II("optimization.clip_norm")
    amp: bool = II("common.amp")


@register_optimizer("grouped_adam", dataclass=GroupedAdamConfig)
class GroupedAdam(FairseqAdam):
    """fairseq's Adam with one torch parameter group for each group that the model named.

    The peak learning rate of a group is ``lr * layer_decay ** depth``, ``head_lr`` outside the pre-trained
    encoder, and at least ``lr_floor``.  Any of fairseq's schedulers sets the rate of a group of peak ``lr``;
    the others follow in proportion between floor and peak (see :func:`group_lr`).

    Works in fp32, with ``--bf16``, ``--memory-efficient-fp16``/``-bf16`` and ``--amp``, and with ``--fp16``
    together with ``--fp16-no-flatten-grads`` (one flat tensor has no groups).
    """

    cfg: GroupedAdamConfig

    def __init__(self, cfg: GroupedAdamConfig, params: Iterable[nn.Parameter]) -> None:
        groups: dict[ParameterGroup, list[nn.Parameter]] = defaultdict(list)
        clipped: dict[str, list[nn.Parameter]] = defaultdict(list)
        for parameter in params:
            group = group_of(parameter)
            groups[group].append(parameter)
            clipped[group.clip].append(parameter)
        super().__init__(cfg, [{"params": members} for members in groups.values()])
        self.base_lr = float(self.optimizer_config["lr"])
        check_config(cfg, self.base_lr, groups.keys())
        self.peaks = [peak_lr(cfg, self.base_lr, group) for group in groups]
        self.clipped = dict(clipped)
        self.scheduled_lr = self.base_lr
        self.set_lr(self.base_lr)
        for (group, members), peak in zip(groups.items(), self.peaks, strict=True):
            place = f"encoder, {group.depth} layers below its output"
            if group.depth is None:
                place = "new parameters"
            logger.info(
                "peak learning rate %.3g: %s%s (%d tensors)",
                peak, place, group.clip and f", clipped as {group.clip}", len(members),
            )  # fmt: skip

    def get_lr(self) -> float:
        """The learning rate that the scheduler set last; that of a group may differ."""
        return self.scheduled_lr

    def set_lr(self, lr: float) -> None:
        """Set every group's learning rate for ``lr`` of a group whose peak is ``optimization.lr``."""
        self.scheduled_lr = lr
        for group, peak in zip(self.param_groups, self.peaks, strict=True):
            group["lr"] = group_lr(lr, peak, self.base_lr, self.cfg.lr_floor)

    def step(self, closure: Any = None, scale: Any = 1.0, groups: Any = None) -> None:
        """Clip each clip group, then step; gradients are still to be divided by ``scale``.

        Clipping is done here because fairseq's wrappers for half precision scale gradients until just before
        the step, and their own clipping uses one norm for all.
        """
        if self.cfg.group_clip_norm > 0:
            for name, members in self.clipped.items():
                norm = clip_grad_norm_(members, self.cfg.group_clip_norm * scale)
                metrics.log_scalar(f"gnorm_{name}" if name else "gnorm_rest", norm / scale, round=3)
        super().step(closure, scale=scale, groups=groups)

    @property
    def supports_flat_params(self) -> bool:
        """False: fairseq then asks for ``--fp16-no-flatten-grads``."""
        return False


def peak_lr(cfg: GroupedAdamConfig, base_lr: float, group: ParameterGroup) -> float:
    """The learning rate of a group when that of the scheduler is at its peak, ``base_lr``."""
    if group.depth is None:
        lr = base_lr if cfg.head_lr is None else cfg.head_lr
    else:
        lr = base_lr * cfg.layer_decay**group.depth
    return max(lr, cfg.lr_floor)


def group_lr(lr: float, peak: float, base_lr: float, floor: float) -> float:
    """The learning rate of a group of the given ``peak`` where one of peak ``base_lr`` has ``lr``.

    Above the floor both are at the same share of the way from the floor to their peaks, so that a cosine from
    ``base_lr`` to the floor becomes one from ``peak`` to the floor.  Below it (the first steps of a warm-up
    from 0) all groups have ``lr``.  A linear warm-up from 0 thus departs from a line by no more than
    ``floor * abs(1 - peak / base_lr)`` [ours: a scheduler tells the optimizer a rate, not its phase].
    """
    if lr <= floor or peak == base_lr:
        return lr
    return floor + (peak - floor) * ((lr - floor) / (base_lr - floor))


def check_config(cfg: GroupedAdamConfig, base_lr: float, groups: Iterable[ParameterGroup]) -> None:
    if not 0 < cfg.layer_decay <= 1:
        raise ValueError(f"optimizer.layer_decay is {cfg.layer_decay}; it must be above 0 and at most 1")
    if not 0 <= cfg.lr_floor < base_lr:
        raise ValueError(
            f"optimizer.lr_floor is {cfg.lr_floor}; it must be at least 0 and below optimization.lr, "
            f"which is {base_lr}"
        )
    if cfg.head_lr is not None and cfg.head_lr <= 0:
        raise ValueError(f"optimizer.head_lr is {cfg.head_lr}; it must be above 0, or null")
    if cfg.group_clip_norm > 0 and cfg.clip_norm > 0:
        raise ValueError(
            "optimizer.group_clip_norm and optimization.clip_norm (all gradients together) are both set; "
            "set one of them to 0"
        )
    if cfg.group_clip_norm > 0 and cfg.amp:
        raise ValueError(
            "optimizer.group_clip_norm does not go with common.amp, whose gradients are scaled when they are "
            "clipped; use common.bf16, or common.fp16 with common.fp16_no_flatten_grads"
        )
    if cfg.group_clip_norm > 0 and not any(group.clip for group in groups):
        raise ValueError(
            "optimizer.group_clip_norm is for models that name groups to clip by, as raven does; this one "
            f"names none: set optimization.clip_norm to {cfg.group_clip_norm} in its place"
        )
    by_layer = cfg.layer_decay != 1 or cfg.head_lr is not None
    if by_layer and all(group.depth is None for group in groups):
        raise ValueError(
            "optimizer.layer_decay and optimizer.head_lr are for models with a pre-trained encoder, and no "
            "parameter is marked as one's; with common.fp16, set common.fp16_no_flatten_grads=true "
            "(--fp16-no-flatten-grads), for the flattened parameters are one"
        )
