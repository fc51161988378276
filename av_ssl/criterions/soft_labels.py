"""Soft labels: the earlier way of distilling privileged information, by the teacher's class probabilities."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SOFT_LABELS = ("none", "paper", "code", "hinton")


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float, variant: str) -> Tensor:
    """Cross-entropy (or divergence) of a student from a teacher's softened probabilities, float32 ``[B]``.

    Args:
        student, teacher: logits ``[B, C]``, without margin.
        temperature: divides the teacher's logits, for ``hinton`` the student's, too.
        variant: ``paper``: generalised distillation (Lopez-Paz et al., 2016); ``code``: times the squared
            temperature, as its authors' published code has it; ``hinton``: Kullback-Leibler divergence times
            the squared temperature (Hinton, Vinyals, Dean, 2015).

    Raises:
        ValueError: the variant is unknown, or the numbers of classes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"the teacher tells {teacher.size(-1)} classes apart, the student {student.size(-1)}: soft "
            "labels need the same classes"
        )
    targets = (teacher.float() / temperature).softmax(-1)
    if variant == "hinton":
        softened = (student.float() / temperature).log_softmax(-1)
        return temperature**2 * F.kl_div(softened, targets, reduction="none").sum(-1)
    if variant not in ("paper", "code"):
        raise ValueError(f"criterion.soft_labels is {variant!r}; it must be one of {', '.join(SOFT_LABELS)}")
    loss = -(targets * student.float().log_softmax(-1)).sum(-1)
    return loss * temperature**2 if variant == "code" else loss
