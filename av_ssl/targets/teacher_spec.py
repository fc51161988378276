"""Which layers of which speech model are a teacher's targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from av_ssl.errors import DataError

NORMS = ("instance", "none")
COMBINATIONS = ("average", "stack")


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher and what is made of it.

    DistillAV averages eight layers of WavLM Large; which ones and how they are normalised is not public, so
    the defaults are our choice [ours].

    Args:
        model: name on the Hugging Face hub, or a local folder.
        layers: ``last``, ``all``, ``top:8``, ``17-24``, ``9`` or several of these with commas, from 1.
        norm: ``instance``: each layer and channel to zero mean and unit variance over the clip; ``none``.
        combine: ``average`` the layers, or ``stack`` their channels.

    Raises:
        DataError: a value is none of those.
    """

    model: str
    layers: str = "top:8"
    norm: str = "instance"
    combine: str = "average"

    def __post_init__(self) -> None:
        for key, value, known in (
            ("norm", self.norm, NORMS),
            ("combine", self.combine, COMBINATIONS),
        ):
            if value not in known:
                raise DataError(f"teacher {self.model}: {key} is {value!r}; take one of {', '.join(known)}")
        self.chosen_layers(None)

    def settings(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def chosen_layers(self, count: int | None) -> list[int]:
        """Layer numbers in order, of a model that has ``count`` (None: unknown yet, only the form is read).

        Raises:
            DataError: the text is malformed, or names a layer that the model lacks.
        """
        total = 10**6 if count is None else count
        try:
            chosen = sorted({layer for part in self.layers.split(",") for layer in _part(part, total)})
        except ValueError:
            raise DataError(
                f"teacher {self.model}: layers are {self.layers!r}; write last, all, top:8, 17-24, or 9,12,15"
            ) from None
        if not chosen or chosen[0] < 1 or chosen[-1] > total:
            raise DataError(
                f"teacher {self.model}: layers are {self.layers!r}; "
                + ("they count from 1" if count is None else f"the model has layers 1 to {count}")
            )
        return chosen


def _part(text: str, count: int) -> range:
    text = text.strip()
    if text == "last":
        return range(count, count + 1)
    if text == "all":
        return range(1, count + 1)
    if text.startswith("top:"):
        return range(count - int(text[4:]) + 1, count + 1)
    first, dash, last = text.partition("-")
    return range(int(first), int(last if dash else first) + 1)
