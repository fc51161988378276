from __future__ import annotations

from conditions import CONDITIONS, titles
from measures import Cost, MethodCost
from methods import AV2VEC, METHODS, SCRATCH
from tables import Run, cost_table, gain, gain_table, markdown_table, mean_and_range, rate_table, whole

COLUMNS = titles(CONDITIONS)
KEYS = list(COLUMNS)
HEAD = "| | VSR | ASR, clean | AVSR, clean | ASR, 0 dB babble | AVSR, 0 dB babble |"


def run(rate: float, training: Cost | None = None, clustering: float = 0.0) -> Run:
    """A run with the rates ``rate``, ``rate + 1``, ..."""
    rates = {key: rate + number for number, key in enumerate(KEYS)}
    return Run(rates, MethodCost(training, Cost(), clustering, 60.4))


def test_a_table_has_the_form_of_the_readme() -> None:
    table = markdown_table(["", "VSR"], [["from scratch", "72.2"]])
    assert table.splitlines() == ["| | VSR |", "|---|---|", "| from scratch | 72.2 |"]


def test_means_name_their_range_and_their_seeds() -> None:
    lines = rate_table({SCRATCH: {1: run(70), 3: run(60.5)}, AV2VEC: {}}, COLUMNS).splitlines()
    assert lines[0] == f"{HEAD} seeds |"
    assert lines[2].startswith("| from scratch | 65.2 (60.5 to 70.0) | 66.2 (61.5 to 71.0) |")
    assert lines[2].endswith("| 1, 3 |")
    assert len(lines) == 3  # a method without a finished seed is left out


def test_gains_compare_the_seeds_that_both_have() -> None:
    runs = {SCRATCH: {1: run(70), 2: run(60)}, AV2VEC: {2: run(50), 3: run(10)}}
    assert gain_table(runs, COLUMNS).splitlines()[2] == "| AV2vec |" + " -10.0 (1 of 1) |" * 5


def test_conditions_that_a_method_lacks_are_left_empty() -> None:
    raven, scratch = METHODS["raven"], METHODS["raven_scratch"]
    keys = [key for key in KEYS if not key.startswith("av")]
    runs = {
        method: {1: Run(dict.fromkeys(keys, rate), run(0).cost)}
        for method, rate in ((scratch, 50.0), (raven, 49.0))
    }
    assert (
        rate_table(runs, COLUMNS)
        .splitlines()[2]
        .startswith("| RAVEn's encoders from scratch | 50.0 | 50.0 | - |")
    )
    row = "| RAVEn | -1.0 (1 of 1) | -1.0 (1 of 1) | - | -1.0 (1 of 1) | - |"
    assert gain_table(runs, COLUMNS).splitlines()[2] == row


def test_without_a_shared_seed_there_are_no_gains() -> None:
    assert gain_table({SCRATCH: {1: run(70)}, AV2VEC: {2: run(50)}}, COLUMNS) == ""
    assert gain_table({AV2VEC: {2: run(50)}}, COLUMNS) == ""


def test_costs_are_means_over_seeds() -> None:
    method = METHODS["av_hubert_1"]
    runs = {
        SCRATCH: {1: run(70)},
        method: {1: run(1, Cost(900, 500_000, 400), 20), 2: run(1, Cost(900, 520_000, 500), 40)},
    }
    rows = cost_table(runs).splitlines()[2:]
    assert rows[0] == "| from scratch | - | - | - | - | - | - | - | - | - | 60 |"
    assert rows[1] == "| AV-HuBERT, 1st iteration | 900 | 510,000 | 450 | - | - | - | 30 | - | - | 60 |"


def test_cells() -> None:
    assert mean_and_range([50.0]) == "50.0"
    assert mean_and_range([50.0, 60.0, 52.0]) == "54.0 (50.0 to 60.0)"
    assert gain([-4.0, 1.0, 0.0]) == "-1.0 (1 of 3)"
    assert gain([-4.0, 1.0, 6.0], higher_is_better=True) == "+1.0 (2 of 3)"
    assert (whole(517320.4), whole(0)) == ("517,320", "-")
