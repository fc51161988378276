"""How fast a GPU trains: measured by the benchmark, or assumed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from av_ssl.errors import DataError

USUAL_SHARE = 0.3  # of a GPU's matrix peak, where nothing was measured
BENCHMARK_ROW = "as shipped"


@dataclass(frozen=True)
class Speed:
    """Useful multiply-adds a second of one GPU (three forward passes of the student), and their source."""

    multiply_adds: float
    source: str

    @classmethod
    def assumed(cls, tflops: float) -> Speed:
        """A usual share of the peak of matrix products."""
        source = f"ESTIMATE: {USUAL_SHARE:.0%} of {tflops:g} TFLOP/s; give --measured for yours"
        return cls(USUAL_SHARE * tflops * 1e12 / 2, source)

    @classmethod
    def measured(cls, path: Path) -> Speed:
        """Of the file that benchmarks/training_step.py --json writes; raises DataError for another one."""
        try:
            content = json.loads(path.read_text())
            row = next(row for row in content["rows"] if row["step"] == BENCHMARK_ROW)
            rate = row["share_of_matrix_peak"] * content["matrix_peak_gflops"] * 1e9 / 2
            source = (
                f"measured on {content['machine']}: {row['frames_per_second']:,.0f} frames/s of AV2vec "
                f"{content['size']}, {content['dtype']}, {row['peak_memory_gb']:.1f} GB for "
                f"{content['real_frames']:,} real of {content['padded_frames']:,} frames"
            )
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
            raise DataError(
                f"{path}: holds no step time ({type(error).__name__}: {error}); make it with "
                "benchmarks/training_step.py --json"
            ) from error
        return cls(float(rate), source)
