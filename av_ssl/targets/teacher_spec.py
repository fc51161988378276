"""Which layers of which speech model are a teacher's targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
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
        self._ranges(None)

    def settings(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def chosen_layers(self, count: int) -> list[int]:
        """Layer numbers in order, of a model that has ``count``.

        Raises:
            DataError: the model lacks one of them.
        """
        return sorted({layer for part in self._ranges(count) for layer in part})

    def resolved(self, count: int) -> TeacherSpec:
        """The same for a model that has ``count``, with layers by number, in the one way to write them.

        Raises:
            DataError: the model lacks one of them.
        """
        chosen = self.chosen_layers(count)
        first, last = chosen[0], chosen[-1]
        contiguous = len(chosen) > 1 and len(chosen) == last - first + 1
        return replace(self, layers=f"{first}-{last}" if contiguous else ",".join(map(str, chosen)))

    def _ranges(self, count: int | None) -> list[range]:
        """Of a model whose number of layers may be unknown yet, so that only the form is read."""
        total = 10**6 if count is None else count
        try:
            parts = [_part(text, total) for text in self.layers.split(",")]
        except ValueError:
            raise DataError(
                f"teacher {self.model}: layers are {self.layers!r}; write last, all, top:8, 17-24, or 9,12,15"
            ) from None
        if any(not part or part[0] < 1 or part[-1] > total for part in parts):
            raise DataError(
                f"teacher {self.model}: layers are {self.layers!r}; "
                + ("they count from 1" if count is None else f"the model has layers 1 to {count}")
            )
        return parts


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
