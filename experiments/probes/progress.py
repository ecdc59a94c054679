"""How far a grid of trainings is: a bar on a terminal, else a line every ten seconds."""

import math
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_QUIET = 10.0  # seconds between lines where there is no terminal


class Bar:
    """Counts trainings, and shows the present one's share, loss and score; a context manager."""

    def __init__(self, total: int):
        self._console, self._total, self._number = Console(stderr=True), total, 0
        self._last, self._name, self._progress = -math.inf, "", None
        self._ended = 0
        self._task: Any = None

    def __enter__(self) -> "Bar":
        if self._console.is_terminal:
            columns = BarColumn(bar_width=24), TextColumn("{task.description}")
            times = TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn()
            self._progress = Progress(*columns, *times, console=self._console)
            self._progress.start()
            self._task = self._progress.add_task("", total=self._total)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        if kind is not None:
            said = f"{self._ended} of {self._total} trainings are kept; the same command goes on from there"
            self._console.print(said, highlight=False, soft_wrap=True)

    def begin(self, name: str) -> None:
        """The next training."""
        self._number += 1
        self._name, self._last = name, -math.inf
        self._show(0.0, "")

    def tell(self, share: float, loss: float, score: float) -> None:
        """How the present training goes; `share` of its budget is used."""
        self._show(share, f" | {share:.0%} | loss {loss:.3g} | score {score:.3g}")

    def end(self) -> None:
        """The present training is over, and kept."""
        self._ended += 1
        if self._progress is not None:
            self._progress.update(self._task, completed=self._number)

    def _show(self, share: float, text: str) -> None:
        line = f"[{self._number}/{self._total}] {self._name}{text}"
        if self._progress is not None:
            shown = line.replace("[", r"\[")
            self._progress.update(self._task, completed=self._number - 1 + share, description=shown)
        elif time.monotonic() - self._last >= _QUIET:
            self._last = time.monotonic()
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
