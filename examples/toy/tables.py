"""Tables of word error rates and costs, in markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Protocol, TypeVar

from measures import Cost, MethodCost
from methods import Method
from sizes import Size


@dataclass(frozen=True)
class Run:
    """One method with one seed.

    Args:
        rates: word error rates in percent by condition.
    """

    rates: dict[str, float]
    cost: MethodCost


Runs = dict[Method, dict[int, Run]]
"""By method and seed: those that are finished."""


class Row(Protocol):
    """What is measured, and what it is compared with."""

    @property
    def title(self) -> str: ...

    @property
    def baseline(self) -> "Row | None": ...


class Rated(Protocol):
    """What was measured, in percent, by condition."""

    @property
    def rates(self) -> dict[str, float]: ...


AnyRow = TypeVar("AnyRow", bound=Row)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a head; the cell above the first column may be empty."""
    lines = ["| " + " | ".join(heads).lstrip() + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def setting(size: Size) -> str:
    """The sentence above a table of word error rates."""
    return (
        f"Word error rate in %: {size.test} test clips of unheard voices, {size.labelled} labelled clips, "
        f"{size.train} without labels."
    )


def mean_and_range(values: Sequence[float]) -> str:
    """
    >>> mean_and_range([50.0, 60.0, 52.0]), mean_and_range([50.0]), mean_and_range([])
    ('54.0 (50.0 to 60.0)', '50.0', '-')
    """
    if not values:
        return "-"
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def seeds_in(runs: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(runs)))


def rate_table(runs: Mapping[AnyRow, Mapping[int, Rated]], columns: Mapping[str, str]) -> str:
    """Mean and range over the seeds that are finished; a row without any is left out.

    Args:
        columns: heads, by condition.
    """
    rows = [
        [
            row.title,
            *(
                mean_and_range([run.rates[key] for run in of_row.values() if key in run.rates])
                for key in columns
            ),
            seeds_in(of_row),
        ]
        for row, of_row in runs.items()
        if of_row
    ]
    return markdown_table(["", *columns.values(), "seeds"], rows)


def gain_table(
    runs: Mapping[AnyRow, Mapping[int, Rated]], columns: Mapping[str, str], higher_is_better: bool = False
) -> str:
    """Difference of each row to its baseline over the seeds that both have; empty where no baseline is."""
    rows = []
    for row, of_row in runs.items():
        of_baseline = next((of_other for other, of_other in runs.items() if other == row.baseline), {})
        shared = sorted(of_row.keys() & of_baseline.keys())
        if shared:
            pairs = [(of_row[seed].rates, of_baseline[seed].rates) for seed in shared]
            both = [key for key in columns if all(key in rates for pair in pairs for rates in pair)]
            gains = {
                key: gain([own[key] - other[key] for own, other in pairs], higher_is_better) for key in both
            }
            rows.append([row.title, *(gains.get(key, "-") for key in columns)])
    return markdown_table(["", *columns.values()], rows) if rows else ""


def gain(differences: Sequence[float], higher_is_better: bool = False) -> str:
    """
    >>> gain([-4.0, 1.0]), gain([-4.0, 1.0, 1.0], higher_is_better=True)
    ('-1.5 (1 of 2)', '-0.7 (2 of 3)')
    """
    better = sum(difference > 0 if higher_is_better else difference < 0 for difference in differences)
    return f"{mean(differences):+.1f} ({better} of {len(differences)})"


def cost_table(runs: Runs) -> str:
    """Means over the seeds: the training itself, what its labels and teachers took, fine-tuning."""
    heads = ["", "updates", "frames", "seconds", "labels: updates of earlier models", "their frames"]
    heads += ["their seconds", "labels: clustering, seconds", "speech teachers: training, seconds"]
    heads += ["their targets, seconds", "fine-tuning, seconds"]
    rows = []
    for method, of_method in runs.items():
        if not of_method:
            continue
        costs = [run.cost for run in of_method.values()]
        cells = mean_cost(costs, lambda cost: cost.training)
        cells += mean_cost(costs, lambda cost: cost.label_training)
        for seconds in ("clustering", "teacher_training", "teaching", "finetuning"):
            cells.append(whole(mean(getattr(cost, f"{seconds}_seconds") for cost in costs)))
        rows.append([method.title, *cells])
    return markdown_table(heads, rows)


def mean_cost(costs: Sequence[MethodCost], part: Callable[[MethodCost], Cost | None]) -> list[str]:
    """Updates, frames, seconds."""
    parts = [part(cost) or Cost() for cost in costs]
    return [whole(mean(getattr(one, key) for one in parts)) for key in ("updates", "frames", "seconds")]


def whole(value: float) -> str:
    """
    >>> whole(517320.4), whole(0.0)
    ('517,320', '-')
    """
    return f"{value:,.0f}" if value else "-"
