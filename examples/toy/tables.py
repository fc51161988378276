"""Tables of word error rates and costs, in markdown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from conditions import Condition, title
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


def seeds_in(runs: dict[int, Run]) -> str:
    return ", ".join(map(str, sorted(runs)))


def rate_table(runs: Runs, columns: Sequence[Condition]) -> str:
    """Mean and range over the seeds that are finished; a method without any is left out."""
    keys = ["_".join(condition) for condition in columns]
    rows = [
        [
            method.title,
            *(
                mean_and_range([run.rates[key] for run in of_method.values() if key in run.rates])
                for key in keys
            ),
            seeds_in(of_method),
        ]
        for method, of_method in runs.items()
        if of_method
    ]
    return markdown_table(["", *map(title, columns), "seeds"], rows)


def gain_table(runs: Runs, columns: Sequence[Condition]) -> str:
    """Difference of each method to its baseline over the seeds that both have; empty where no baseline is."""
    keys = ["_".join(condition) for condition in columns]
    rows = []
    for method, of_method in runs.items():
        of_baseline = runs.get(method.baseline, {}) if method.baseline is not None else {}
        shared = sorted(of_method.keys() & of_baseline.keys())
        if shared:
            pairs = [(of_method[seed].rates, of_baseline[seed].rates) for seed in shared]
            both = [key for key in keys if all(key in rates for pair in pairs for rates in pair)]
            gains = {key: gain([own[key] - other[key] for own, other in pairs]) for key in both}
            rows.append([method.title, *(gains.get(key, "-") for key in keys)])
    return markdown_table(["", *map(title, columns)], rows) if rows else ""


def gain(differences: Sequence[float]) -> str:
    """
    >>> gain([-4.0, 1.0])
    '-1.5 (1 of 2)'
    """
    better = sum(difference < 0 for difference in differences)
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
