"""Curves of compared cores: points as CSV, and their figure, which is drawn from nothing else."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import atomic
from ..errors import InputError
from ..plots import COLORS, INK, new_figure, nth_style, styled, thousands
from ..stats import stratified_bootstrap

if TYPE_CHECKING:
    from ..plots import Figure


def write_csv(path: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """A line a point below the names of its values; numbers to six digits. Without points, an empty file."""
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if points:  # a short run may have finished no trial
            writer.writerow(points[0])
        for point in points:
            writer.writerow(f"{x:.6g}" if isinstance(x, float) else x for x in point.values())


def read_csv(path: Path) -> list[dict[str, Any]]:
    """What `write_csv` wrote: `core` as text, all else as numbers, NaN where nothing stands.

    `InputError` where the file is missing or something else stands in it.
    """
    found, line = [], 1
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            if len({*names}) < len(names):
                raise ValueError("two columns have one name")
            for values in filter(None, reader):
                line = reader.line_num
                if len(values) != len(names):
                    raise ValueError(f"{len(values)} values below {len(names)} names")
                row = zip(names, values, strict=True)
                found.append({name: text if name == "core" else float(text or "nan") for name, text in row})
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; copy it along with the JSON, or run the benchmark again"
        ) from None
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path} is damaged in line {line} ({error}); mend that line, or write the file again"
        ) from error
    return found


def learning_points(
    core: str, rows: Sequence[Mapping[str, Any]], seed: int, points: int
) -> list[dict[str, Any]]:
    """At most `points` a seed: a run's updates in as many even parts, the mean return of each at its end.

    A part in which a seed finished no trial has no point. `seconds` are of training all seeds together.
    """
    found = []
    for part in np.array_split(np.arange(len(rows)), min(points, len(rows))):
        last = rows[part[-1]]
        returns = np.array([rows[k]["episode_return"] for k in part], float)  # [update, seed], null is NaN
        for column, values in enumerate(returns.T):
            if np.isfinite(values).any():
                point = {"core": core, "seed": seed + column, "step": int(last["env_steps"])}
                found.append(
                    point | {"seconds": float(last["wall_time"]), "return": float(np.nanmean(values))}
                )
    return found


@styled
def drawn(
    learning: Sequence[Mapping[str, Any]], adaptation: Sequence[Mapping[str, Any]], trained: int, split: str
) -> "Figure":
    """Interquartile means over seeds against steps and seconds, over tasks and seeds against trial."""
    cores = list(dict.fromkeys(point["core"] for point in learning))
    several = max(point["trial"] for point in adaptation) > 1
    figure, _ = new_figure("", (4.2 * (2 + several), 3.9))
    figure.clear()
    panels = figure.subplots(1, 2 + several, squeeze=False)[0]
    for k, core in enumerate(cores):
        color = COLORS[k % len(COLORS)]
        steps, seconds, values = _over_seeds([point for point in learning if point["core"] == core])
        for axes, x in zip(panels, (steps, seconds), strict=False):
            axes.fill_between(x, values[1], values[2], color=color, alpha=0.16, linewidth=0)
            axes.plot(x, values[0], color=color, linewidth=2, label=core)
        if several:
            mine = [point for point in adaptation if point["core"] == core]
            trial, middle, low, high = (
                [point[name] for point in mine] for name in ("trial", "iqm", "low", "high")
            )
            panels[2].fill_between(trial, low, high, color=color, alpha=0.16, linewidth=0)
            panels[2].plot(trial, middle, **nth_style(k), linewidth=2, markersize=4)
    panels[0].set_xlabel("environment steps (per seed)")
    panels[0].xaxis.set_major_formatter(thousands)
    panels[0].set_ylabel("return in training, IQM of seeds")
    panels[1].set_xlabel("seconds of training, all seeds together")
    panels[1].set_xscale("log")
    panels[0].legend(loc="best")
    if several:
        panels[2].axvline(trained + 0.5, color=INK, linewidth=1.2, linestyle=":")
        panels[2].set_xlabel(f"trial, {split} tasks (trained to the dotted line)")
        panels[2].set_ylabel("return of the trial, IQM")
    return figure


def _over_seeds(points: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps and seconds, `[N]`, and the interquartile mean of the seeds with its interval, `[3, N]`."""
    steps = sorted({point["step"] for point in points})
    seconds, values = [], []
    for step in steps:
        here = [point for point in points if point["step"] == step]
        seconds.append(here[0]["seconds"])
        interval = stratified_bootstrap(
            np.array([[point["return"]] for point in here]), reps=400, resample_tasks=False
        )
        values.append((interval.value, interval.low, interval.high))
    return np.array(steps), np.array(seconds), np.array(values).T
