"""A progress bar with the time left, for a terminal and for a log file."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

LOG_EVERY = 15  # seconds between lines where there is no terminal


class ProgressBar:
    """Shows `done` of `total` clips; appears with the first `update`."""

    def __init__(self, unit: str = "clip") -> None:
        self._unit = unit
        self._bar: tqdm | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` are finished; the speed leaves out what the first call finds."""
        if self._bar is None:
            terminal = sys.stderr.isatty()
            self._bar = tqdm(
                total=total,
                initial=done,
                unit=self._unit,
                mininterval=0.5 if terminal else LOG_EVERY,
                dynamic_ncols=terminal,
            )
        self._bar.update(done - self._bar.n)
