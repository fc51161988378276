"""Word error rates and the noise that they were measured in: from results of fairseq-generate, or a table."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from av_ssl.data.noise import parse_snr
from av_ssl.errors import DataError

CLEAN = math.inf
"""The signal-to-noise ratio of clips without noise."""
COLUMNS = ("method", "snr", "wer")
OPTIONS = re.compile(r"options-(.+)\.yaml")


@dataclass(frozen=True)
class NoiseResult:
    """One measurement: signal-to-noise ratio in dB (`CLEAN`: none), word error rate in percent."""

    method: str
    snr: float
    rate: float


def read_results(folder: Path, method: str | None = None) -> list[NoiseResult]:
    """What `fairseq-generate --results-path` left in a folder: one result for each subset.

    Args:
        folder: with `options-{subset}.yaml` and `generate-{subset}.txt`.
        method: its name; None: that of the checkpoint's folder.

    Raises DataError when a file is missing, noise was in a part of the clips only or of no single SNR, or
    there is no word error rate.
    """
    found = sorted(path for path in folder.glob("options-*.yaml") if OPTIONS.fullmatch(path.name))
    if not found:
        raise DataError(
            f"{folder}: has no options-{{subset}}.yaml; decode again with --task av_recognition, --scoring "
            "wer and --results-path, or write a table"
        )
    results = []
    for path in found:
        options = _read_yaml(path)
        try:
            task, checkpoint = options["task"], Path(options["common_eval"]["path"])
            snr = _snr(path, float(task["noise_prob"]), task["noise_snr"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: lacks {error}; it was not written by this package") from error
        subset = path.name.removeprefix("options-").removesuffix(".yaml")
        rate = word_error_rate(folder / f"generate-{subset}.txt")
        results.append(NoiseResult(method or checkpoint.parent.name, snr, rate))
    return results


def word_error_rate(path: Path) -> float:
    """In percent, out of the file that `fairseq-generate --scoring wer` writes.

    Raises DataError when it is missing, or holds no word error rate.
    """
    try:
        found = re.findall(r"WER: ([0-9.]+)", path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); decode again") from error
    if not found:
        raise DataError(f"{path}: holds no word error rate; decode again with --scoring wer")
    return float(found[-1])


def read_table(path: Path) -> list[NoiseResult]:
    """Rows of a table, columns `method`, `snr` in dB or `clean`, `wer` in percent, separated by tabs or
    commas.

    Raises DataError, which names the line, when it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if "\t" in text else ","))
    heads = [cell.strip() for cell in rows[0]] if rows else []
    missing = [column for column in COLUMNS if column not in heads]
    if missing:
        raise DataError(
            f"{path}, line 1: needed are the columns {', '.join(COLUMNS)}; {missing[0]} is missing"
        )
    results = []
    for number, row in enumerate(rows[1:], start=2):
        cells = dict(zip(heads, (cell.strip() for cell in row), strict=False))
        if not any(cells.values()):
            continue
        try:
            snr = CLEAN if cells["snr"] == "clean" else float(cells["snr"])
            results.append(NoiseResult(cells["method"], snr, float(cells["wer"])))
        except (KeyError, ValueError):
            raise DataError(
                f"{path}, line {number}: needed are a method, its SNR in dB or `clean`, and its word error "
                "rate in percent"
            ) from None
    return results


def by_method(results: Sequence[NoiseResult]) -> dict[str, dict[float, list[float]]]:
    """Rates by method and SNR, rising; several of one, as with several seeds, stand together."""
    methods: dict[str, dict[float, list[float]]] = {}
    for result in results:
        methods.setdefault(result.method, {}).setdefault(result.snr, []).append(result.rate)
    return {method: dict(sorted(rates.items())) for method, rates in methods.items()}


def _snr(path: Path, probability: float, snr: Any) -> float:
    if probability == 0:
        return CLEAN
    value = parse_snr(snr)
    if probability < 1 or isinstance(value, tuple):
        raise DataError(
            f"{path}: noise was in {probability:.0%} of the clips, at {snr} dB; decode with --noise-prob 1 "
            "and one --noise-snr"
        )
    return value


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(options, dict):
        raise DataError(f"{path}: holds no options")
    return options
