"""Figures that several cores share, in the style of `experiments.plots`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plots import COLORS, INK, new_figure, nth_style, styled, thousands

if TYPE_CHECKING:
    from ..plots import Figure

Point = tuple[float, float, float, float]
"""Where on the x axis, median, low, high."""


@styled
def against(
    lines: Mapping[str, Sequence[Point]],
    title: str,
    xlabel: str,
    ylabel: str,
    logarithmic: bool = False,
    from_zero: bool = False,
) -> "Figure":
    """A line per label, with bars from the lowest to the highest measurement; the x axis doubles."""
    figure, axes = new_figure(title)
    for k, (label, points) in enumerate(lines.items()):
        x, median, low, high = np.array(points, float).T
        bars = np.abs(np.stack([median - low, high - median]))
        style: Any = nth_style(k) | {"markersize": 4.5}
        axes.errorbar(
            x, median, yerr=bars if bars.any() else None, linewidth=2, capsize=2.5, label=label, **style
        )
    ticks = sorted({point[0] for points in lines.values() for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(thousands if max(ticks) >= 1e4 else _whole)
    if logarithmic:
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(_whole)
    if from_zero:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend(loc="best")
    return figure


@styled
def learning_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], thresholds: Sequence[float], title: str
) -> "Figure":
    """Return against environment steps of several cores: a thin line per seed, a thick one for their median.

    A curve is (steps [N], returns [N, seed]) with NaN where nothing is known yet.
    """
    figure, axes = new_figure(title)
    for k, (label, (steps, returns)) in enumerate(curves.items()):
        color = COLORS[k % len(COLORS)]
        if returns.shape[1] > 1:
            axes.plot(steps, returns, color=color, alpha=0.45, linewidth=0.9)
        axes.plot(steps, np.median(returns, axis=1), color=color, linewidth=2.2, label=label)
    for threshold in thresholds:
        axes.axhline(threshold, color=INK, linewidth=0.7, linestyle=":")
    axes.set_xlabel("environment steps (per seed)")
    axes.set_ylabel("return of a trial")
    axes.xaxis.set_major_formatter(thousands)
    axes.margins(x=0.01)
    axes.legend(loc="best")
    return figure


@styled
def bars(
    groups: Mapping[str, Mapping[str, float]],
    title: str,
    xlabel: str,
    ylabel: str,
    line: tuple[str, float] | None = None,
) -> "Figure":
    """Bars side by side, a colour per label, at every place of the x axis; `line`: a level and its name."""
    figure, axes = new_figure(title)
    places = list(dict.fromkeys(place for values in groups.values() for place in values))
    width = 0.8 / len(groups)
    for k, (label, values) in enumerate(groups.items()):
        x = [places.index(place) + (k - (len(groups) - 1) / 2) * width for place in values]
        drawn = axes.bar(x, list(values.values()), width, color=COLORS[k % len(COLORS)], label=label)
        axes.bar_label(drawn, fmt="%.2g", fontsize=8)
    if line is not None:
        axes.axhline(line[1], color=INK, linewidth=0.8, linestyle=":", label=line[0])
    axes.set_xticks(range(len(places)), places)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend(loc="best")
    return figure


@styled
def dots(
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    title: str,
    xlabel: str,
    line: float | None = None,
) -> "Figure":
    """A row per label, in it a dot with its interval per series: (value, low, high); `line`: a level."""
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    figure, axes = new_figure(title, (8.0, 1.4 + 0.32 * len(rows)))
    for k, name in enumerate(series):
        shift = 0.22 * (k - (len(series) - 1) / 2)
        places = [place + shift for place, row in enumerate(rows.values()) if name in row]
        value, low, high = np.array([row[name] for row in rows.values() if name in row], float).T
        bars = np.abs(np.stack([value - low, high - value]))
        style: Any = nth_style(k) | {"markersize": 4, "linestyle": "none"}
        axes.errorbar(value, places, xerr=bars, linewidth=1.4, label=name, **style)
    if line is not None:
        axes.axvline(line, color=INK, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    axes.legend(loc="best")
    return figure


def _whole(value: float, _: Any) -> str:
    return f"{value:g}"


HeatMap = tuple[str, Sequence[str], Sequence[str], np.ndarray]
"""A title, the names of rows and of columns, and values `[rows, columns]`, NaN where there is none."""


@styled
def heat_maps(maps: Sequence[HeatMap], low: float = 0.0, high: float = 1.0) -> "Figure":
    """Maps one below the other, every value written in its cell; colours run from `low` to `high`."""
    maps = [each for each in maps if each[3].size]
    heights = [0.9 + 0.3 * len(rows) for _, rows, _, _ in maps]
    figure, _ = new_figure("", (3.2 + 0.75 * max(len(columns) for _, _, columns, _ in maps), sum(heights)))
    figure.clear()
    for axes, (title, rows, columns, values) in zip(
        figure.subplots(len(maps), 1, squeeze=False, height_ratios=heights)[:, 0], maps, strict=True
    ):
        axes.set_title(title)
        axes.imshow(values, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False)
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = value < low + 0.6 * (high - low)
                text = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if dark else INK}
                axes.text(column, row, f"{value:.2f}", **text)
    return figure
