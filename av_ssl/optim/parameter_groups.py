"""What a model tells the optimizer about its parameters."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import nn

ATTRIBUTE = "param_group"
"""Name under which a parameter holds its :class:`ParameterGroup`: the one attribute that fairseq copies to
the fp32 parameters of ``--bf16`` and ``--fp16 --fp16-no-flatten-grads``."""


class ParameterGroup(NamedTuple):
    """Parameters that are treated alike."""

    depth: int | None = None
    """Layers of a pre-trained encoder above these parameters, 0 for its topmost layer and what follows that;
    None for parameters of no pre-trained encoder: recognition heads."""
    clip: str = ""
    """Gradients of parameters that share this name are clipped together."""


def group_of(parameter: nn.Parameter) -> ParameterGroup:
    """The group that a model gave a parameter, or that of heads."""
    group: ParameterGroup = getattr(parameter, ATTRIBUTE, ParameterGroup())
    return group


def mark_depths(encoder: nn.Module, layers: Sequence[nn.Module], top: Sequence[nn.Module] = ()) -> None:
    """Tell the optimizer how far each parameter of a pre-trained encoder is from its output.

    Args:
        encoder: what lies in none of the other arguments (front-ends, input projection) counts as part of the
            first layer.
        layers: its layers, from the input on.
        top: modules behind the last layer; they count as part of it.
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
    """Let ``grouped_adam`` clip the gradients of these parameters by their own norm, apart from others."""
    for parameter in parameters:
        setattr(parameter, ATTRIBUTE, group_of(parameter)._replace(clip=name))
