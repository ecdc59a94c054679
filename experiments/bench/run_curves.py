"""Learning curves kept as CSV, a file a run: made from its metrics, and drawn side by side."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..listing import did_you_mean
from ..plots import COLORS, MUTED, new_figure, nth_style, running_mean, styled, thousands
from ..run_dir import RunDir
from .comparison_curves import read_csv

if TYPE_CHECKING:
    from ..plots import Figure

Points = list[dict[str, Any]]
"""Lines of a file: `env_steps`, `return` and whatever else, `seed` first where there are several."""

_UNDRAWN = ("seed", "env_steps", "seconds", "entropy", "approx_kl")
_SMOOTHED = 5  # points


def points_of(run: RunDir, points: int) -> Points:
    """The first of a run's updates, every n-th after it so that about `points` are kept, and the last.

    Numbers have the six digits that the file gives them, so that both draw the same picture.
    """
    rows = run.rows()
    if not rows:
        raise InputError(f"run_dir={run.path} has no line in metrics.jsonl yet; let it train first")
    kept = rows[:: max(1, len(rows) // points)]
    if kept[-1] is not rows[-1]:
        kept.append(rows[-1])
    names = {"episode_return": "return"}
    names |= {name: name.partition("/")[2] for name in rows[0] if name.startswith("episode_return/")}
    names |= {name: name for name in ("entropy", "approx_kl") if name in rows[0]}
    first, seeds = int(run.config.get("seed", 0)), len(rows[0]["episode_return"])
    found = []
    for seed in range(seeds):
        for row in kept:
            point = {"seed": first + seed} if seeds > 1 else {}
            point |= {"env_steps": int(row["env_steps"]), "seconds": _six(row["wall_time"])}
            found.append(point | {short: _six(row[name][seed]) for name, short in names.items()})
    return found


def _six(number: float | None) -> float:
    return float("nan" if number is None else f"{number:.6g}")


def read_curves(folder: Path, besides: Collection[str] = ()) -> tuple[dict[str, Points], list[str]]:
    """The curves of a folder by the names of their files, and the names of its CSV files of other kinds.

    Files named `besides`, which are about to be written, are not looked at.
    """
    curves: dict[str, Points] = {}
    others = []
    for path in sorted(path for path in folder.glob("*.csv") if path.stem not in besides):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            names = file.readline().strip().split(",")
        if names[names[0] == "seed" :][:1] != ["env_steps"]:
            others.append(path.stem)
            continue
        if "return" not in names:
            raise InputError(f"{path} has no column `return`; name the one that holds it so")
        curves[path.stem] = points = read_csv(path)
        if not points:
            raise InputError(f"{path} has no line below its names; write it again, or take it away")
        for seed in {point.get("seed") for point in points}:
            steps = [point["env_steps"] for point in points if point.get("seed") == seed]
            if not all(a < b for a, b in zip([-1, *steps], steps, strict=False)):
                raise InputError(
                    f"{path} has env_steps that do not grow; sort its lines, each step once a seed"
                )
    return curves, others


def choose(curves: Mapping[str, Points], only: Sequence[str]) -> dict[str, Points]:
    """Those that `only` names, else all with the columns that most have: means over others do not compare."""
    for name in only:
        if name not in curves:
            near = did_you_mean(name, curves)
            raise InputError(
                f"only={name} is none of the curves{near}; choose from {', '.join(curves) or 'none'}"
            )
    if not curves:
        return {}
    kinds = {name: frozenset(_panels(curves[name])) for name in only or curves}
    kind, _ = Counter(kinds.values()).most_common(1)[0]
    strange = [name for name in kinds if kinds[name] != kind]
    if only and strange:
        raise InputError(f"only={strange[0]} has other columns than most that only= names; draw it by itself")
    return {name: curves[name] for name in kinds if name not in strange}


def _panels(points: Points) -> list[str]:
    return ["return", *(name for name in points[0] if name not in (*_UNDRAWN, "return"))]


@styled
def drawn(curves: Mapping[str, Points]) -> "Figure":
    """A panel for the mean return and one for each further column; a style for each of the best eight files.

    Best at the end, that is; the others are thin and grey. Trailing means of five points, over the seeds,
    each of which is a thin line where there are several.
    """
    panels = _panels(next(iter(curves.values())))
    lines = {name: [_line(points, panel) for panel in panels] for name, points in curves.items()}
    ranked = sorted(lines, key=lambda name: _last(lines[name][0][1]), reverse=True)
    longest = max(float(panel[0][0][-1]) for panel in lines.values())
    cells = len(panels) + 1  # the legend has the last one
    across = 3 if cells in (5, 6) else min(4, cells)
    down = -(-cells // across)
    figure, _ = new_figure("", (2.65 * across, 2.35 * down) if cells > 2 else (7.2, 3.2))
    figure.clear()
    grid = figure.subplots(down, across, squeeze=False).flat
    for axes in grid[len(panels) :]:
        axes.axis("off")
    for k, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        for name in ranked[8:]:
            steps, values = lines[name][k]
            axes.plot(steps, values.mean(axis=1), color=MUTED, alpha=0.4, linewidth=0.9)
        for place, name in enumerate(ranked[:8]):
            steps, values = lines[name][k]
            if values.shape[1] > 1:
                axes.plot(steps, values, color=COLORS[place], alpha=0.35, linewidth=0.8)
            marked = [*np.searchsorted(steps, longest * (np.arange(6) + (place + 1) / 9) / 6), len(steps) - 1]
            style: Any = nth_style(place) | {
                "markersize": 4,
                "markevery": [i for i in marked if i < len(steps)],
            }
            axes.plot(steps, values.mean(axis=1), linewidth=1.5, label=name, **style)
        title = "return" if len(panels) == 1 else "return, mean" if k == 0 else panel
        axes.set_title(title, fontsize="medium" if len(title) > 22 else None)
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(thousands)
        axes.locator_params(axis="x", nbins=4)
    handles, labels = grid[0].get_legend_handles_labels()
    if len(ranked) > 8:
        handles.append(grid[0].get_lines()[0])
        labels.append(f"{len(ranked) - 8} that end lower")
    words = f"means of {_SMOOTHED} points, highest end first"
    grid[len(panels)].legend(
        handles, labels, loc="center left", borderaxespad=0, title=words, title_fontsize=8, alignment="left"
    )
    return figure


def _line(points: Points, panel: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[N]` and smoothed values `[N, seed]`; NaN where nothing is known yet."""
    steps = sorted({point["env_steps"] for point in points})
    seeds = sorted({point.get("seed", 0) for point in points})
    values = np.full((len(steps), len(seeds)), np.nan)
    for point in points:
        values[steps.index(point["env_steps"]), seeds.index(point.get("seed", 0))] = point[panel]
    return np.array(steps), running_mean(values, _SMOOTHED)


def _last(values: np.ndarray) -> float:
    mean = values[-1].mean()
    return float(mean) if np.isfinite(mean) else -np.inf
