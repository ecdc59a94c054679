"""Figures of a run, drawn with matplotlib without a display and without its global state.

Each function returns a matplotlib `Figure`; `save_png` and `to_svg` write it. Colours can be told apart by
people with any common colour-vision deficiency, and backgrounds are white, so that a figure reads the same
in a README on a dark page.
"""

import functools
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from .atomic import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

INK, MUTED, GRID = "#334155", "#64748b", "#e5e7eb"
COLORS = ("#d9480f", "#1c6dd0", "#2a9d8f", "#7b4fa3", "#b7791f", "#c2255c", "#343a40", "#5c940d")
_MARKERS = "os^DvPX<"  # one a colour
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",  # a report must not depend on the reader's fonts
    "svg.hashsalt": "resetta",  # the same figure is the same file
}


def nth_style(k: int) -> dict[str, Any]:
    """Colour, marker and dashes of the k-th line of a figure; sixteen differ."""
    dashes = ("-", "--")[k // len(COLORS) % 2]
    return {"color": COLORS[k % len(COLORS)], "marker": _MARKERS[k % len(_MARKERS)], "linestyle": dashes}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draws in our style whatever the caller's matplotlib settings, and leaves them as they were."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


@styled
def learning_curve(
    rows: Iterable[Mapping[str, Any]], title: str = "Learning curve", window: int = 0
) -> "Figure":
    """Return against environment steps from rows of `metrics.jsonl`, one thin line a seed, and their mean.

    Where rows tell several environments apart (`episode_return/NAME`), there is one thin line for each of
    them instead, its mean over seeds. Rows need `env_steps` and `episode_return`, a list with one entry a
    seed in which `null` means that no trial finished; such entries are skipped, and rows without these keys
    too. `window` rows are averaged (0: about a fiftieth of the run). The band is one standard deviation over
    seeds, not an interval.
    """
    kept = [
        row
        for row in rows
        if row.get("env_steps") is not None and isinstance(row.get("episode_return"), list)
    ]
    count = max((len(row["episode_return"]) for row in kept), default=0)
    steps = np.array([row["env_steps"] for row in kept], float)
    window = window or max(1, len(kept) // 50)
    figure, axes = new_figure(title)
    smooth = running_mean(_by_seed(kept, "episode_return", count), window)
    if not np.isfinite(smooth).any():
        return _nothing(axes, "no trial has finished yet")
    names = sorted({name for row in kept for name in row if name.startswith("episode_return/")})
    for i, name in enumerate(names):
        one = running_mean(_by_seed(kept, name, count), window)
        shown = np.isfinite(one).any(axis=1)
        style = {"color": COLORS[(i + 1) % len(COLORS)], "linewidth": 1.1}
        axes.plot(steps[shown], np.nanmean(one[shown], axis=1), label=name.partition("/")[2], **style)
    for seed in range(0 if names else count):
        shown = np.isfinite(smooth[:, seed])
        label = ("one line a seed" if seed == 0 else None) if count > 1 else None
        axes.plot(steps[shown], smooth[shown, seed], color=COLORS[0], alpha=0.45, linewidth=0.9, label=label)
    filled = np.isfinite(smooth).any(axis=1)
    average = np.nanmean(smooth[filled], axis=1)
    if count > 1 and not names:
        spread = np.nanstd(smooth[filled], axis=1)
        band = {"color": COLORS[0], "alpha": 0.14, "linewidth": 0, "label": "± one standard deviation"}
        axes.fill_between(steps[filled], average - spread, average + spread, **band)
    axes.plot(
        steps[filled],
        average,
        color=COLORS[0],
        linewidth=2.2,
        label="mean of all" if names else f"mean of {count}" if count > 1 else None,
    )
    axes.set_xlabel("environment steps (per seed)")
    axes.set_ylabel("return of a trial")
    axes.xaxis.set_major_formatter(thousands)
    axes.margins(x=0.01)
    if count > 1 or names:
        axes.legend(loc="best")
    return figure


def _by_seed(rows: Sequence[Mapping[str, Any]], name: str, count: int) -> np.ndarray:
    """The values of a metric, `[rows, count]`; NaN where there is none."""
    returns = np.full((len(rows), count), np.nan)
    for k, row in enumerate(rows):
        values = [np.nan if value is None else float(value) for value in row.get(name) or []]
        returns[k, : len(values)] = values
    return returns


@styled
def adaptation_curve(
    curves: Mapping[str, Any],
    trained_trials: int | None = None,
    baselines: Mapping[str, Any] | None = None,
    title: str = "Adaptation: return against trial",
    ylabel: str = "return of the trial",
) -> "Figure":
    """Return against trial with intervals, one line for each of `curves` (say, training and held-out tasks).

    A curve is a mapping or an object (`stats.Curve`) with `iqm` or `mean`, arrays [trial], and if there are
    any `low` and `high`. `baselines` (a random or a memoryless agent, another run) are drawn dashed; each is
    a curve, a sequence, or one number. A dotted line stands at `trained_trials`; what lies to the right of
    it was never trained.
    """
    figure, axes = new_figure(title)
    if not curves:
        return _nothing(axes, "nothing has been evaluated yet")
    longest = 1
    for k, (label, curve) in enumerate(curves.items()):
        center, low, high = _curve(curve)
        longest = max(longest, len(center))
        trials = np.arange(1, len(center) + 1)
        color = COLORS[k % len(COLORS)]
        if low is not None and high is not None:
            axes.fill_between(trials, low, high, color=color, alpha=0.16, linewidth=0)
        marker = _MARKERS[k % len(_MARKERS)] if len(center) <= 40 else None
        axes.plot(trials, center, color=color, linewidth=2.2, marker=marker, markersize=4.5, label=label)
    for k, (label, baseline) in enumerate((baselines or {}).items()):
        center = np.full(longest, baseline) if isinstance(baseline, int | float) else _curve(baseline)[0]
        style = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))[k % 3]
        trials = np.arange(1, len(center) + 1)
        axes.plot(trials, center, color=MUTED, linewidth=1.6, linestyle=style, label=label)
    if trained_trials is not None and trained_trials < longest:
        axes.axvline(trained_trials + 0.5, color=INK, linewidth=1.2, linestyle=":")
        axes.set_title(title, pad=20)  # above the two words
        where = axes.get_xaxis_transform()
        axes.text(
            trained_trials + 0.42,
            1.01,
            "trained",
            transform=where,
            ha="right",
            va="bottom",
            fontsize=8,
            color=MUTED,
        )
        axes.text(
            trained_trials + 0.58,
            1.01,
            "beyond",
            transform=where,
            ha="left",
            va="bottom",
            fontsize=8,
            color=MUTED,
        )
    axes.set_xlabel("trial")
    axes.set_ylabel(ylabel)
    axes.set_xlim(0.6, longest + 0.4)
    axes.set_xticks(np.arange(1, longest + 1, max(1, -(-longest // 20))))
    axes.legend(loc="best")
    return figure


@styled
def carry_norm(
    norms: Float[np.ndarray, " T"],
    episode_starts: Bool[np.ndarray, " T"] | None = None,
    resets: Bool[np.ndarray, " T"] | None = None,
    title: str = "What the memory holds: its norm over time",
) -> "Figure":
    """The norm of an agent's memory over time; ticks at each trial's start, lines where it is reset."""
    norms = np.asarray(norms, float)
    figure, axes = new_figure(title)
    if not norms.size:
        return _nothing(axes, "no memory was recorded")
    time = np.arange(len(norms))
    axes.plot(time, norms, color=COLORS[1], linewidth=1.8, label="norm of the memory")
    where = axes.get_xaxis_transform()
    if episode_starts is not None and np.any(episode_starts):
        starts = np.flatnonzero(episode_starts)
        axes.vlines(starts, 0, 0.045, transform=where, color=MUTED, linewidth=1.4, label="a trial starts")
    if resets is not None and np.any(resets):
        at = np.flatnonzero(resets)
        axes.vlines(at, 0, 1, transform=where, color=COLORS[0], linewidth=1.6, label="the memory is reset")
    axes.set_xlabel("step")
    axes.set_ylabel("norm")
    axes.set_ylim(0, max(1.25 * float(np.nanmax(norms, initial=0.0)), 1e-3))
    axes.margins(x=0.01)
    axes.legend(loc="upper right", ncols=3)
    return figure


@styled
def save_png(figure: "Figure", path: str | os.PathLike[str], dpi: int = 160) -> Path:
    """Writes a figure as PNG, atomically."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, facecolor="white", metadata={"Software": "resetta"})
    return Path(path)


@styled
def to_svg(figure: "Figure", alt: str = "") -> str:
    """A figure as an `<svg>` element to put into a page, `alt` being what a screen reader says.

    It has neither a document type nor links; identifiers are made unique by the text of `alt`.
    """
    import hashlib
    import html

    stream = io.StringIO()
    figure.savefig(stream, format="svg", facecolor="white", metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Inside a page neither name space needs declaring, and `xlink:href` has been plain `href` since SVG 2.
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    mark = hashlib.sha256((alt + svg).encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="\1-{mark}"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#\1-{mark}"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#\1-{mark})", svg)
    size = re.search(r'<svg[^>]*?viewBox="([^"]+)"', svg)
    box = size.group(1) if size else "0 0 1 1"
    label = f' role="img" aria-label="{html.escape(alt)}"' if alt else ' aria-hidden="true"'
    return re.sub(r"<svg[^>]*>", f'<svg viewBox="{box}"{label}>', svg, count=1)


def new_figure(title: str, size: tuple[float, float] = (7.2, 3.9)) -> "tuple[Figure, Axes]":
    """An empty figure in our style, without matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _nothing(axes: "Axes", why: str) -> "Figure":
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=MUTED)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.figure  # pyright: ignore[reportReturnType]


def _curve(curve: Any) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    if not isinstance(curve, Mapping):
        curve = {"iqm": curve} if isinstance(curve, Sequence | np.ndarray) else vars(curve)
    center = curve["iqm"] if curve.get("iqm") is not None else curve["mean"]
    low, high = (None if curve.get(k) is None else np.asarray(curve[k], float) for k in ("low", "high"))
    return np.asarray(center, float), low, high


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """A trailing mean over rows that skips what is missing; NaN only where nothing has been seen."""
    known = np.isfinite(values)
    total = np.cumsum(np.where(known, values, 0.0), axis=0)
    count = np.cumsum(known, axis=0)
    total[window:] -= total[:-window].copy()
    count[window:] -= count[:-window].copy()
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def thousands(value: float, _: Any) -> str:
    """A tick label such as `1.5 M`."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
