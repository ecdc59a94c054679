"""What a run shows while it works: the screen, TensorBoard, Weights & Biases; the record is metrics.jsonl."""

import contextlib
import hashlib
import importlib.util
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from .errors import InputError
from .run_dir import RunDir, plain

_QUIET = 10.0  # seconds between lines where there is no terminal
_WINDOW = 20  # rows that the speed is measured over


def check_loggers(config: Mapping[str, Any]) -> None:
    """Raise `InputError` for a logger that is asked for and not installed; imports nothing."""
    if config.get("wandb") and importlib.util.find_spec("wandb") is None:
        raise InputError(
            "wandb=true needs Weights & Biases, which is not installed; "
            "install it with `pip install 'resetta[wandb]'` (in a checkout: `uv sync --extra wandb`), "
            "or leave wandb=false"
        )


Show = Callable[[int, int], None]  # (done, of how many)


@contextlib.contextmanager
def phase(text: str, console: Console | None = None) -> Iterator[Show]:
    """Say that something slow is going on, with the seconds it has taken: imports, compiling, evaluating.

    Work whose length is known may call what this gives, as in `show(320, 1200)`, as often as it likes.
    """
    console = console or Console(stderr=True)
    start = time.monotonic()
    if console.is_terminal:
        columns = SpinnerColumn(), TextColumn("{task.description}"), _KnownBar(bar_width=30)
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
            task = progress.add_task(text, total=None)
            yield lambda done, total: progress.update(
                task, description=f"{text}: {done}/{total}", completed=done, total=total
            )
        return
    over = threading.Event()
    far = ""

    def tick() -> None:
        while not over.wait(_QUIET):
            _line(console, f"{text} ... {far}{time.monotonic() - start:.0f} s")

    def show(done: int, total: int) -> None:
        nonlocal far
        far = f"{done}/{total}, "

    _line(console, f"{text} ...")
    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield show
    finally:
        over.set()
        ticking.join()
    if time.monotonic() - start >= 1:
        _line(console, f"{text}: {time.monotonic() - start:.0f} s")


class _KnownBar(BarColumn):
    """A bar once it is known how much there is to do."""

    def render(self, task: Task) -> Any:
        return super().render(task) if task.total else Text("")


class Logs:
    """Shows the rows of one run; a context manager.

    `total_steps` and `start_step` are environment steps of one seed, or a video model's optimiser steps;
    `start_step` is the checkpoint's when a run is resumed: TensorBoard then drops what an interrupted run
    wrote beyond it.
    """

    def __init__(
        self,
        run: RunDir,
        *,
        total_steps: int,
        start_step: int = 0,
        seeds: int = 1,
        tensorboard: bool = True,
        wandb: bool = False,
        console: Console | None = None,
    ):
        check_loggers({"wandb": wandb})
        self._console = console or Console(stderr=True)
        self._total, self._seeds = total_steps, seeds
        self._steps = "step" if run.video else "env_steps"
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), start_step)], maxlen=_WINDOW)
        self._last_line = -math.inf
        self._progress: Progress | None = None
        self._task: Any = None
        unfinished = start_step < total_steps  # otherwise there is nothing to log, and no file to begin
        self._tensorboard = _tensorboard(run, start_step) if tensorboard and unfinished else None
        self._wandb = _wandb(run) if wandb and unfinished else None
        self.say(f"{'going on with' if run.resumed else 'run directory'}: {run.path}")

    def say(self, text: str) -> None:
        """One line on the screen, above the progress bar."""
        _line(self._console, text)

    def log(self, row: Mapping[str, Any]) -> None:
        """Show one row, which needs `env_steps` (`step` of a video run); lists hold one value per seed."""
        row = plain(row)
        steps = row[self._steps]
        self._seen.append((time.monotonic(), steps))
        if self._console.is_terminal:
            self._bar(row)
        elif time.monotonic() - self._last_line >= _QUIET or steps >= self._total:
            self._last_line = time.monotonic()
            self.say(self._text(row))
        scalars = dict(_scalars(row))
        if self._tensorboard is not None:
            for name, value in scalars.items():
                self._tensorboard.add_scalar(name, value, steps)
        if self._wandb is not None:
            self._wandb.log(scalars, step=steps)

    @contextlib.contextmanager
    def phase(self, text: str) -> Iterator[Show]:
        """As the function `phase`, with the progress bar out of the way."""
        self._stop_bar()  # two live displays cannot share a terminal
        with phase(text, self._console) as show:
            yield show
        now = time.monotonic()
        self._seen = deque([(now, self._seen[-1][1])], maxlen=_WINDOW)  # the pause says nothing about speed

    def close(self) -> None:
        """Finish the bar and flush every logger."""
        self._stop_bar()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _speed(self) -> float:
        """Steps a second of one seed, over the last rows."""
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def _text(self, row: Mapping[str, Any]) -> str:
        speed = self._speed()
        parts = [f"{_short(row[self._steps])}/{_short(self._total)} steps"]
        if speed > 0:
            parts.append(f"{_short(speed * self._seeds)} steps/s")
            left = max(self._total - row[self._steps], 0) / speed
            parts.append(f"{_duration(left)} left")
        finite = _finite(row.get("episode_return"))
        if finite:
            several = f" (mean of {len(finite)} seeds)" if len(finite) > 1 else ""
            parts.append(f"return {sum(finite) / len(finite):.3g}{several}")
        if isinstance(row.get("loss"), float) and self._steps == "step":
            parts.append(f"loss {row['loss']:.4g}")
        if row.get("perf_queue_fill") is not None:
            parts.append(f"data queue {row['perf_queue_fill']:.0%} full")
        return " | ".join(parts)

    def _bar(self, row: Mapping[str, Any]) -> None:
        if self._progress is None:
            self._progress = Progress(
                BarColumn(bar_width=30), TextColumn("{task.description}"), console=self._console
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=self._total)
        completed = min(row[self._steps], self._total)
        self._progress.update(self._task, completed=completed, description=self._text(row))

    def _stop_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number of a row; a list's values one by one, since seeds stay separate in every file."""
    for name, value in row.items():
        if name in ("env_steps", "update", "step"):
            continue
        values = value if isinstance(value, list) else [value]
        for seed, item in enumerate(values):
            if isinstance(item, int | float) and not isinstance(item, bool):
                yield (f"{name}/{seed}" if len(values) > 1 else name), item


def _tensorboard(run: RunDir, start_step: int) -> Any:
    from tensorboardX import SummaryWriter  # lazily: most imports of this module never log

    purge_step = start_step + 1 if run.resumed else None
    # a file's name holds the second it was begun in; the suffix keeps a quick resume from overwriting it
    return SummaryWriter(str(run.tensorboard), purge_step=purge_step, filename_suffix=f".{start_step}")


def _wandb(run: RunDir) -> Any:
    import wandb  # pyright: ignore[reportMissingImports]

    identity = hashlib.sha256(str(run.path.absolute()).encode()).hexdigest()[:16]
    return wandb.init(
        project="resetta",
        id=identity,
        name=run.path.name,
        dir=str(run.path),
        config=run.config,
        resume="allow",
    )


def _finite(value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int | float)]


def _line(console: Console, text: str) -> None:
    """A plain line; not through Rich where nobody watches, which would wrap it."""
    if console.is_terminal:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    else:
        print(text, file=console.file or sys.stderr, flush=True)


def _short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
